"""Pure PyTorch: architectures and interventions. Knows no data, no Ray, no disk."""

from models.build import build

__all__ = ["build"]
