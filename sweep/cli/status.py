"""`sweep status`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute


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
            consoles.print_json(show.sweep_json(opened))
        else:
            consoles.output.print(show.sweep_table(opened))
        if not watch:
            return
        time.sleep(5)  # the watcher's own pace; nothing waits for it
