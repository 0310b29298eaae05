"""`sweep launch` and its old name on a cluster, `sweep submit`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Table

from sweep.cli import consoles
from sweep.cli.checks import require_job_server
from sweep.cli.options import (
    Address,
    AsJson,
    AtATime,
    BudgetSaid,
    Cluster,
    FreshProcesses,
    GridName,
    Insecure,
    MaxFailures,
    Notify,
    Settings,
    ShipCode,
    Storage,
    Strict,
    Track,
    Wait,
    Weight,
)
from sweep.cli.remote import run_there
from sweep.cli.running import conclude, observers_of, ray_cluster, terminable
from sweep.store.files import absolute

if TYPE_CHECKING:
    from sweep.grid.schema import Grid
    from sweep.spec import Plan
    from sweep.store.sweep_dir import SweepDir


def launch(
    context: typer.Context,
    grid: GridName,
    settings: Settings = None,
    storage: Storage = "runs",
    address: Address = None,
    max_failures: MaxFailures = 3,
    fresh_processes: FreshProcesses = False,
    at_a_time: AtATime = None,
    budget: BudgetSaid = None,
    weight: Weight = 1.0,
    as_json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and what it costs, and change nothing.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --dry-run: time a few steps of each architecture for the estimate.")
    ] = False,
    strict: Strict = False,
    track: Track = None,
    notify: Notify = None,
    cluster: Cluster = None,
    wait: Wait = True,
    ship_code: ShipCode = False,
    insecure: Insecure = False,
) -> None:
    """Train and analyse a grid. Run it again after an interruption, or with a larger grid to extend the sweep."""
    loaded = _load(grid, settings, strict)
    if probe and not dry_run:
        raise ValueError("--probe is for the estimate of --dry-run; add it, or leave --probe out")
    if cluster is not None:
        _launch_there(context, loaded, storage)
    from sweep.store.sweep_dir import SweepDir

    if dry_run:
        _dry_run(loaded, SweepDir(absolute(storage) / loaded.name), address, probe, as_json)
        return
    from sweep.service import launch as service

    with terminable():
        observers = observers_of(track, notify)
        where = ray_cluster(address, max_failures, fresh_processes, at_a_time, budget, weight, observers, as_json)
        sweep, outcome = service.launch(loaded, absolute(storage), where, consoles.messages(as_json))
    conclude(sweep, outcome, as_json)


def submit(
    context: typer.Context,
    grid: GridName,
    cluster: Annotated[
        str,
        typer.Option(help="The cluster's job server.", envvar="RAY_API_SERVER_ADDRESS", callback=require_job_server),
    ],
    settings: Settings = None,
    storage: Annotated[
        str, typer.Option(help="A URL or an absolute path that all nodes can reach.", envvar="SWEEP_STORAGE")
    ] = "",
    max_failures: MaxFailures = 3,
    strict: Strict = False,
    wait: Wait = True,
    ship_code: ShipCode = False,
    insecure: Insecure = False,
) -> None:
    """The old name of `launch --cluster`."""
    _launch_there(context, _load(grid, settings, strict), storage)


def _load(grid: str, settings: list[str] | None, strict: bool) -> Grid:
    from sweep.grid.document import read_document

    document = read_document(grid, [*(settings or []), *(["data.unusable=refuse"] if strict else [])])
    from sweep.grid.load import as_grid  # loads torch, which a grid that is refused doesn't wait for

    return as_grid(document, grid)


def _launch_there(context: typer.Context, grid: Grid, storage: str) -> NoReturn:
    """Launch a grid, as it is resolved here, on the `--cluster`."""
    import yaml

    from sweep.data.index import watched_by
    from sweep.service.jobs import check_grid, located
    from sweep.terminal.progress import preparing

    def check() -> None:
        with preparing(consoles.complaints, grid.data.name, "read") as watch, watched_by(watch):
            check_grid(grid)

    location = located(grid.name, storage)
    run_there(
        context,
        location,
        check,
        name="launch",
        replaced={"grid": "grid.yaml", "settings": None, "strict": None, "storage": location.storage},
        files={"grid.yaml": yaml.safe_dump(grid.model_dump(mode="json"), sort_keys=False)},
    )


def _plan_table(plans: list[Plan]) -> Table:
    table = Table(title=f"{len(plans)} trials", title_justify="left")
    for column in ("trial", "parameters", "expected", "remark"):
        table.add_column(column, overflow="fold")
    for plan in plans:
        remark = f"excluded: {plan.excluded}" if plan.excluded else ""
        table.add_row(plan.trial_id, f"{plan.parameters:,}", ", ".join(plan.expected), remark)
    return table


def _dry_run(grid: Grid, sweep: SweepDir, address: str | None, probe: bool, as_json: bool) -> None:
    """Print what a launch would train and what that would cost."""
    from sweep.data.index import watched_by
    from sweep.grid.expand import expand, require_steps
    from sweep.results.cost import read_prices
    from sweep.service.estimate import capacity_at, estimate, probed_speeds, tell_estimate
    from sweep.service.remarks import remarks, tell
    from sweep.store.removal import require_not_half_removed
    from sweep.terminal.progress import preparing, tell_source

    require_not_half_removed(sweep.path)
    with preparing(consoles.complaints, grid.data.name, "read") as watch, watched_by(watch):
        expansion = expand(grid)
    require_steps(expansion)
    console = consoles.messages(as_json)
    tell_source(console, expansion.source)
    if not as_json:
        console.print(_plan_table(expansion.plans))
    tell(console, remarks(grid, expansion.plans, address))
    prices = read_prices()
    speeds = []
    for speed in probed_speeds(expansion.plans, address) if probe else ():
        speeds.append(speed)
        consoles.tell(f"{speed.architecture}: {speed.images_per_s:,.0f} images per second, {speed.device}", as_json)
    found = estimate(sweep, expansion.plans, capacity_at(address), prices, speeds)
    if as_json:
        trials = [_plan_json(plan) for plan in expansion.plans]
        measured = [asdict(speed) for speed in speeds]
        consoles.print_json({"sweep": grid.name, "trials": trials, "estimate": asdict(found), "speeds": measured})
    else:
        tell_estimate(console, found, bool(prices))


def _plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "trial_id": plan.trial_id,
        "parameters": plan.parameters,
        "expected": list(plan.expected),
        "excluded": plan.excluded,
        "images": plan.images,
    }
