"""Make a sweep directory complete: plan what a grid means, train what is not finished, analyse what is not analysed.

Launch, extend, resume and retry are this one operation; each may be repeated and interrupted. One driver at a time
works on a sweep (sweep.store.lease).
"""

import difflib
import fnmatch
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError
from rich.console import Console
from upath import UPath

from analysis.write import RESULTS
from sweep.results.compact import Survey, settled_trials, survey, unsettle
from sweep.spec import Plan
from sweep.store.files import require_writable
from sweep.store.lease import Lease, hold
from sweep.store.requests import Request, forget, read_requests
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.terminal.progress import display, preparing

if TYPE_CHECKING:
    from sweep.grid.schema import Grid

MAX_FAILURES = 3
Start = Literal["checkpoint", "scratch"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which trials a resume runs, and from where: `trial_ids` (None: all), only the failed ones, from scratch."""

    trial_ids: Set[str] | None = None
    failed: bool = False
    start: Start = "checkpoint"

    def takes(self, trial_id: str, status: Status) -> bool:
        if self.failed and status.status != "failed":
            return False
        return self.trial_ids is None or trial_id in self.trial_ids


EVERY_TRIAL, NO_TRIAL = Choice(), Choice(trial_ids=frozenset())


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


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where and how a launch runs: a Ray address (None: a local cluster) and how often a trial may fail and go on."""

    address: str | None = None
    max_failures: int = MAX_FAILURES


def launch(grid: "Grid", storage: UPath, cluster: Cluster, console: Console) -> tuple[SweepDir, Outcome]:
    """Add a grid's trials to its sweep and run all of the sweep's trials that are not finished.

    Raises:
        ValueError: the grid, its data or the storage is not usable, or another driver works on the sweep; nothing
            has been trained.
    """
    from sweep.grid.expand import expand

    expansion = expand(grid)
    require_writable(storage)
    sweep = SweepDir(storage / grid.name)
    with hold(sweep.path) as lease:
        new = sweep.add(expansion.plans, settled_trials(sweep))
        sweep.record_launch(grid.model_dump(mode="json"))
        for remark in expansion.source.remarks:
            console.print(remark, style="yellow", highlight=False, markup=False)
        planned = f"{sweep.path}: {len(expansion.plans)} trials in the grid, {new} of them new"
        console.print(planned, highlight=False, markup=False, soft_wrap=True)
        return sweep, _complete(sweep, console, cluster, EVERY_TRIAL, lease)


def resume(sweep: SweepDir, console: Console, cluster: Cluster, choice: Choice = EVERY_TRIAL) -> Outcome:
    """Run the chosen trials that are not finished, and analyse all checkpoints.

    Raises:
        ValueError: another driver works on the sweep.
    """
    last_grid(sweep)  # said before anything is set aside
    with hold(sweep.path) as lease:
        if choice.start == "scratch":
            choice = Choice(trial_ids=begin_from_scratch(sweep, choice))
        return _complete(sweep, console, cluster, choice, lease)


def analyse_again(sweep: SweepDir, console: Console, cluster: Cluster) -> Outcome:
    """Make all analyses of a sweep anew; no trial is trained."""
    with hold(sweep.path) as lease:
        unsettle(sweep, settled_trials(sweep))
        for trial in sweep.trials():
            for results in trial.layers.glob(f"*/{RESULTS}"):
                results.unlink()
        return _complete(sweep, console, cluster, NO_TRIAL, lease)


def begin_from_scratch(sweep: SweepDir, choice: Choice) -> Set[str]:
    """Set aside what the chosen trials have come to, finished ones only where they are named; gives their ids."""
    trials = {trial.trial_id: trial for trial in sweep.trials()}
    if choice.trial_ids is not None:
        trials = {trial_id: trial for trial_id, trial in trials.items() if trial_id in choice.trial_ids}
    chosen = set()
    for plan, status in sweep.read(trials.values()):
        ended = status.status == "excluded" or (status.status == "finished" and choice.trial_ids is None)
        if not ended and choice.takes(plan.trial_id, status):
            chosen.add(plan.trial_id)
    unsettle(sweep, chosen)
    for trial_id in chosen:
        trials[trial_id].set_aside()
    return chosen


def answer(sweep: SweepDir, request: Request) -> Plan | None:
    """Make a requested trial ready to run; None if there is nothing to run: it is excluded, unknown or finished."""
    trial = sweep.trial(request.trial_id)
    found = sweep.read([trial])
    forget(sweep.path, request)
    if not found or found[0][1].status == "excluded":
        return None
    ((plan, status),) = found
    if request.start == "scratch":
        unsettle(sweep, {request.trial_id})
        trial.set_aside()
    elif status.status == "finished":
        return None
    return plan


def last_grid(sweep: SweepDir) -> "Grid":
    """The grid launched last; its resources and analysis settings serve every resume."""
    from sweep.grid.schema import Grid  # builds networks to check what it names, which takes a second to import

    launches = sweep.launches()
    try:
        return Grid.model_validate(launches[-1]["grid"])
    except (IndexError, ValidationError) as error:
        raise ValueError(f"{sweep.path / 'sweep.yaml'} names no grid that is valid; launch the grid again") from error


def choose(sweep: SweepDir, only: Sequence[str], start: Start = "checkpoint") -> Choice:
    """Which trials to run: all (nothing said), the failed ones (`failed`), and those whose ids fit a pattern.

    Raises:
        ValueError: no trial of the sweep fits a pattern.
    """
    patterns = [pattern for pattern in only if pattern != "failed"]
    failed = len(patterns) < len(only)
    if not patterns:
        return Choice(failed=failed, start=start)
    names = [trial.trial_id for trial in sweep.trials()]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            nearest = ", ".join(difflib.get_close_matches(pattern, names, n=1, cutoff=0.0))
            raise ValueError(f"no trial of {sweep.name} fits {pattern!r}; the nearest is {nearest}")
        chosen.update(fitting)
    return Choice(trial_ids=chosen, failed=failed, start=start)


def _complete(sweep: SweepDir, console: Console, cluster: Cluster, choice: Choice, lease: Lease) -> Outcome:
    """Train the chosen and the requested trials that are not finished, and analyse all checkpoints."""
    asked = _answer_all(sweep, console)
    seen = survey(sweep)
    trials = seen.unsettled
    todo = [
        (plan, status)
        for plan, status in trials
        if status.status not in ("finished", "excluded")
        and (choice.takes(plan.trial_id, status) or plan.trial_id in asked)
    ]
    waiting = [folder for plan, _ in trials for folder in sweep.trial(plan.trial_id).unanalysed(plan)]
    if not todo and not waiting:
        which = "every trial" if choice == EVERY_TRIAL else "every chosen trial"
        console.print(f"nothing to do: {which} is finished and analysed", highlight=False)
        return _outcome(seen, ran_to_end=True)
    for plan, status in todo:
        if status.status == "running":  # its driver has died: this one holds the lease
            reason = f"was cut off on {status.host}; its last checkpoint stands"
            sweep.trial(plan.trial_id).write_status(replace(status, status="pending", reason=reason))
    from sweep.data.prepare import prepare
    from sweep.service.driver import Driver, connected  # imports Ray, which takes a second

    for plan in {plan.spec.data.key: plan for plan, _ in todo}.values() if cluster.address is None else ():
        try:
            with preparing(console, plan.spec.data.name) as report:
                prepare(plan.spec.data, None if plan.root is None else Path(plan.root), report)
        except (ValueError, OSError) as error:  # its trials will say so too; others need not wait for it
            console.print(f"data set {plan.spec.data.name}: {error}", style="yellow", highlight=False, markup=False)
    epochs = sum(_epochs(plan) for plan, _ in todo)
    done = sum(status.epoch for _, status in todo)
    with connected(cluster.address), display(console, len(todo), epochs, done) as shown:
        driver = Driver(sweep, last_grid(sweep), shown, lease, cluster.max_failures)
        ran_to_end = driver.run([plan for plan, _ in todo], waiting)
    return _outcome(survey(sweep), ran_to_end, driver.lost_analyses)


def _answer_all(sweep: SweepDir, console: Console) -> Set[str]:
    """Make ready what was asked for while no driver ran; gives the trials' ids."""
    requests = read_requests(sweep.path)
    for said in requests.damaged:
        console.print(said, style="yellow", highlight=False, markup=False)
    plans = [answer(sweep, request) for request in requests.pending]
    return {plan.trial_id for plan in plans if plan is not None}


def _epochs(plan: Plan) -> int:
    from models.interventions import INTERVENTIONS

    return plan.spec.recipe.epochs if INTERVENTIONS[plan.spec.intervention].trained else 0


def _outcome(seen: Survey, ran_to_end: bool, lost_analyses: int = 0) -> Outcome:
    failed = int((seen.tables["trials"]["status"] == "failed").sum())
    return Outcome(complete=ran_to_end, failed=failed, lost_analyses=lost_analyses)
