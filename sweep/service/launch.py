"""Make a sweep directory complete: plan what a grid means, train what is not finished, analyse what is not analysed.

Launch, extend, resume and retry are this one operation; each may be repeated and interrupted. One driver at a time
works on a sweep (sweep.store.lease).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import ValidationError
from rich.console import Console
from upath import UPath

from analysis.write import RESULTS
from sweep.grid.settings import Settings, settings_of
from sweep.results.compact import compact_all, mend, settled_trials, survey, unsettle
from sweep.results.cost import read_prices
from sweep.service.choice import EVERY_TRIAL, NO_TRIAL, Choice, answer_all, begin_from_scratch
from sweep.service.cluster import RayCluster, capacity_of_cluster, connected, require_room
from sweep.service.estimate import Planned, estimate_run, tell_estimate
from sweep.service.remarks import other_threads, remarks, tell
from sweep.spec import Plan, Resources
from sweep.store.files import remove_file, require_writable
from sweep.store.lease import Lease, hold
from sweep.store.removal import require_not_half_removed
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.terminal.cost import planned_trials
from sweep.terminal.progress import display, preparing, tell_source

if TYPE_CHECKING:
    from sweep.grid.schema import Grid


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: whether it ran to its end, the trials that failed, and the analyses that left no results."""

    complete: bool
    failed: int
    lost_analyses: int = 0

    @property
    def exit_code(self) -> int:
        if not self.complete:
            return 130
        return 1 if self.failed or self.lost_analyses else 0


@dataclass(frozen=True)
class Addition:
    """The trials of a grid that is launched, and how many of them its sweep didn't have."""

    plans: Sequence[Plan]
    new: int

    def planned(self, trials: pd.DataFrame) -> Planned:
        """What is new and finished of them, by the sweep's table of trials."""
        finished = set(trials.loc[trials["status"] == "finished", "trial_id"])
        done = sum(plan.trial_id in finished for plan in self.plans)
        return Planned(in_grid=len(self.plans), new=self.new, finished=done)


def launch(grid: "Grid", storage: UPath, cluster: RayCluster, console: Console) -> tuple[SweepDir, Outcome]:
    """Add a grid's trials to its sweep and run all of the sweep's trials that are not finished.

    Raises:
        ValueError: the grid, its data or the storage is not usable, or another driver is working on the sweep; nothing
            has been trained.
    """
    from sweep.data.index import watched_by
    from sweep.grid.expand import expand, require_steps

    with preparing(console, grid.data.name, "read") as watch, watched_by(watch):
        expansion = expand(grid)
    require_steps(expansion)
    require_writable(storage)
    sweep = SweepDir(storage / grid.name)
    settled = settled_trials(sweep)
    wanted = [plan.resources for plan in expansion.plans if plan.excluded is None and plan.trial_id not in settled]
    with _room_for(wanted, cluster), hold(sweep.path) as lease:
        require_not_half_removed(sweep.path)
        document = grid.model_dump(mode="json")
        unchanged = all(launch["grid"].get("resources") == document["resources"] for launch in sweep.launches())
        new = sweep.add(expansion.plans, settled if unchanged else frozenset())
        sweep.record_launch(document)
        tell_source(console, expansion.source)
        tell(console, remarks(grid, expansion.plans, cluster.address))
        console.print(str(sweep.path), highlight=False, markup=False, soft_wrap=True)
        return sweep, _complete(sweep, console, cluster, EVERY_TRIAL, lease, Addition(expansion.plans, new))


def resume(sweep: SweepDir, console: Console, cluster: RayCluster, choice: Choice = EVERY_TRIAL) -> Outcome:
    """Run the chosen trials that are not finished, and analyse all checkpoints.

    Raises:
        ValueError: another driver is working on the sweep.
    """
    with hold(sweep.path) as lease:
        if choice.start == "scratch":
            last_settings(sweep)  # an invalid grid is an error before anything is set aside
            choice = Choice(trial_ids=begin_from_scratch(sweep, choice))
        return _complete(sweep, console, cluster, choice, lease)


def analyse_again(sweep: SweepDir, console: Console, cluster: RayCluster) -> Outcome:
    """Repeat all analyses of a sweep; no trial is trained."""
    with hold(sweep.path) as lease:
        unsettle(sweep, settled_trials(sweep))
        for trial in sweep.trials():
            for step in trial.layers.iterdir() if trial.layers.exists() else []:
                remove_file(step / RESULTS)
        return _complete(sweep, console, cluster, NO_TRIAL, lease)


def last_settings(sweep: SweepDir) -> Settings:
    """Those of the grid launched last; they apply to every resume, but for trials planned with their own resources."""
    launches = sweep.launches()
    try:
        return settings_of(launches[-1]["grid"])
    except (IndexError, ValidationError) as error:
        raise ValueError(f"{sweep.file} has no valid grid; launch the grid again") from error


def _complete(
    sweep: SweepDir,
    console: Console,
    cluster: RayCluster,
    choice: Choice,
    lease: Lease,
    added: Addition | None = None,
) -> Outcome:
    """Train the chosen and the requested trials that are not finished, and analyse all checkpoints."""
    prices = read_prices()  # an error in them is one before anything is trained
    asked = answer_all(sweep, console)
    seen = survey(sweep)
    trials = seen.unsettled
    todo = [
        (plan, status)
        for plan, status in trials
        if status.status not in ("finished", "excluded")
        and (choice.takes(plan.trial_id, status) or plan.trial_id in asked)
    ]
    begun = [plan for plan, status in trials if status != Status()]
    waiting = [folder for plan in begun for folder in sweep.trial(plan.trial_id).unanalysed(plan)]
    planned = None if added is None else added.planned(seen.tables["trials"])
    if not todo and not waiting:
        which = "every trial" if choice == EVERY_TRIAL else "every chosen trial"
        if seen.newly_settled:  # by a driver that was killed before it could write them
            compact_all(sweep)
        for name in mend(sweep):
            console.print(f"the table `{name}` was damaged; it is rebuilt from the trials", style="yellow")
        if planned is not None:
            console.print(planned_trials(**asdict(planned), left=0), highlight=False)
        console.print(f"nothing to do: {which} is finished and analysed", highlight=False)
        return Outcome(complete=True, failed=int((seen.tables["trials"]["status"] == "failed").sum()))
    settings = last_settings(sweep)
    tell(console, other_threads(todo, settings.resources))
    for plan, status in todo:
        if status.status == "running":  # its driver has died: this one holds the lease
            trial = sweep.trial(plan.trial_id)
            reason = trial.interrupted(f"interrupted on {status.host}")
            trial.write_status(replace(status, status="pending", reason=reason))
    seen = replace(seen, unsettled=sweep.read(sweep.trial(plan.trial_id) for plan, _ in trials))
    from sweep.service.driver import Driver

    for plan in {plan.spec.data.prepared.key: plan for plan, _ in todo}.values() if cluster.address is None else ():
        from sweep.data.prepare import prepare  # loads torch

        try:
            with preparing(console, plan.spec.data.name) as report:
                prepare(plan.spec.data, plan.root, report)
        except (ValueError, OSError) as error:  # its trials will say so too; others need not wait for it
            console.print(f"data set {plan.spec.data.name}: {error}", style="yellow", highlight=False, markup=False)
    epochs = sum(_epochs(plan) for plan, _ in todo)
    done = sum(status.epoch for _, status in todo)
    with connected(cluster.address) as ray_logs, display(console, len(todo), epochs, done) as shown:
        require_room([settings.resources.of_plan(plan) for plan, _ in todo], cluster.address)
        plans = [plan for plan, _ in todo]
        if plans:
            tell_estimate(console, estimate_run(seen, plans, capacity_of_cluster(), prices, planned), bool(prices))
        cluster.on_begin(sweep)
        driver = Driver(sweep, settings, seen, shown, lease, cluster, ray_logs)
        ran_to_end = driver.run(plans, waiting)
    return Outcome(complete=ran_to_end, failed=driver.failed_trials(), lost_analyses=driver.lost_analyses)


@contextmanager
def _room_for(wanted: Sequence[Resources | None], cluster: RayCluster) -> Iterator[None]:
    """Stay connected to a cluster that can hold trials, if there are any.

    Raises:
        ValueError: it never can.
    """
    if not wanted:
        yield
        return
    with connected(cluster.address):
        require_room([resources for resources in wanted if resources is not None], cluster.address)
        yield


def _epochs(plan: Plan) -> int:
    return 0 if plan.images == 0 else plan.spec.recipe.epochs
