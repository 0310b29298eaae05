"""Make a sweep directory complete: plan what a grid means, train what is not finished, analyse what is not analysed.

Launch, extend, resume and retry are this one operation; each may be repeated and interrupted.
"""

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from upath import UPath

from analysis.layers import RESULTS
from models.interventions import INTERVENTIONS
from sweep.data.prepare import prepare
from sweep.files import require_writable
from sweep.grid import Grid, expand
from sweep.keep import kept_checkpoints
from sweep.progress import display
from sweep.results import sweep_names
from sweep.store import Plan, Status, SweepDir

Chooser = Callable[[Plan, Status], bool]


def every_trial(plan: Plan, status: Status) -> bool:
    """Choose all."""
    return True


def no_trial(plan: Plan, status: Status) -> bool:
    """Choose none: only the analysis is made complete."""
    return False


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: whether it ran to its end, and the trials that failed."""

    complete: bool
    failed: int

    @property
    def exit_code(self) -> int:
        if not self.complete:
            return 130
        return 1 if self.failed else 0


def launch(grid: Grid, storage: UPath, address: str | None, console: Console) -> tuple[SweepDir, Outcome]:
    """Add a grid's trials to its sweep and run all of the sweep's trials that are not finished.

    Raises:
        ValueError: the grid, its data or the storage is not usable; nothing has been trained.
    """
    expansion = expand(grid)
    require_writable(storage)
    sweep = SweepDir(storage / grid.name)
    new = sweep.add(expansion.plans)
    sweep.record_launch(grid.model_dump(mode="json"))
    for remark in expansion.source.remarks:
        console.print(remark, style="yellow", highlight=False)
    console.print(f"{sweep.path}: {len(expansion.plans)} trials in the grid, {new} of them new", highlight=False)
    return sweep, complete(sweep, grid, console, address)


def complete(
    sweep: SweepDir,
    grid: Grid,
    console: Console,
    address: str | None = None,
    choose: Chooser = every_trial,
) -> Outcome:
    """Train the chosen trials that are neither finished nor excluded, and analyse all checkpoints."""
    from sweep.driver import Task, cluster, train_all  # imports Ray, which takes a second

    trials = sweep.read_all()
    todo = [
        (plan, status)
        for plan, status in trials
        if status.status not in ("finished", "excluded") and choose(plan, status)
    ]
    waiting = unanalysed(sweep, trials)
    if not todo and not waiting:
        console.print("nothing to do: every trial is finished and analysed", highlight=False)
        return _outcome(sweep, ran_to_end=True)
    for plan in {plan.spec.data.key: plan for plan, _ in todo}.values():
        with console.status(f"preparing the data set {plan.spec.data.name}"):
            prepare(plan.spec.data, None if plan.root is None else Path(plan.root))
    tasks = [Task(trial_id=plan.trial_id, root=plan.root, resources=grid.resources) for plan, _ in todo]
    epochs = sum(_epochs(plan) for plan, _ in todo)
    with cluster(address), display(console, len(tasks), epochs, sum(status.epoch for _, status in todo)) as shown:
        ran_to_end = train_all(sweep, tasks, waiting, grid.analysis, shown)
    return _outcome(sweep, ran_to_end)


def unanalysed(sweep: SweepDir, trials: Sequence[tuple[Plan, Status]]) -> list[UPath]:
    """The checkpoints kept for the analysis that have no results yet."""
    return [
        folder
        for plan, _ in trials
        if plan.excluded is None
        for folder in kept_checkpoints(sweep.trial(plan.trial_id).checkpoints, plan.spec.recipe.epochs)
        if not (sweep.trial(plan.trial_id).layers / folder.name / RESULTS).exists()
    ]


def open_sweep(name_or_path: str, storage: UPath) -> SweepDir:
    """The sweep at a path, or of a name in a storage.

    Raises:
        ValueError: there is none; the message lists the sweeps of the storage.
    """
    for path in (UPath(name_or_path), storage / name_or_path):
        if (path / "sweep.yaml").exists():
            return SweepDir(path)
    names = ", ".join(sweep_names(storage)) or "none"
    raise ValueError(f"there is no sweep {name_or_path!r}; sweeps in {storage}: {names}")


def last_grid(sweep: SweepDir) -> Grid:
    """The grid launched last; its resources and analysis settings serve every resume."""
    return Grid.model_validate(sweep.launches()[-1]["grid"])


def chooser(sweep: SweepDir, only: str | None) -> Chooser:
    """Which trials to run: all (None), the failed ones (`failed`), or those whose id fits a pattern.

    Raises:
        ValueError: no trial of the sweep fits the pattern.
    """
    if only is None:
        return every_trial
    if only == "failed":
        return lambda _, status: status.status == "failed"
    names = [trial.trial_id for trial in sweep.trials()]
    if not fnmatch.filter(names, only):
        nearest = ", ".join(difflib.get_close_matches(only, names, n=1, cutoff=0.0))
        raise ValueError(f"no trial of {sweep.name} fits {only!r}; the nearest is {nearest}")
    return lambda plan, _: fnmatch.fnmatchcase(plan.trial_id, only)


def forget_analysis(sweep: SweepDir) -> None:
    """Remove the results of all analyses, so that they are made again; checkpoints stay."""
    for trial in sweep.trials():
        if trial.layers.exists():
            for results in trial.layers.glob(f"*/{RESULTS}"):
                results.unlink()


def _epochs(plan: Plan) -> int:
    return plan.spec.recipe.epochs if INTERVENTIONS[plan.spec.intervention].trained else 0


def _outcome(sweep: SweepDir, ran_to_end: bool) -> Outcome:
    failed = sum(status.status == "failed" for _, status in sweep.read_all())
    return Outcome(complete=ran_to_end, failed=failed)
