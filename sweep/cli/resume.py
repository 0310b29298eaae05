"""`sweep resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import (
    Address,
    AsJson,
    AtATime,
    BudgetSaid,
    Cluster,
    FreshProcesses,
    Insecure,
    MaxFailures,
    Notify,
    ShipCode,
    Storage,
    SweepName,
    Track,
    Wait,
    Weight,
)
from sweep.cli.remote import run_there
from sweep.cli.running import conclude, observers_of, ray_cluster, terminable
from sweep.store.files import absolute

if TYPE_CHECKING:
    from sweep.service.choice import Choice
    from sweep.store.sweep_dir import SweepDir


def resume(
    context: typer.Context,
    sweep: SweepName,
    only: Annotated[list[str] | None, typer.Option(help="`failed`, or a trial id (may contain *). Repeatable.")] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from scratch; earlier work is kept under attempts/.")
    ] = False,
    storage: Storage = "runs",
    address: Address = None,
    max_failures: MaxFailures = 3,
    fresh_processes: FreshProcesses = False,
    at_a_time: AtATime = None,
    budget: BudgetSaid = None,
    weight: Weight = 1.0,
    as_json: AsJson = False,
    track: Track = None,
    notify: Notify = None,
    cluster: Cluster = None,
    wait: Wait = True,
    ship_code: ShipCode = False,
    insecure: Insecure = False,
) -> None:
    """Run all unfinished trials of a sweep from their last valid checkpoints."""
    from sweep.service import launch as service
    from sweep.service.choice import choose
    from sweep.service.jobs import located, seen_from_here
    from sweep.store.sweep_dir import open_sweep

    def chosen(opened: SweepDir) -> Choice:
        return choose(opened, only or [], "scratch" if from_scratch else "checkpoint")

    if cluster is not None:
        location = located(sweep, storage)

        def check() -> None:
            if (seen := seen_from_here(location)) is not None:
                chosen(seen)

        run_there(context, location, check, replaced={"sweep": location.path})
    opened = open_sweep(sweep, absolute(storage))
    choice = chosen(opened)
    with terminable():
        observers = observers_of(track, notify)
        where = ray_cluster(address, max_failures, fresh_processes, at_a_time, budget, weight, observers, as_json)
        outcome = service.resume(opened, consoles.messages(as_json), where, choice)
    conclude(opened, outcome, as_json)
