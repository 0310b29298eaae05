"""What a grid can name: rows for `sweep list` and for the README."""

from collections.abc import Callable
from importlib.resources import files

import torch
from rich.table import Table
from torch import nn

import models
from models import from_timm
from models.architectures import ARCHITECTURES
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.grid.load import grid_names

_CLASSES = 1001  # of the article's classifier


Rows = tuple[list[str], list[list[str]]]


def architectures() -> Rows:
    """Name, image size, layers analysed, parameters with the article's 1001 classes, source."""
    rows = []
    for name, architecture in ARCHITECTURES.items():
        net = _on_meta(name, "baseline")
        layers = ", ".join(conv.removeprefix("features.").removesuffix(".conv") for conv in net.final_convs)
        rows.append([name, str(architecture.image_size), layers, _count(net), architecture.source])
    source = f"any convolutional model of timm (pip install timm), with {', '.join(from_timm.INTERVENTIONS)}"
    rows.append([f"{from_timm.PREFIX}NAME", "the model's", "last three spatial convs", "the model's", source])
    header = ["architecture", "image size", "layers analysed", f"parameters ({_CLASSES} classes)", "source"]
    return header, rows


def interventions() -> Rows:
    """Name, what changes, parameters of `simplified` under it, the finding expected there, source.

    Parameters are those of its head and of the whole network, with the article's 1001 classes.
    """
    rows = []
    for name, intervention in INTERVENTIONS.items():
        net = _on_meta("simplified", name)
        expected = ", ".join(intervention.expected.get("simplified", ("unknown",)))
        rows.append([name, intervention.what, _count(net.head), _count(net), expected, intervention.source])
    header = [
        "intervention",
        "what changes",
        "parameters of the head of `simplified`",
        "all",
        "expected (last conv first)",
        "source",
    ]
    return header, rows


def grids() -> Rows:
    """Name of each grid that comes with the project and the comment it opens with."""
    rows = []
    for name in grid_names():
        lines = (files("sweep.grids") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comment = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
        rows.append([name, " ".join(comment[1:])])
    return ["grid", "what it is"], rows


ROWS: dict[str, Callable[[], Rows]] = {
    "architectures": architectures,
    "interventions": interventions,
    "grids": grids,
}


def table(what: str) -> Table:
    """What `sweep list` prints."""
    header, rows = ROWS[what]()
    printed = Table()
    for column in header:
        printed.add_column(column, overflow="fold")
    for row in rows:
        printed.add_row(*row)
    return printed


def _on_meta(architecture: str, intervention: str) -> ConvNet:
    """A network without memory, for its numbers alone."""
    with torch.device("meta"):
        return models.build(architecture, intervention, _CLASSES, ARCHITECTURES[architecture].image_size, seed=0)


def _count(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"
