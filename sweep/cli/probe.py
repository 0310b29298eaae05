"""`sweep probe`."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.measuring import measure, tell
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute


def probe(
    context: typer.Context,
    sweep: SweepName,
    images: Annotated[int, typer.Option(min=5, help="Validation images per trial.")] = 256,
    storage: Storage = "runs",
    as_json: AsJson = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Measure how well position can be read from each trial's last maps, and what bands their inputs make likely."""
    from sweep.results.position import POSITION
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        look_there(context, sweep, storage)
    opened = open_sweep(sweep, absolute(storage))
    raise typer.Exit(tell(opened, POSITION, measure(opened, POSITION, images), as_json))
