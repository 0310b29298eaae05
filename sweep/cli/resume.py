"""`sweep resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli import consoles
from sweep.cli.ending import conclude, terminable
from sweep.cli.options import Address, MaxFailures, Storage, SweepName
from sweep.store.files import absolute


def resume(
    sweep: SweepName,
    only: Annotated[list[str] | None, typer.Option(help="`failed`, or a trial id (may contain *). Repeatable.")] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from scratch; earlier work is kept under attempts/.")
    ] = False,
    storage: Storage = "runs",
    address: Address = None,
    max_failures: MaxFailures = 3,
) -> None:
    """Run all unfinished trials of a sweep from their last valid checkpoints."""
    from sweep.service import launch as service
    from sweep.service.choice import choose
    from sweep.service.cluster import RayCluster
    from sweep.store.sweep_dir import open_sweep

    opened = open_sweep(sweep, absolute(storage))
    choice = choose(opened, only or [], "scratch" if from_scratch else "checkpoint")
    with terminable():
        cluster = RayCluster(address=address, max_failures=max_failures)
        outcome = service.resume(opened, consoles.output, cluster, choice)
    conclude(opened, outcome)
