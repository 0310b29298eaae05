"""`sweep launch` and its old name on a cluster, `sweep submit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sweep.cli import consoles
from sweep.cli.ending import conclude, terminable
from sweep.cli.options import Address, GridName, MaxFailures, Settings, Storage, Strict
from sweep.store.files import absolute

if TYPE_CHECKING:
    from sweep.spec import Plan
    from sweep.store.sweep_dir import SweepDir


def launch(
    grid: GridName,
    settings: Settings = None,
    storage: Storage = "runs",
    address: Address = None,
    max_failures: MaxFailures = 3,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and what it costs, and change nothing.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --dry-run: time a few steps of each architecture for the estimate.")
    ] = False,
    strict: Strict = False,
) -> None:
    """Train and analyse a grid. Run it again after an interruption, or with a larger grid to extend the sweep."""
    from sweep.data.index import watched_by
    from sweep.grid.expand import expand, require_steps
    from sweep.grid.load import load_grid
    from sweep.service import launch as service
    from sweep.service.cluster import RayCluster
    from sweep.service.remarks import remarks, tell
    from sweep.store.sweep_dir import SweepDir
    from sweep.terminal.progress import preparing, tell_source

    loaded = load_grid(grid, [*(settings or []), *(["data.unusable=refuse"] if strict else [])])
    if dry_run:
        with preparing(consoles.complaints, loaded.data.name, "read") as watch, watched_by(watch):
            expansion = expand(loaded)
        require_steps(expansion)
        tell_source(consoles.output, expansion.source)
        consoles.output.print(_plan_table(expansion.plans))
        tell(consoles.output, remarks(loaded, expansion.plans, address))
        _tell_estimate(SweepDir(absolute(storage) / loaded.name), expansion.plans, address, probe)
        return
    if probe:
        raise ValueError("--probe is for the estimate of --dry-run; add it, or leave --probe out")
    with terminable():
        cluster = RayCluster(address=address, max_failures=max_failures)
        sweep, outcome = service.launch(loaded, absolute(storage), cluster, consoles.output)
    conclude(sweep, outcome)


def submit(
    grid: GridName,
    cluster: Annotated[str, typer.Option(help="The cluster's job server.", envvar="RAY_API_SERVER_ADDRESS")],
    settings: Settings = None,
    storage: Annotated[
        str, typer.Option(help="A URL or an absolute path that all nodes can reach.", envvar="SWEEP_STORAGE")
    ] = "",
    max_failures: MaxFailures = 3,
    wait: Annotated[bool, typer.Option(help="Follow the job's output until it ends.")] = True,
) -> None:
    """Launch a grid as a job of a remote Ray cluster; Ctrl-C leaves the job running."""
    from sweep.grid.load import load_grid
    from sweep.service import submit as jobs

    job = jobs.submit(load_grid(grid, settings or []), cluster, storage, max_failures)
    said = f"job {job.id} on {cluster}; to stop it: {job.stop_command}"
    consoles.output.print(said, highlight=False, soft_wrap=True)
    if not wait:
        return
    try:
        for said in job.output():
            print(said, end="", flush=True)
    except KeyboardInterrupt:
        said = f"the job continues; to follow it: {job.logs_command}"
        consoles.complaints.print(said, style="yellow", highlight=False)
        raise typer.Exit(130) from None
    raise typer.Exit(job.exit_code())


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
