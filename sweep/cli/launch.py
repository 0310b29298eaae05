"""`sweep launch` and its old name on a cluster, `sweep submit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table

from sweep.cli import consoles
from sweep.cli.options import (
    Address,
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
    from sweep.data.index import watched_by
    from sweep.grid.expand import expand, require_steps
    from sweep.service import launch as service
    from sweep.service.remarks import remarks, tell
    from sweep.store.sweep_dir import SweepDir
    from sweep.terminal.progress import preparing, tell_source

    loaded = _load(grid, settings, strict)
    if probe and not dry_run:
        raise ValueError("--probe is for the estimate of --dry-run; add it, or leave --probe out")
    if cluster is not None:
        _launch_there(context, loaded, storage)
    if dry_run:
        with preparing(consoles.complaints, loaded.data.name, "read") as watch, watched_by(watch):
            expansion = expand(loaded)
        require_steps(expansion)
        tell_source(consoles.output, expansion.source)
        consoles.output.print(_plan_table(expansion.plans))
        tell(consoles.output, remarks(loaded, expansion.plans, address))
        _tell_estimate(SweepDir(absolute(storage) / loaded.name), expansion.plans, address, probe)
        return
    with terminable():
        observers = observers_of(track, notify)
        where = ray_cluster(address, max_failures, fresh_processes, at_a_time, budget, weight, observers)
        sweep, outcome = service.launch(loaded, absolute(storage), where, consoles.output)
    conclude(sweep, outcome)


def submit(
    context: typer.Context,
    grid: GridName,
    cluster: Annotated[str, typer.Option(help="The cluster's job server.", envvar="RAY_API_SERVER_ADDRESS")],
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
    from sweep.grid.load import load_grid

    return load_grid(grid, [*(settings or []), *(["data.unusable=refuse"] if strict else [])])


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


def _tell_estimate(sweep: SweepDir, plans: list[Plan], address: str | None, probe: bool) -> None:
    """Print what a launch would train and what that would cost."""
    from sweep.results.cost import read_prices
    from sweep.results.words import count
    from sweep.service.estimate import capacity_at, estimate, probed_speeds
    from sweep.terminal.cost import estimate_lines

    prices = read_prices()
    speeds = []
    for speed in probed_speeds(plans, address) if probe else ():
        speeds.append(speed)
        measured = f"{speed.architecture}: {speed.images_per_s:,.0f} images per second, {speed.device}"
        consoles.output.print(measured, highlight=False, markup=False)
    found = estimate(sweep, plans, capacity_at(address), prices, speeds)
    trials = (
        f"{count(found.in_grid, 'trial')} in the grid, {found.new} of them new and {found.finished} finished; "
        f"{found.cost.trials_left} to do in the sweep"
    )
    for line in estimate_lines(trials, found.cost, found.kept_bytes, found.passing_bytes, bool(prices)):
        consoles.output.print(line, highlight=False, markup=False, soft_wrap=True)
