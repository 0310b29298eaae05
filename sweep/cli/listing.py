"""`sweep list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import AsJson, Storage
from sweep.store.files import absolute


class Listed(StrEnum):
    ARCHITECTURES = "architectures"
    INTERVENTIONS = "interventions"
    DATA = "data"
    RECIPES = "recipes"
    GRIDS = "grids"
    SWEEPS = "sweeps"


def list_names(
    what: Annotated[Listed, typer.Argument(help="What to list.")],
    storage: Storage = "runs",
    sizes: Annotated[
        bool, typer.Option("--sizes", help="With sweeps: the disk each takes; this looks at all of its files.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what a grid can name, or the sweeps of a storage."""
    from sweep.grid import catalogue
    from sweep.terminal import listing

    if sizes and what is not Listed.SWEEPS:
        raise ValueError(f"--sizes is for `sweep list sweeps`; leave it out, since {what} take no room in a storage")
    if what is Listed.SWEEPS:
        found = listing.sweeps(absolute(storage), sizes)
        if as_json:
            consoles.print_json([listing.sweep_json(sweep) for sweep in found])
            return
        header, rows = listing.sweep_rows(found)
    else:
        header, rows = catalogue.rows(what)
        if as_json:
            consoles.print_json([dict(zip(header, row, strict=True)) for row in rows])
            return
    if not rows:
        consoles.tell(f"there are no sweeps in {storage}", as_json=True, style="yellow")
        return
    console = consoles.output
    console.print(listing.entries(header, rows, console.width), highlight=False, soft_wrap=True)
