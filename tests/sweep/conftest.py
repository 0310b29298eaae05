"""A grid so small that a trial takes a second."""

from pathlib import Path

import pytest
from upath import UPath

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.grid.schema import Grid
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir

TINY = [
    "interventions=[baseline]",
    "data.options={train_images: 48, val_images: 16}",
    "recipe.epochs=3",
    "recipe.batch_size=16",
]


@pytest.fixture
def tiny() -> Grid:
    return load_grid("demo", TINY)


@pytest.fixture
def plan(tiny: Grid) -> Plan:
    return expand(tiny).plans[0]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    return SweepDir(UPath(tmp_path / "runs" / "demo"))
