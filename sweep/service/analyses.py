"""The analyses of a launch: checkpoints go to Ray actors as they appear, and what comes back is recorded."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from upath import UPath

from analysis.actors import Analysed, AnalysisPool
from sweep.grid.settings import Analysis
from sweep.results.live import LiveTables
from sweep.service.clerk import Clerk
from sweep.service.cluster import Patience, in_words
from sweep.service.observers import Observers
from sweep.store.files import STORAGE_ERRORS, is_outage, prove_writable, write_json
from sweep.store.lease import Lease
from sweep.store.manifest import MODEL
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir
from sweep.terminal.progress import Display

_IDLE_S = 0.05
_MOST_OUTAGES = 10  # of the storage that the analysis of a checkpoint survives


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
        self._interrupted: set[str] = set()
        self.lost = 0
        """Analyses that failed and could not be recorded either."""

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
        self.record(self._pool.poll(timeout_s))
        self._observers.tend(self.pending, self.busy_with, self._clerk.away)

    def record(self, ended: Sequence[Analysed]) -> None:
        """Take over analyses that have ended; those that met an outage are repeated when the storage answers."""
        for model_file, rows, outage in ended:
            if outage and self._outages[model_file] < _MOST_OUTAGES:
                self._outages[model_file] += 1
                self._interrupted.add(model_file)
                self._clerk.do(partial(prove_writable, self._sweep.path), partial(self._repeat, model_file))
                continue
            checkpoint = UPath(model_file).parent
            trial = TrialDir(checkpoint.parent.parent)
            self._done += 1
            self._waiting[trial.trial_id] -= 1
            take_over = partial(self._live.analysed, trial.trial_id, int(checkpoint.name), rows)
            self._observers.analysed(trial.trial_id, int(checkpoint.name), rows)
            failed = [row["error"] for row in rows if row["error"]]
            if failed:
                said = f"the analysis of step {checkpoint.name} failed: {failed[0]}"
                self._display.remark(f"{trial.trial_id}: {said}")
                results = trial.results_file(checkpoint.name)
                self._clerk.do(partial(_recorded, results, rows), partial(self._count_lost, take_over))
            else:
                take_over()
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

    def _repeat(self, model_file: str, _: object) -> None:
        self._interrupted.discard(model_file)
        self._submit(model_file)

    def _count_lost(self, take_over: Callable[[], None], recorded: bool) -> None:
        self.lost += not recorded
        if recorded:  # else the next launch analyses it again
            take_over()

    def _show(self) -> None:
        self._display.analysed(self._done, self.pending)


def _recorded(results: UPath, rows: list[dict[str, Any]]) -> bool:
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
