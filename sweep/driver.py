"""Train trials through Ray Tune and analyse their checkpoints in Ray actors while training goes on.

Each call is a fresh Tune experiment over the trials that are not finished; everything lasting is in the sweep
directory, so Tune's own files go to a temporary folder and are thrown away.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import ray
from ray import tune
from upath import UPath

from analysis.actors import AnalysisPool
from sweep.compact import compact
from sweep.grid import Analysis, Resources
from sweep.progress import Display
from sweep.store import EpochRow, SweepDir, TrialDir

_COMPACT_SHARE = 0.05  # of the driver's time at most goes into rebuilding the tables


@dataclass(frozen=True, kw_only=True)
class Task:
    """One trial to train: where it is kept, where its images are, what it occupies."""

    trial_id: str
    root: str | None
    resources: Resources


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start a local one for the time of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": 128 * 2**20}
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def train_all(
    sweep: SweepDir, tasks: Sequence[Task], unanalysed: Sequence[UPath], analysis: Analysis, display: Display
) -> bool:
    """Train the tasks' trials and analyse their checkpoints; False if the user stopped it before its end.

    A trial that fails is recorded in the sweep directory; the others go on.
    """
    pool = AnalysisPool(analysis.actors, analysis.cpus, analysis.gpus)
    try:
        watcher = Watcher(sweep, pool, display)
        watcher.catch_up(unanalysed)
        stopped = _fit(sweep, tasks, watcher) if tasks else False
        if not stopped:
            watcher.drain()
    finally:
        pool.close()
        compact(sweep)
    return not stopped


class Watcher(tune.Callback):
    """Sits in the driver's loop: hands checkpoints to the analysis, shows progress, rebuilds the tables."""

    def __init__(self, sweep: SweepDir, pool: AnalysisPool, display: Display) -> None:
        self._sweep, self._pool, self._display = sweep, pool, display
        self._analysed = 0
        self._compact_at = 0.0

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Tune stores its callbacks for a restore, which is never used here; the copy it stores does nothing."""
        return tune.Callback, ()

    def catch_up(self, checkpoints: Sequence[UPath]) -> None:
        """Hand over checkpoints of earlier launches."""
        for checkpoint in checkpoints:
            self._submit(TrialDir(checkpoint.parent.parent), checkpoint)

    def drain(self) -> None:
        """Wait for the analysis of all checkpoints handed over."""
        self._pool.drain(lambda _file, _rows: self._count(1))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if "epoch" not in result:
            return
        self._display.epoch(result["trial_id_"], result["epoch"], result["val_accuracy"])
        if result["kept"] is not None:
            self._submit(self._sweep.trial(result["trial_id_"]), UPath(result["kept"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        task_dir = self._sweep.trial(trial.config["task"]["trial_id"])
        status = task_dir.status()
        if status.status != "failed":  # the process died before it could say why
            error = "the trial's process died (killed, or out of memory); `sweep resume` goes on from its checkpoint"
            task_dir.write_error(f"{error}\n\n{trial.get_error() or ''}")
            task_dir.write_status(replace(status, status="failed", error=error))
        self._ended(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._count(len(self._pool.poll()))
        if time.monotonic() >= self._compact_at:
            began = time.monotonic()
            compact(self._sweep)
            took = time.monotonic() - began
            self._compact_at = began + max(5.0, took / _COMPACT_SHARE)

    def _submit(self, trial: TrialDir, checkpoint: UPath) -> None:
        self._pool.submit(str(checkpoint / "model.safetensors"), str(trial.layers / checkpoint.name))
        self._count(0)

    def _count(self, done: int) -> None:
        self._analysed += done
        self._display.analysed(self._analysed, self._pool.pending)

    def _ended(self, trial: Any) -> None:
        trial_id = trial.config["task"]["trial_id"]
        status = self._sweep.trial(trial_id).status()
        accuracy = f", validation accuracy {status.val_accuracy:.3f}" if status.val_accuracy is not None else ""
        self._display.ended(trial_id, status.error or f"{status.status}{accuracy}")


def _fit(sweep: SweepDir, tasks: Sequence[Task], watcher: Watcher) -> bool:
    """Run one Tune experiment; True if it was interrupted before all trials had ended."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told by the table, in one line each
    configs = [_config(sweep, task) for task in tasks]
    with tempfile.TemporaryDirectory(prefix="sweep-tune-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(_trainable, _bundle),
            param_space={"task": tune.grid_search(configs)},
            run_config=tune.RunConfig(
                name=sweep.name, storage_path=folder, verbose=0, callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )  # fmt: skip
        with redirect_stdout(StringIO()):  # Tune prints a banner whatever `verbose` says
            tuner.fit()
    stopped = False
    for task in tasks:
        trial = sweep.trial(task.trial_id)
        status = trial.status()
        if status.status in ("pending", "running"):  # Tune has stopped it; its last checkpoint stands
            trial.write_status(replace(status, status="pending"))
            stopped = True
    return stopped


def _config(sweep: SweepDir, task: Task) -> dict[str, Any]:
    return {
        "sweep": str(sweep.path),
        "trial_id": task.trial_id,
        "root": task.root,
        "cpus": task.resources.cpus,
        "gpus": task.resources.gpus,
    }


def _bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    task = config["task"]
    return tune.PlacementGroupFactory([{"CPU": task["cpus"]} | ({"GPU": task["gpus"]} if task["gpus"] else {})])


def _trainable(config: dict[str, Any]) -> None:
    """What a Tune trial does: `run_trial`, reporting epochs."""
    from sweep.trial import run_trial  # imports torch, in the worker alone

    task = config["task"]

    def report(row: EpochRow, kept: UPath | None) -> None:
        tune.report({
            "trial_id_": task["trial_id"],
            "epoch": row["epoch"],
            "val_accuracy": row["val_accuracy"],
            "kept": None if kept is None else str(kept),
        })  # fmt: skip

    root = None if task["root"] is None else Path(task["root"])
    run_trial(SweepDir(UPath(task["sweep"])).trial(task["trial_id"]), root, task["cpus"], report)
