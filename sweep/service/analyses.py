"""The analyses of a launch: checkpoints go to Ray actors as they appear, and what comes back is recorded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from upath import UPath

from analysis.actors import AnalysisPool
from sweep.grid.schema import Analysis
from sweep.service.cluster import Patience, in_words
from sweep.spec import Plan
from sweep.store.files import STORAGE_ERRORS, remove_unfinished, write_json
from sweep.store.lease import Lease
from sweep.store.manifest import MODEL
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir
from sweep.terminal.progress import Display


class Analyses:
    """Hands checkpoints to the actors, counts what is done, and records what failed. Never waits unless asked to."""

    def __init__(self, sweep: SweepDir, settings: Analysis, display: Display, logs: Path | None = None) -> None:
        self._sweep, self._display = sweep, display
        self._pool = AnalysisPool(settings.actors, settings.cpus, settings.gpus, settings.layers)
        self._needs = {"CPU": settings.cpus, "GPU": settings.gpus}
        self._logs = logs
        self._done = 0
        self.lost = 0
        """Analyses that failed and could not be recorded either."""

    @property
    def actors_placed(self) -> int:
        """Actors that have a place in the cluster."""
        return self._pool.placed

    def submit(self, trial: TrialDir, checkpoint: UPath) -> None:
        """Queue a checkpoint for analysis, unless it already has its results."""
        results = trial.layers / checkpoint.name
        if not self._pool.holds(_model_file(checkpoint)):
            remove_unfinished(results)  # an actor of an earlier launch may have been stopped in the middle of a file
        self._pool.submit(_model_file(checkpoint), str(results))
        self._show()

    def submit_missing(self, plans: Sequence[Plan]) -> None:
        """Queue the checkpoints that finished trials had no time to report."""
        for plan in plans:
            trial = self._sweep.trial(plan.trial_id)
            for checkpoint in trial.unanalysed(plan) if trial.status().status == "finished" else []:
                if not self._pool.holds(_model_file(checkpoint)):
                    self.submit(trial, checkpoint)

    def busy_with(self, trial: TrialDir) -> bool:
        """Whether a checkpoint of the trial is being analysed or is waiting."""
        folders = list(trial.checkpoints.iterdir()) if trial.checkpoints.exists() else []
        return any(self._pool.holds(_model_file(folder)) for folder in folders)

    def collect(self, timeout_s: float = 0.0) -> None:
        """Record the analyses that have ended; waits for one at most `timeout_s`."""
        self.record(self._pool.poll(timeout_s))

    def record(self, ended: Sequence[tuple[str, list[dict[str, Any]]]]) -> None:
        """Count analyses that have ended, each a checkpoint's model file and its rows, and record those that failed."""
        for model_file, rows in ended:
            self._done += 1
            self._show()
            failed = [row["error"] for row in rows if row["error"]]
            if failed:
                self._record_failure(UPath(model_file).parent, rows, failed[0])

    def wait(self, lease: Lease, say: Callable[[str], None]) -> None:
        """Wait until all analyses have ended.

        Raises:
            LostLeaseError: another driver has taken over the sweep.
        """
        patience = Patience(say, self._logs)
        while self._pool.pending:
            lease.require()
            self.collect(timeout_s=1.0)
            if self._pool.placed:
                patience.renew()
            else:
                patience.spend(f"no analysis could start: an actor needs {in_words(self._needs)}", self._needs)

    def close(self) -> None:
        """Stop the actors; the next launch does what they have not finished."""
        self._pool.close()

    def _record_failure(self, checkpoint: UPath, rows: list[dict[str, Any]], error: str) -> None:
        """A failed analysis is a row with its error: the actor has written it, or it is written here."""
        trial = TrialDir(checkpoint.parent.parent)
        self._display.remark(f"{trial.trial_id}: the analysis of step {checkpoint.name} failed: {error}")
        results = trial.results_file(checkpoint.name)
        try:
            if not results.exists():
                write_json(results, rows)
        except STORAGE_ERRORS:
            self.lost += 1

    def _show(self) -> None:
        self._display.analysed(self._done, self._pool.pending)


def _model_file(checkpoint: UPath) -> str:
    return str(checkpoint / MODEL)
