"""Train trials through Ray Tune and analyse their checkpoints in Ray actors while training goes on.

Each call is a fresh Tune experiment. Its searcher hands out the unfinished trials, retries those that failed or were
preempted, and adds those that the dashboard requests meanwhile. Everything lasting is in the sweep directory, so
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

from ray import tune
from upath import UPath

from sweep.grid.schema import Grid
from sweep.results.compact import compact, compact_all
from sweep.results.words import count
from sweep.service.analyses import Analyses
from sweep.service.choice import answer
from sweep.service.cluster import Patience, in_words, needs_of
from sweep.service.failures import cant_be_imported, died_of, report_of
from sweep.service.placing import Placing
from sweep.service.queue import Queue, Task, resources_of
from sweep.service.ray_trial import RayTrial, bundle
from sweep.spec import Plan
from sweep.store.files import STORAGE_ERRORS
from sweep.store.lease import Lease
from sweep.store.requests import pending_requests
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, TrialDir
from sweep.terminal.progress import Display

_COMPACT_SHARE = 0.05  # of the driver's time at most goes into rebuilding the tables
_REQUESTS_EVERY_S = 2.0
_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0


class Driver(tune.Callback):
    """Sits in Tune's loop: decides what runs again, hands checkpoints to the analysis, keeps the tables up to date."""

    def __init__(
        self,
        sweep: SweepDir,
        grid: Grid,
        display: Display,
        lease: Lease,
        max_failures: int,
        ray_logs: Path | None = None,
    ) -> None:
        self._sweep, self._display, self._lease = sweep, display, lease
        self._resources, self._max_failures = grid.resources, max_failures  # of trials planned without their own
        self._analyses = Analyses(sweep, grid.analysis, display, ray_logs)
        self._queue = Queue([])
        self._open: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._patience = Patience(display.remark, ray_logs)
        self._placing = Placing(display.remark)
        self._compact_at = self._requests_at = 0.0

    @property
    def lost_analyses(self) -> int:
        """Analyses that failed and could not be recorded either."""
        return self._analyses.lost

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Tune stores its callbacks for a restore, which is never used here; the copy it stores does nothing."""
        return tune.Callback, ()

    def run(self, plans: Sequence[Plan], unanalysed: Sequence[UPath]) -> bool:
        """Train trials and analyse their checkpoints; False if the user stopped it before the end.

        A trial that fails is recorded in the sweep directory; the others continue.
        """
        try:
            for checkpoint in unanalysed:
                self._analyses.submit(TrialDir(checkpoint.parent.parent), checkpoint)
            stopped = self._fit(plans) if plans else False
            if not stopped:
                self._analyses.submit_missing(plans)
                self._analyses.wait(self._lease, self._display.remark)
        finally:
            self._analyses.close()
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
                self._analyses.submit(self._sweep.trial(trial_id), UPath(result["kept"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        trial_id, task, result = _trial_id(trial), trial.config["task"], trial.last_result or {}
        self._queue.ended(trial_id)
        self._placing.left(task)
        if result.get("lacks_data_on") is not None:
            delay_s = self._placing.missing(task, result["lacks_data_on"])
            if delay_s is None:
                self._queue.hold(trial_id)
            else:
                self._queue.add(task, delay_s)
        elif result.get("preempted"):
            self._queue.add(task)
            self._display.remark(f"{trial_id}: preempted; continues elsewhere from its last checkpoint")
        else:
            self._tell_end(trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        trial_id = _trial_id(trial)
        self._queue.ended(trial_id)
        self._placing.left(trial.config["task"])
        self._failures[trial_id] += 1
        status = self._failed_status(trial_id, report_of(trial))
        if status.final or self._failures[trial_id] > self._max_failures:
            self._tell_end(trial_id, status)
            return
        delay_s = min(_BACKOFF_S * 2 ** (self._failures[trial_id] - 1), _LONGEST_BACKOFF_S)
        self._queue.add(trial.config["task"], delay_s)
        retry = f"retry {self._failures[trial_id]} of {self._max_failures} in {delay_s:.0f} s"
        self._display.remark(f"{trial_id}: failed ({status.error}); {retry}")

    def _arrived(self) -> list[Task]:
        if self._queue.stalls:
            self._tend()
        return self._placing.arrived()

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._tend()
        waiting = [trial for trial in trials if trial.status == "PENDING"]
        if any(trial.status == "RUNNING" for trial in trials) or not waiting:
            self._patience.renew()
        else:
            needs = needs_of(resources_of(waiting[0].config["task"]))
            actors = count(self._analyses.actors_placed, "actor")
            self._patience.spend(
                f"no trial could start: a trial needs {in_words(needs)}, and the analysis has {actors}", needs
            )

    def _tend(self) -> None:
        """What is due now and then, whatever the trials do."""
        self._lease.require()
        self._analyses.collect()
        with self._storage_may_be_away():  # trials that can't write either fail on their own
            self._answer_requests()
            self._compact()

    @contextmanager
    def _storage_may_be_away(self) -> Iterator[None]:
        try:
            yield
        except STORAGE_ERRORS as error:
            self._compact_at = self._requests_at = time.monotonic() + 10
            self._display.remark(f"the storage is unavailable: {error}")

    def _fit(self, plans: Sequence[Plan]) -> bool:
        """Run one Tune experiment; True if it was interrupted before all trials had ended."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the table reports failures, one line each
        on_sigint = signal.getsignal(signal.SIGINT)
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "0"  # whether it has its own in place says if it was interrupted
        self._queue = Queue(
            [self._task(plan) for plan in plans],
            self._arrived,
            self._placing.aimed,
            interrupted=lambda: signal.getsignal(signal.SIGINT) is on_sigint,  # Tune gives it back once it is told
        )
        self._open = {plan.trial_id for plan in plans}
        with tempfile.TemporaryDirectory(prefix="sweep-tune-") as folder:
            tuner = tune.Tuner(
                tune.with_resources(RayTrial, bundle),
                tune_config=tune.TuneConfig(search_alg=self._queue, num_samples=-1),
                run_config=tune.RunConfig(
                    name=self._sweep.name, storage_path=folder, verbose=0, callbacks=[self],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )  # fmt: skip
            try:
                with redirect_stdout(StringIO()):  # Tune prints a banner whatever `verbose` says
                    tuner.fit()
            finally:
                signal.signal(signal.SIGINT, on_sigint)  # Tune leaves its own behind
                self._placing.close()
        for trial_id in self._open:  # Tune has stopped them
            trial = self._sweep.trial(trial_id)
            status = trial.status()
            reason = trial.interrupted("stopped") if status.attempts else None
            trial.write_status(replace(status, status="pending", reason=reason))
        return bool(self._open)

    def _task(self, plan: Plan) -> Task:
        return {
            "sweep": str(self._sweep.path),
            "trial_id": plan.trial_id,
            "root": plan.root,
            "data_key": plan.spec.data.key,
            "cwd": str(Path.cwd()),
            **self._resources.of_plan(plan).model_dump(),
        }

    def _failed_status(self, trial_id: str, traceback: str) -> Status:
        """The status of a trial whose process failed or died, written here if the process could not."""
        trial = self._sweep.trial(trial_id)
        try:
            status = trial.status()
        except STORAGE_ERRORS as error:
            self._display.remark(f"{trial_id}: its status can't be read: {error}")
            return Status(status="failed", error=died_of(traceback))
        if status.status == "failed":
            return status
        status = replace(status, status="failed", error=died_of(traceback), final=cant_be_imported(traceback))
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
            if self._analyses.busy_with(trial) or self._queue.holds(request.trial_id):
                continue  # answered when it has ended
            plan = answer(self._sweep, request)
            if plan is not None:
                self._failures[plan.trial_id] = 0
                self._queue.add(self._task(plan))
                self._open.add(plan.trial_id)
                left = plan.spec.recipe.epochs - trial.status().epoch
                self._display.another_trial(plan.trial_id, left)
                self._display.remark(f"{plan.trial_id}: retry requested, from {request.start}")

    def _compact(self) -> None:
        if time.monotonic() >= self._compact_at:
            began = time.monotonic()
            compact(self._sweep)
            took = time.monotonic() - began
            self._compact_at = began + max(5.0, took / _COMPACT_SHARE)

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
