"""What a grid can name: rows for `sweep list` and for the README."""

from collections.abc import Callable
from importlib.resources import files

import torch
from rich.table import Table

import models
from models.architectures import ARCHITECTURES
from models.interventions import INTERVENTIONS
from sweep.grid import grid_names

_CLASSES = 1001  # of the article's classifier


Rows = tuple[list[str], list[list[str]]]


def architectures() -> Rows:
    """Name, image size, layers analysed, parameters with the article's 1001 classes, source."""
    rows = []
    for name, architecture in ARCHITECTURES.items():
        with torch.device("meta"):
            net = models.build(name, "baseline", _CLASSES, architecture.image_size, seed=0)
        parameters = sum(parameter.numel() for parameter in net.parameters())
        layers = ", ".join(conv.removeprefix("features.").removesuffix(".conv") for conv in net.final_convs)
        rows.append([name, str(architecture.image_size), layers, f"{parameters:,}", architecture.source])
    return ["architecture", "image size", "layers analysed", "parameters", "source"], rows


def interventions() -> Rows:
    """Name, what changes, the finding expected in `simplified` from the last conv on, source."""
    rows = [
        [name, intervention.what, ", ".join(intervention.expected.get("simplified", ("unknown",))), intervention.source]
        for name, intervention in INTERVENTIONS.items()
    ]
    return ["intervention", "what changes", "expected (last conv first)", "source"], rows


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
