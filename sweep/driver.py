"""Train trials through Ray Tune and analyse their checkpoints in Ray actors while training goes on.

Each call is a fresh Tune experiment whose searcher hands out the trials that are not finished, again those that failed
or were preempted, and those that the dashboard asks for meanwhile. Everything lasting is in the sweep directory, so
Tune's own files go to a temporary folder and are thrown away.
"""

import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from upath import UPath

from analysis.actors import AnalysisPool
from sweep.compact import compact, compact_all
from sweep.grid import Grid, Resources
from sweep.launch import answer
from sweep.lease import Lease
from sweep.progress import Display
from sweep.ray_trial import RayTrial
from sweep.requests import pending_requests
from sweep.store import Plan, Status, SweepDir, TrialDir

_COMPACT_SHARE = 0.05  # of the driver's time at most goes into rebuilding the tables
_REQUESTS_EVERY_S = 2.0
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_PENDING = "16"  # trials that wait for resources at a time, so that a cluster knows how far to grow

Task = dict[str, Any]
"""What a worker needs to run a trial; plain values, as Tune wants them."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start a local one for the time of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", _PENDING)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": 128 * 2**20}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(**options)
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself
    try:
        yield
    finally:
        ray.shutdown()


class Queue(Searcher):
    """Hands out tasks: first those that are due, in order; a failed one again after a while."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self._waiting: list[tuple[float, Task]] = [(0.0, task) for task in tasks]
        self._running: set[str] = set()

    def add(self, task: Task, delay_s: float = 0.0) -> None:
        """Have a task run, not before a delay."""
        self._waiting.append((time.monotonic() + delay_s, task))

    def ended(self, trial_id: str) -> None:
        """A task's run has ended, one way or another."""
        self._running.discard(trial_id)

    def holds(self, trial_id: str) -> bool:
        """Whether a trial runs or waits."""
        return trial_id in self._running or any(task["trial_id"] == trial_id for _, task in self._waiting)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next task; None while all that wait are not due yet, FINISHED at the end.

        Where nothing else runs, a task is handed out before it is due and waits on its own, since Tune's loop stands
        still while it has no trial.
        """
        if not self._waiting:
            return None if self._running else Searcher.FINISHED
        now = time.monotonic()
        due_at, task = min(self._waiting, key=lambda entry: max(entry[0], now))
        if due_at > now and self._running:
            return None
        self._waiting.remove((due_at, task))
        self._running.add(task["trial_id"])
        return {"task": task | {"delay_s": max(0.0, due_at - now)}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the driver tells through `ended`, once it knows why."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the sweep directory is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a launch is a fresh experiment; see the sweep directory")


class Driver(tune.Callback):
    """Sits in Tune's loop: decides what runs again, hands checkpoints to the analysis, keeps the tables up to date."""

    def __init__(self, sweep: SweepDir, grid: Grid, display: Display, lease: Lease, max_failures: int) -> None:
        self._sweep, self._display, self._lease = sweep, display, lease
        self._resources, self._max_failures = grid.resources, max_failures
        self._pool = AnalysisPool(grid.analysis.actors, grid.analysis.cpus, grid.analysis.gpus, grid.analysis.layers)
        self._queue = Queue([])
        self._open: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._analysed = 0
        self._compact_at = self._requests_at = 0.0

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Tune stores its callbacks for a restore, which is never used here; the copy it stores does nothing."""
        return tune.Callback, ()

    def run(self, plans: Sequence[Plan], unanalysed: Sequence[UPath]) -> bool:
        """Train trials and analyse their checkpoints; False if the user stopped it before its end.

        A trial that fails is recorded in the sweep directory; the others go on.
        """
        try:
            for checkpoint in unanalysed:
                self._analyse(TrialDir(checkpoint.parent.parent), checkpoint)
            stopped = self._fit(plans) if plans else False
            if not stopped:
                self._pool.drain(lambda _file, _rows: self._count(1))
        finally:
            self._pool.close()
            compact_all(self._sweep)
        return not stopped

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result.get("epoch") is None:
            return
        trial_id = _trial_id(trial)
        self._display.epoch(trial_id, result["epoch"], result["val_accuracy"])
        if result["kept"] is not None:
            self._analyse(self._sweep.trial(trial_id), UPath(result["kept"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        trial_id = _trial_id(trial)
        self._queue.ended(trial_id)
        if (trial.last_result or {}).get("preempted"):
            self._queue.add(trial.config["task"])
            self._display.remark(f"{trial_id}: preempted at its last checkpoint, goes on elsewhere")
        else:
            self._tell_end(trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        trial_id = _trial_id(trial)
        self._queue.ended(trial_id)
        self._failures[trial_id] += 1
        status = self._failed_status(trial_id, _report_of(trial))
        if status.final or self._failures[trial_id] > self._max_failures:
            self._tell_end(trial_id, status)
            return
        delay_s = min(_BACKOFF_S * 2 ** (self._failures[trial_id] - 1), _LONGEST_BACKOFF_S)
        self._queue.add(trial.config["task"], delay_s)
        self._display.remark(
            f"{trial_id}: failed ({status.error}); failure {self._failures[trial_id]} of {self._max_failures} that are "
            f"tried again, in {delay_s:.0f} s"
        )

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._lease.require()
        self._count(len(self._pool.poll()))
        try:
            self._answer_requests()
            self._compact()
        except OSError as error:  # trials that can't write either fail on their own
            self._compact_at = self._requests_at = time.monotonic() + 10
            self._display.remark(f"the storage can't be used now: {error}")

    def _fit(self, plans: Sequence[Plan]) -> bool:
        """Run one Tune experiment; True if it was interrupted before all trials had ended."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told by the table, in one line each
        self._queue = Queue([self._task(plan) for plan in plans])
        self._open = {plan.trial_id for plan in plans}
        with tempfile.TemporaryDirectory(prefix="sweep-tune-") as folder:
            tuner = tune.Tuner(
                tune.with_resources(RayTrial, _bundle),
                tune_config=tune.TuneConfig(search_alg=self._queue, num_samples=-1),
                run_config=tune.RunConfig(
                    name=self._sweep.name, storage_path=folder, verbose=0, callbacks=[self],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )  # fmt: skip
            with redirect_stdout(StringIO()):  # Tune prints a banner whatever `verbose` says
                tuner.fit()
        for trial_id in self._open:  # Tune has stopped them
            trial = self._sweep.trial(trial_id)
            reason = "stopped; its last checkpoint stands"
            trial.write_status(replace(trial.status(), status="pending", reason=reason))
        return bool(self._open)

    def _task(self, plan: Plan) -> Task:
        return {
            "sweep": str(self._sweep.path),
            "trial_id": plan.trial_id,
            "root": plan.root,
            **self._resources.model_dump(),
        }

    def _failed_status(self, trial_id: str, traceback: str) -> Status:
        """The status of a trial whose process has failed or died, written for it where it could not."""
        trial = self._sweep.trial(trial_id)
        status = trial.status()
        if status.status == "failed":
            return status
        status = replace(status, status="failed", error=_died_of(traceback))
        try:
            trial.write_error(traceback)
            trial.write_status(status)
        except OSError as error:
            self._display.remark(f"{trial_id}: its failure can't be recorded: {error}")
        return status

    def _answer_requests(self) -> None:
        if time.monotonic() < self._requests_at:
            return
        self._requests_at = time.monotonic() + _REQUESTS_EVERY_S
        for request in pending_requests(self._sweep.path):
            if self._queue.holds(request.trial_id):
                continue  # answered when it has ended
            plan = answer(self._sweep, request)
            if plan is not None:
                self._failures[plan.trial_id] = 0
                self._queue.add(self._task(plan))
                self._open.add(plan.trial_id)
                self._display.more_trials(1)
                self._display.remark(f"{plan.trial_id}: asked for, from its {request.start}")

    def _compact(self) -> None:
        if time.monotonic() >= self._compact_at:
            began = time.monotonic()
            compact(self._sweep)
            took = time.monotonic() - began
            self._compact_at = began + max(5.0, took / _COMPACT_SHARE)

    def _analyse(self, trial: TrialDir, checkpoint: UPath) -> None:
        self._pool.submit(str(checkpoint / "model.safetensors"), str(trial.layers / checkpoint.name))
        self._count(0)

    def _count(self, done: int) -> None:
        self._analysed += done
        self._display.analysed(self._analysed, self._pool.pending)

    def _tell_end(self, trial_id: str, status: Status | None = None) -> None:
        self._open.discard(trial_id)
        status = status or self._sweep.trial(trial_id).status()
        accuracy = f", validation accuracy {status.val_accuracy:.3f}" if status.val_accuracy is not None else ""
        self._display.ended(trial_id, status.error or f"{status.status}{accuracy}")


def _trial_id(trial: Any) -> str:
    return str(trial.config["task"]["trial_id"])


def _report_of(trial: Any) -> str:
    """What Tune wrote of a trial's failure, read where it was written: its copy in the storage comes later."""
    file = Path(trial.error_file or "")
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _died_of(traceback: str) -> str:
    """Why a process that could not say so itself has ended, as Ray's report tells it."""
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    if "OutOfMemoryError" in traceback:
        return (
            "its node ran out of memory and Ray killed the trial; give trials more resources.cpus, or smaller batches"
        )
    if "ActorDiedError" in traceback or "ActorUnavailableError" in traceback or not lines:
        return "the trial's process died (killed, out of memory, or its node gone); its last checkpoint stands"
    return lines[-1].strip()


def _bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    resources = Resources.model_validate({name: config["task"][name] for name in Resources.model_fields})
    return tune.PlacementGroupFactory([{"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})])
