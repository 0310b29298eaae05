"""`sweep status` and `sweep list`."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from typing import Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute


class Listed(StrEnum):
    ARCHITECTURES = "architectures"
    INTERVENTIONS = "interventions"
    DATA = "data"
    RECIPES = "recipes"
    GRIDS = "grids"
    SWEEPS = "sweeps"


def status(
    context: typer.Context,
    sweep: SweepName,
    storage: Storage = "runs",
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print again every 5 seconds.")] = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Show the state of a sweep."""
    from sweep.store.sweep_dir import open_sweep
    from sweep.terminal import show

    if cluster is not None and watch:
        raise ValueError("--watch with --cluster would send a job every 5 seconds; follow with `sweep logs` instead")
    if cluster is not None:
        look_there(context, sweep, storage)
    opened = open_sweep(sweep, absolute(storage))
    while True:
        if as_json:
            print(json.dumps(show.sweep_json(opened), indent=1))
        else:
            consoles.output.print(show.sweep_table(opened))
        if not watch:
            return
        time.sleep(5)  # the watcher's own pace; nothing waits for it


def list_names(what: Listed, storage: Storage = "runs") -> None:
    """List what a grid can name, or the sweeps of a storage."""
    from sweep.grid import catalogue
    from sweep.terminal import listing

    header, rows = listing.sweeps(absolute(storage)) if what is Listed.SWEEPS else catalogue.rows(what)
    if not rows:
        said = f"there are no sweeps in {storage}"
        consoles.complaints.print(said, style="yellow", highlight=False, soft_wrap=True)
        return
    console = consoles.output
    console.print(listing.entries(header, rows, console.width), highlight=False, soft_wrap=True)
