"""Train trials through Ray Tune and analyse their checkpoints in Ray actors while training goes on.

Each call is a fresh Tune experiment whose searcher hands out the trials that are not finished, again those that failed
or were preempted, and those that the dashboard asks for meanwhile. Everything lasting is in the sweep directory, so
Tune's own files go to a temporary folder and are thrown away.
"""

import logging
import os
import re
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
from upath import UPath

from analysis.actors import AnalysisPool
from analysis.write import RESULTS
from sweep.grid.schema import Grid, Resources
from sweep.results.compact import compact, compact_all
from sweep.service.launch import answer
from sweep.service.queue import Queue, Task
from sweep.service.ray_trial import RayTrial
from sweep.spec import Plan
from sweep.store.files import STORAGE_ERRORS, write_json
from sweep.store.lease import Lease
from sweep.store.manifest import MODEL
from sweep.store.requests import pending_requests
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, TrialDir
from sweep.terminal.progress import Display

_COMPACT_SHARE = 0.05  # of the driver's time at most goes into rebuilding the tables
_REQUESTS_EVERY_S = 2.0
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_PATIENCE_S = 60.0  # without anything that runs, before it is said what waits for what
_PENDING = "16"  # trials that wait for resources at a time, so that a cluster knows how far to grow

_DEATH = re.compile(r"ActorDiedError|ActorUnavailableError|[Tt]he actor (died|is (dead|unavailable))")


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
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at --address {address}: {error}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself
    try:
        yield
    finally:
        ray.shutdown()


class Driver(tune.Callback):
    """Sits in Tune's loop: decides what runs again, hands checkpoints to the analysis, keeps the tables up to date."""

    def __init__(self, sweep: SweepDir, grid: Grid, display: Display, lease: Lease, max_failures: int) -> None:
        self._sweep, self._display, self._lease = sweep, display, lease
        self._resources, self._max_failures = grid.resources, max_failures
        self._pool = AnalysisPool(grid.analysis.actors, grid.analysis.cpus, grid.analysis.gpus, grid.analysis.layers)
        self._queue = Queue([])
        self._open: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._actor_needs = _named(grid.analysis.cpus, grid.analysis.gpus)
        self._analysed = 0
        self.lost_analyses = 0
        """Analyses that failed and could not be recorded either."""
        self._waits_since: float | None = None
        self._told_of_waiting = False
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
                self._analyse_the_rest(plans)
        finally:
            self._pool.close()
            if not self._lease.lost:  # else the tables are another driver's
                compact_all(self._sweep)
        return not stopped

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result.get("epoch") is None:
            return
        trial_id = _trial_id(trial)
        self._display.epoch(trial_id, result["epoch"], result["val_accuracy"])
        if result["kept"] is not None:
            with self._storage_may_be_away():  # then the checkpoint is found at the end
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
        self._take(self._pool.poll())
        if any(trial.status == "RUNNING" for trial in trials) or not trials:
            self._waits_since = None
        else:
            needs = f"a trial needs {_named(self._resources.cpus, self._resources.gpus)}"
            self._tell_of_waiting(f"no trial could start: {needs}, and the analysis holds {self._pool.placed} actors")
        with self._storage_may_be_away():  # trials that can't write either fail on their own
            self._answer_requests()
            self._compact()

    @contextmanager
    def _storage_may_be_away(self) -> Iterator[None]:
        try:
            yield
        except STORAGE_ERRORS as error:
            self._compact_at = self._requests_at = time.monotonic() + 10
            self._display.remark(f"the storage can't be used now: {error}")

    def _tell_of_waiting(self, said: str) -> None:
        """Say once that nothing happens, after a while in which resources have not come."""
        now = time.monotonic()
        self._waits_since = self._waits_since or now
        if now - self._waits_since >= _PATIENCE_S and not self._told_of_waiting:
            self._told_of_waiting = True
            has = {kind: ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU")}
            self._display.remark(f"{said}; the cluster has {_named(has['CPU'], has['GPU'])}")

    def _analyse_the_rest(self, plans: Sequence[Plan]) -> None:
        """Wait for all analyses, of checkpoints too that a trial had no time to report."""
        for plan in plans:
            trial = self._sweep.trial(plan.trial_id)
            for checkpoint in trial.unanalysed(plan) if trial.status().status == "finished" else []:
                if not self._pool.holds(_model_file(checkpoint)):
                    self._analyse(trial, checkpoint)
        self._waits_since, self._told_of_waiting = None, False
        while self._pool.pending:
            self._lease.require()
            self._take(self._pool.poll(timeout_s=1.0))
            if self._pool.placed:
                self._waits_since = None
            else:
                self._tell_of_waiting(f"no analysis could start: an actor needs {self._actor_needs}")

    def _take(self, done: Sequence[tuple[str, list[dict[str, Any]]]]) -> None:
        """Take note of analyses that have ended; one that failed is a row, whoever writes it."""
        for model_file, rows in done:
            self._count(1)
            checkpoint = UPath(model_file).parent
            failed = [row["error"] for row in rows if row["error"]]
            if not failed:
                continue
            trial = TrialDir(checkpoint.parent.parent)
            self._display.remark(f"{trial.trial_id}: the analysis of step {checkpoint.name} failed: {failed[0]}")
            results = trial.layers / checkpoint.name / RESULTS
            try:
                if not results.exists():
                    write_json(results, rows)
            except STORAGE_ERRORS:
                self.lost_analyses += 1

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
            on_sigint = signal.getsignal(signal.SIGINT)
            try:
                with redirect_stdout(StringIO()):  # Tune prints a banner whatever `verbose` says
                    tuner.fit()
            finally:
                signal.signal(signal.SIGINT, on_sigint)  # Tune leaves its own behind
        for trial_id in self._open:  # Tune has stopped them
            trial = self._sweep.trial(trial_id)
            status = trial.status()
            reason = "stopped; its last checkpoint stands" if status.attempts else None
            trial.write_status(replace(status, status="pending", reason=reason))
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
        try:
            status = trial.status()
        except STORAGE_ERRORS as error:
            self._display.remark(f"{trial_id}: its status can't be read: {error}")
            return Status(status="failed", error=_died_of(traceback))
        if status.status == "failed":
            return status
        status = replace(status, status="failed", error=_died_of(traceback))
        try:
            trial.write_error(traceback)
            trial.write_status(status)
        except STORAGE_ERRORS as error:
            self._display.remark(f"{trial_id}: its failure can't be recorded: {error}")
        return status

    def _answer_requests(self) -> None:
        if time.monotonic() < self._requests_at or self._queue.closed:
            return
        self._requests_at = time.monotonic() + _REQUESTS_EVERY_S
        for request in pending_requests(self._sweep.path):
            trial = self._sweep.trial(request.trial_id)
            busy = any(self._pool.holds(_model_file(folder)) for folder in _folders(trial.checkpoints))
            if busy or self._queue.holds(request.trial_id):
                continue  # answered when it has ended
            plan = answer(self._sweep, request)
            if plan is not None:
                self._failures[plan.trial_id] = 0
                self._queue.add(self._task(plan))
                self._open.add(plan.trial_id)
                left = plan.spec.recipe.epochs - trial.status().epoch
                self._display.another_trial(plan.trial_id, left)
                self._display.remark(f"{plan.trial_id}: asked for, from its {request.start}")

    def _compact(self) -> None:
        if time.monotonic() >= self._compact_at:
            began = time.monotonic()
            compact(self._sweep)
            took = time.monotonic() - began
            self._compact_at = began + max(5.0, took / _COMPACT_SHARE)

    def _analyse(self, trial: TrialDir, checkpoint: UPath) -> None:
        self._pool.submit(_model_file(checkpoint), str(trial.layers / checkpoint.name))
        self._count(0)

    def _count(self, done: int) -> None:
        self._analysed += done
        self._display.analysed(self._analysed, self._pool.pending)

    def _tell_end(self, trial_id: str, status: Status | None = None) -> None:
        self._open.discard(trial_id)
        try:
            status = status or self._sweep.trial(trial_id).status()
        except STORAGE_ERRORS as error:
            self._display.ended(trial_id, f"ended; its status can't be read: {error}")
            return
        accuracy = f", validation accuracy {status.val_accuracy:.3f}" if status.val_accuracy is not None else ""
        self._display.ended(trial_id, status.error or f"{status.status}{accuracy}")


def _trial_id(trial: Any) -> str:
    return str(trial.config["task"]["trial_id"])


def _model_file(checkpoint: UPath) -> str:
    return str(checkpoint / MODEL)


def _folders(checkpoints: UPath) -> list[UPath]:
    return list(checkpoints.iterdir()) if checkpoints.exists() else []


def _named(cpus: float, gpus: float) -> str:
    """Resources in words."""
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")


def _report_of(trial: Any) -> str:
    """What Tune wrote of a trial's failure, read where it was written: its copy in the storage comes later."""
    file = Path(trial.error_file or "")
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _died_of(traceback: str) -> str:
    """Why a process that could not say so itself has ended, as Ray's report tells it."""
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    if "OutOfMemoryError" in traceback or "running low on memory" in traceback:
        return (
            "its node ran out of memory and Ray killed the trial; give trials more resources.cpus, or smaller batches"
        )
    if not lines or _DEATH.search(traceback):
        return "the trial's process died (killed, out of memory, or its node gone); its last checkpoint stands"
    return lines[-1].strip()


def _bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    resources = Resources.model_validate({name: config["task"][name] for name in Resources.model_fields})
    return tune.PlacementGroupFactory([{"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})])
