"""Which trials a resume runs, and which were requested while no driver ran."""

import difflib
import fnmatch
from collections.abc import Sequence, Set
from dataclasses import dataclass

from rich.console import Console

from sweep.results.compact import unsettle
from sweep.spec import Plan
from sweep.store.requests import Request, Start, TrialStop, forget, read_requests
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status


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


def begin_from_scratch(sweep: SweepDir, choice: Choice) -> Set[str]:
    """Set aside the work of the chosen trials (of finished ones only if named) and return their ids."""
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


def choose(sweep: SweepDir, only: Sequence[str], start: Start = "checkpoint") -> Choice:
    """Which trials to run: all (the default), the failed ones (`failed`), and those whose ids match a pattern.

    Raises:
        ValueError: no trial of the sweep matches a pattern.
    """
    patterns = [pattern for pattern in only if pattern != "failed"]
    failed = len(patterns) < len(only)
    return Choice(trial_ids=matching(sweep, patterns) if patterns else None, failed=failed, start=start)


def matching(sweep: SweepDir, patterns: Sequence[str]) -> Set[str]:
    """The ids of a sweep's trials that match one of some patterns.

    Raises:
        ValueError: no trial of the sweep matches a pattern.
    """
    names = [trial.trial_id for trial in sweep.trials()]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            nearest = "".join(f"; the nearest is {name}" for name in difflib.get_close_matches(pattern, names, 1, 0.0))
            raise ValueError(f"no trial of {sweep.name} matches {pattern!r}{nearest}")
        chosen.update(fitting)
    return chosen


def answer_all(sweep: SweepDir, console: Console) -> Set[str]:
    """Answer the requests made while no driver ran; returns the trials' ids."""
    requests = read_requests(sweep.path)
    for said in requests.damaged:
        console.print(said, style="yellow", highlight=False, markup=False)
    for request in requests.pending:
        if isinstance(request, TrialStop):  # there is nobody left to stop
            forget(sweep.path, request)
    plans = [answer(sweep, request) for request in requests.pending if isinstance(request, Request)]
    return {plan.trial_id for plan in plans if plan is not None}
