"""The analyses of a launch: checkpoints go to Ray actors as they appear, and what comes back is recorded."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from upath import UPath

from analysis.actors import Analysed, AnalysisPool
from sweep.grid.settings import Analysis
from sweep.results.live import LiveTables
from sweep.service.clerk import Clerk
from sweep.service.cluster import Patience, in_words
from sweep.service.failures import backoff_s
from sweep.service.observers import Observers
from sweep.store.files import STORAGE_ERRORS, is_outage, prove_writable, write_json
from sweep.store.lease import Lease
from sweep.store.manifest import MODEL
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir
from sweep.terminal.progress import Display

if TYPE_CHECKING:  # it loads torch
    from analysis.layers import Row

_IDLE_S = 0.05
_MOST_OUTAGES = 10  # of the storage, in a row, after which the analysis of a checkpoint is repeated: 5 minutes


class Analyses:
    """Hands checkpoints to the actors, counts what is done, and records what failed. Never waits unless asked to."""

    def __init__(
        self,
        sweep: SweepDir,
        settings: Analysis,
        live: LiveTables,
        clerk: Clerk,
        display: Display,
        observers: Observers,
        logs: Path | None = None,
    ) -> None:
        self._sweep, self._live, self._clerk, self._display = sweep, live, clerk, display
        self._observers = observers
        self._pool = AnalysisPool(settings.actors, settings.cpus, settings.gpus, settings.layers)
        self._needs = {"CPU": settings.cpus, "GPU": settings.gpus}
        self._logs = logs
        self._done = 0
        self._waiting: Counter[str] = Counter()
        self._outages: Counter[str] = Counter()
        self._interrupted: dict[str, float] = {}
        """When to repeat which; infinity until the storage answers."""
        self._lost: set[str] = set()

    @property
    def lost(self) -> int:
        """Analyses that are left for the next resume: they met one outage after the other, or failed unrecorded."""
        return len(self._lost)

    @property
    def actors_placed(self) -> int:
        """Actors that have a place in the cluster."""
        return self._pool.placed

    @property
    def pending(self) -> int:
        """Checkpoints that are being analysed or waiting, if only for the storage to answer."""
        return self._pool.pending + len(self._interrupted)

    def submit(self, checkpoint: UPath) -> None:
        """Queue a checkpoint for analysis; an actor finds out whether it already has its results."""
        trial = TrialDir(checkpoint.parent.parent)
        self._waiting[trial.trial_id] += 1
        self._submit(_model_file(checkpoint))
        self._show()

    def submit_missing(self) -> None:
        """Queue the checkpoints that finished trials had no time to report."""
        for trial_id, step in self._live.unanalysed():
            checkpoint = self._sweep.trial(trial_id).checkpoints / str(step)
            if not self._pool.holds(_model_file(checkpoint)) and _model_file(checkpoint) not in self._interrupted:
                self.submit(checkpoint)

    def busy_with(self, trial_id: str) -> bool:
        """Whether a checkpoint of the trial is being analysed or is waiting."""
        return self._waiting[trial_id] > 0

    def collect(self, timeout_s: float = 0.0) -> None:
        """Record the analyses that have ended, and have observers told; waits for one at most `timeout_s`."""
        now = time.monotonic()
        for model_file in [model_file for model_file, due_at in self._interrupted.items() if due_at <= now]:
            del self._interrupted[model_file]
            self._submit(model_file)
        self.record(self._pool.poll(timeout_s))
        self._observers.tend(self.pending, self.busy_with, self._clerk.away)

    def record(self, ended: Sequence[Analysed]) -> None:
        """Take over analyses that have ended; those that met an outage are repeated when the storage answers."""
        for model_file, rows, outage in ended:
            if outage:
                self._interrupt(model_file, rows)
            else:
                self._conclude(model_file, rows)
        if ended:
            self._show()

    def wait(self, lease: Lease, say: Callable[[str], None], stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until all analyses have ended, or it is to stop.

        Raises:
            LostLeaseError: another driver has taken over the sweep.
        """
        patience = Patience(say, self._logs)
        while self.pending and not stopped():
            lease.require()
            self.collect(timeout_s=1.0)
            self._clerk.tend()
            if not self._pool.pending:  # nothing that `collect` would wait for
                time.sleep(_IDLE_S)
            if self._pool.placed:
                patience.renew()
            else:
                patience.spend(f"no analysis could start: an actor needs {in_words(self._needs)}", self._needs)

    def close(self) -> None:
        """Stop the actors; the next launch does what they have not finished."""
        self._pool.close()

    def _submit(self, model_file: str) -> None:
        checkpoint = UPath(model_file).parent
        self._pool.submit(model_file, str(TrialDir(checkpoint.parent.parent).layers / checkpoint.name))

    def _interrupt(self, model_file: str, rows: list[Row]) -> None:
        """An analysis has met an outage: again when the storage answers, unless that has not helped for long."""
        self._outages[model_file] += 1
        if self._outages[model_file] <= _MOST_OUTAGES:
            self._interrupted[model_file] = math.inf
            self._clerk.do(partial(prove_writable, self._sweep.path), partial(self._repeat, model_file))
            return
        trial, step = self._done_with(model_file)
        self._lost.add(model_file)
        self._display.remark(
            f"{trial.trial_id}: the analysis of step {step} has met {_MOST_OUTAGES + 1} outages in a row "
            f"({rows[0]['error']}); the next resume repeats it"
        )

    def _repeat(self, model_file: str, _: object) -> None:
        self._interrupted[model_file] = time.monotonic() + backoff_s(self._outages[model_file])

    def _conclude(self, model_file: str, rows: list[Row]) -> None:
        """Take over an analysis's rows; those of a failed one once they are recorded."""
        trial, step = self._done_with(model_file)
        take_over = partial(self._live.analysed, trial.trial_id, int(step), rows)
        self._observers.analysed(trial.trial_id, int(step), rows)
        failed = [row["error"] for row in rows if row["error"]]
        if not failed:
            self._lost.discard(model_file)
            take_over()
            return
        self._display.remark(f"{trial.trial_id}: the analysis of step {step} failed: {failed[0]}")
        recorded = partial(self._recorded, model_file, take_over)
        self._clerk.do(partial(_record, trial.results_file(step), rows), recorded)

    def _done_with(self, model_file: str) -> tuple[TrialDir, str]:
        """Count an analysis that has ended; returns its trial and step."""
        checkpoint = UPath(model_file).parent
        trial = TrialDir(checkpoint.parent.parent)
        self._outages.pop(model_file, None)
        self._done += 1
        self._waiting[trial.trial_id] -= 1
        return trial, checkpoint.name

    def _recorded(self, model_file: str, take_over: Callable[[], None], there: bool) -> None:
        if there:
            self._lost.discard(model_file)
            take_over()
        else:  # the next launch analyses it again
            self._lost.add(model_file)

    def _show(self) -> None:
        self._display.analysed(self._done, self.pending)


def _record(results: UPath, rows: list[Row]) -> bool:
    """Write a failed analysis's rows unless its actor has; returns whether they are there."""
    try:
        if not results.exists():
            write_json(results, rows)
    except STORAGE_ERRORS as error:
        if is_outage(error):
            raise
        return False
    return True


def _model_file(checkpoint: UPath) -> str:
    return str(checkpoint / MODEL)
