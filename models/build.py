"""Build a network by the names of its architecture and intervention."""

import difflib
from collections.abc import Iterable

import torch

from models.architectures import ARCHITECTURES
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS


def build(architecture: str, intervention: str, num_classes: int, image_size: int, seed: int) -> ConvNet:
    """Build an initialised network on the CPU; the same arguments give the same weights, bit for bit.

    Leaves PyTorch's global random state as it was.

    Raises:
        ValueError: a name is unknown; the message lists the allowed names and the nearest.
    """
    require_known("architecture", architecture, ARCHITECTURES)
    require_known("intervention", intervention, INTERVENTIONS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ARCHITECTURES[architecture].build(num_classes, image_size)
        INTERVENTIONS[intervention].change_network(net)
    return net


def require_known(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raise a ValueError that names the nearest and all allowed names unless `name` is among them."""
    names = list(allowed)
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise ValueError(f"unknown {kind} {name!r}; did you mean {nearest[0]!r}? Allowed: {', '.join(names)}")
