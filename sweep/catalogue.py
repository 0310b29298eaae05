"""What a grid can name: tables for `sweep list` and for the README."""

from collections.abc import Callable
from importlib.resources import files

import torch
from rich.table import Table

import models
from models.architectures import ARCHITECTURES
from models.interventions import INTERVENTIONS
from sweep.grid import grid_names

_CLASSES = 1001  # of the article's classifier


def architectures() -> Table:
    """Name, image size, layers analysed, parameters with the article's 1001 classes, source."""
    table = _table("architecture", "image size", "layers analysed", "parameters", "source")
    for name, architecture in ARCHITECTURES.items():
        with torch.device("meta"):
            net = models.build(name, "baseline", _CLASSES, architecture.image_size, seed=0)
        parameters = sum(parameter.numel() for parameter in net.parameters())
        layers = ", ".join(conv.removeprefix("features.").removesuffix(".conv") for conv in net.final_convs)
        table.add_row(name, str(architecture.image_size), layers, f"{parameters:,}", architecture.source)
    return table


def interventions() -> Table:
    """Name, what changes, the finding expected in `simplified` from the last conv on, source."""
    table = _table("intervention", "what changes", "expected (last conv first)", "source")
    for name, intervention in INTERVENTIONS.items():
        expected = ", ".join(intervention.expected.get("simplified", ("unknown",)))
        table.add_row(name, intervention.what, expected, intervention.source)
    return table


def grids() -> Table:
    """Name of each grid that comes with the project and the comment it opens with."""
    table = _table("grid", "what it is")
    for name in grid_names():
        lines = (files("sweep.grids") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comment = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
        table.add_row(name, " ".join(comment[1:]))
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "architectures": architectures,
    "interventions": interventions,
    "grids": grids,
}


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
