"""What a shell completes: names of sweeps, grids and of what a grid can name.

A completion answers at once and is silent when it can't: it loads nothing heavy, and asks no storage over a network.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import typer


def sweeps(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the sweeps of a local storage."""
    with suppress(Exception):
        storage = context.params.get("storage") or "runs"
        if "://" not in storage:
            folders = Path(storage).expanduser().iterdir()
            names = [folder.name for folder in folders if folder.name.startswith(incomplete)]
            return sorted(name for name in names if (Path(storage).expanduser() / name / "sweep.yaml").is_file())
    return []


def grids(incomplete: str) -> list[str]:
    """Names of the shipped grids, and YAML files beside where the user is."""
    with suppress(Exception):
        shipped = (Path(__file__).parents[1] / "grids").glob("*.yaml")
        folder = Path(incomplete).parent if "/" in incomplete else Path()
        own = [str(file) for file in folder.glob("*.y*ml")]
        return sorted(name for name in [*(file.stem for file in shipped), *own] if name.startswith(incomplete))
    return []


def named(what: str) -> Callable[[str], list[str]]:
    """Names that a grid can use, from the shipped catalogue: `architectures`, `interventions`, `data`, `recipes`."""

    def complete(incomplete: str) -> list[str]:
        with suppress(Exception):
            file = Path(__file__).parents[1] / "grid" / "catalogue.json"
            _, rows = json.loads(file.read_text(encoding="utf-8"))["rows"][what]
            return [row[0] for row in rows if row[0].startswith(incomplete)]
        return []

    return complete
