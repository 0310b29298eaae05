"""Run one trial of a sweep directory: train it, and keep its status and error up to date."""

import errno
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from upath import UPath

from analysis.write import is_local, remove_unfinished
from models.architectures import architecture_named
from models.interventions import INTERVENTIONS
from sweep.data.prepare import in_words, prepare
from sweep.spec import Resources, TrialSpec
from sweep.store.code import code_version
from sweep.store.files import STORAGE_ERRORS
from sweep.store.kept import SAVE_EVERY_S
from sweep.store.log import logged_to, logger
from sweep.store.manifest import EpochRow, checkpoint_steps
from sweep.store.trial_dir import Status, TrialDir, this_process
from sweep.training.machine import CPU, Arithmetic, node_type
from sweep.training.ranks import ALONE, Ranks
from sweep.training.run import DivergedError
from sweep.training.schedule import Schedule
from sweep.training.train import OnEpoch, Stop, StoppedError, course, ignore, never

HEARTBEAT_S = 15.0
_TELL_EVERY_S = 5.0  # while data is fetched


Tell = Callable[[Status], None]
"""Called with each status that a trial has just taken on; whether it could be written too is another matter."""


TellRows = Callable[[list[EpochRow]], None]
"""Called with the first rows an attempt has: those of an earlier one, if any, whose process may have told nobody."""


def tell_nobody(told: Status | list[EpochRow]) -> None:
    """A Tell and a TellRows that does nothing."""


class SupersededError(RuntimeError):
    """The same trial has been started elsewhere meanwhile; this process must leave its files alone."""


def run_trial(
    trial: TrialDir,
    root: str | Path | None,
    threads: int,
    report: OnEpoch = ignore,
    stop: Stop = never,
    save_every_s: float = SAVE_EVERY_S,
) -> Status:
    """Train a planned trial to its end with a number of CPU threads, and return its last status.

    Whatever training raises is recorded in `status.json` and `error.txt` and re-raised.
    """
    for row, kept in trial_course(trial, root, threads, stop, save_every_s):
        report(row, kept)
    return trial.status()


def trial_course(
    trial: TrialDir,
    root: str | Path | None,
    threads: int,
    stop: Stop = never,
    save_every_s: float = SAVE_EVERY_S,
    ranks: Ranks = ALONE,
    tell: Tell = tell_nobody,
    tell_rows: TellRows = tell_nobody,
) -> Iterator[tuple[EpochRow, UPath | None]]:
    """`run_trial` epoch by epoch: yields each epoch's row, and the checkpoint's folder if its weights are kept.

    With several `ranks`, this is the first one; the others `follow`.
    """
    torch.set_num_threads(threads)
    with logged_to(trial.log_file):
        yield from _recorded_course(trial, root, stop, save_every_s, ranks, tell, tell_rows)


def follow(trial: TrialDir, root: str | Path | None, threads: int, save_every_s: float, ranks: Ranks) -> None:
    """Train a trial together with its first rank, which records what happens."""
    torch.set_num_threads(threads)
    spec = trial.plan().spec
    with suppress(StoppedError, DivergedError):  # which all ranks raise together
        for _ in course(spec, prepare(spec.data, root), trial.path, never, save_every_s, ranks):
            pass


def _recorded_course(
    trial: TrialDir,
    root: str | Path | None,
    stop: Stop,
    save_every_s: float,
    ranks: Ranks,
    tell: Tell,
    tell_rows: TellRows,
) -> Iterator[tuple[EpochRow, UPath | None]]:
    plan = trial.plan()
    spec = plan.spec
    record = _Record(trial, plan.resources, tell, tell_rows)
    try:
        require_current(spec)
        data = prepare(spec.data, root, record.preparing, lambda: stop(0))
        record.write(reason=None, steps=Schedule(spec.recipe, len(data.train_images)).steps)
        for row, kept in course(spec, data, trial.path, record.watched(stop), save_every_s, ranks, record.take_rows):
            record.write(**_reached(row))
            logger.info(_in_words(row))
            yield row, kept
        record.write(status="finished", **_reached(record.rows[-1]))
        logger.info("finished")
    except SupersededError as error:
        logger.info(str(error))
        raise
    except (StoppedError, GeneratorExit) as error:
        record.write(status="pending", reason=trial.interrupted("stopped"))
        logger.info(str(error) or "stopped between epochs")
        raise
    except Exception as error:
        record.fail(error)
        raise


def require_current(spec: TrialSpec) -> None:
    """Refuse a trial whose architecture or intervention has been redefined since it was planned.

    Raises:
        ValueError: it has; launching the grid again plans the trial with the current definitions.
    """
    for name, revision, now in (
        (spec.architecture, spec.architecture_revision, architecture_named(spec.architecture).revision),
        (spec.intervention, spec.intervention_revision, INTERVENTIONS[spec.intervention].revision),
    ):
        if revision != now:
            raise ValueError(
                f"planned with revision {revision} of {name}, which is at revision {now} here: launch the grid again "
                "to plan the trial under another id, or use the version that planned this one"
            )


class _Record:
    """Status and rows of the trial that this process runs, as long as no other process has taken the trial over.

    On a local disk they are written at once. On an object store, news of a running trial waits up to `HEARTBEAT_S`.
    """

    def __init__(self, trial: TrialDir, resources: Resources | None, tell: Tell, tell_rows: TellRows) -> None:
        before, arithmetic = trial.status(), Arithmetic.here()
        on_gpu = arithmetic.device != CPU
        remove_unfinished(trial.path)
        self._trial, self._tell, self._tell_rows = trial, tell, tell_rows
        self._at_once = is_local(trial.path)
        self.rows: list[EpochRow] = []
        """Those of the finished epochs."""
        self._rows_written = True
        self._status = Status(
            status="running", attempts=before.attempts + 1, started_at=time.time(),
            epoch=before.epoch, step=before.step, val_accuracy=before.val_accuracy, wall_s=before.wall_s,
            cpus=arithmetic.threads if resources is None else resources.cpus,
            gpus=float(on_gpu) if resources is None else resources.gpus, node_type=node_type(),
            code_version=code_version(), **asdict(arithmetic), **this_process(),
        )  # fmt: skip
        self._beat_at = self._told_at = time.monotonic()
        self._status = replace(self._status, heartbeat_at=time.time())
        trial.write_status(self._status)
        tell(self._status)
        if before != Status():  # the first attempt finds none
            trial.clear_error()
        status = self._status
        logger.info(
            f"attempt {status.attempts} starts on {status.host}, process {status.pid}: {arithmetic}, "
            f"code {status.code_version}"
        )
        regrouped = before.gpus is not None and max(before.gpus, status.gpus or 0) > 1 and before.gpus != status.gpus
        differs = arithmetic.differs_from(before)
        if not (regrouped or differs) or max(checkpoint_steps(trial.checkpoints), default=0) == 0:
            return
        if regrouped:
            logger.info(f"continues on {status.gpus:g} GPUs, {before.gpus:g} before: sums are added in another order")
        if differs:
            logger.info(
                f"continues with other arithmetic: {arithmetic.of_attempt(before)} before; "
                "the weights won't match an uninterrupted run's bit for bit"
            )

    def watched(self, stop: Stop) -> Stop:
        """`stop`, with a heartbeat from time to time; the next write records the step reached."""

        def watch(step: int) -> bool:
            self._status = replace(self._status, step=step)
            if time.monotonic() - self._beat_at >= HEARTBEAT_S:
                self.write()
            return stop(step)

        return watch

    def preparing(self, done: int, total: int, unit: str) -> None:
        """Record how far the data is, now and then."""
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self.write(reason=in_words(done, total, unit))

    def take_rows(self, rows: list[EpochRow]) -> None:
        """Record the rows of all finished epochs, and tell of the first ones."""
        if not self.rows:
            self._tell_rows(list(rows))
        self.rows, self._rows_written = list(rows), False
        if self._at_once:
            self._write_rows()

    def write(self, **changes: Any) -> None:
        """Write the status with changes.

        Raises:
            SupersededError: another process has started the trial.
        """
        now = time.monotonic()
        due = self._at_once or "status" in changes or now - self._beat_at >= HEARTBEAT_S
        if due:
            self._require_newest()
            self._beat_at = now
        self._told_at = now
        self._status = replace(self._status, heartbeat_at=time.time(), **changes)
        self._tell(self._status)
        if due:
            self._write_rows()
            self._trial.write_status(self._status)

    def _write_rows(self) -> None:
        if not self._rows_written:
            self._trial.write_epochs(self.rows)
            self._rows_written = True

    def _require_newest(self) -> None:
        attempts = self._trial.status().attempts
        if attempts > self._status.attempts:
            raise SupersededError(f"attempt {attempts} has started elsewhere; this was attempt {self._status.attempts}")

    def fail(self, error: Exception) -> None:
        """Record an error as far as the storage can be written; the driver learns of it in any case."""
        logger.info(f"failed: {summary(error)}")
        with suppress(*STORAGE_ERRORS):
            said = self._trial.status()
            if said.status == "failed" and said.attempts == self._status.attempts:
                return  # another of the trial's processes failed first, which is why this one did
        with suppress(*STORAGE_ERRORS):
            self._trial.write_error("".join(traceback.format_exception(error)))
        with suppress(*STORAGE_ERRORS):
            self.write(status="failed", error=summary(error), final=is_certain(error))


_CERTAIN = (
    DivergedError, ValueError, TypeError, LookupError, AttributeError, NameError, ImportError, AssertionError,
    NotImplementedError, SyntaxError,
)  # fmt: skip
"""What a retry would raise again: a wrong input or a fault of the code, not of a machine."""


def is_certain(error: BaseException) -> bool:
    """Whether a retry would raise the same error again."""
    return isinstance(error, _CERTAIN)


def summary(error: BaseException) -> str:
    """An error in one line, with a cure where there is one."""
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    said = said.encode(errors="backslashreplace").decode()  # file names may contain what no table can
    cure = _CURES.get(error.errno or 0) if isinstance(error, OSError) else None
    return f"{said}; {cure}" if cure else said


_CURES = {
    errno.ENOSPC: "the storage is full: free space, then `sweep resume`",
    errno.EDQUOT: "the storage's quota is used up: free space, then `sweep resume`",
    errno.EACCES: "the storage is no longer writable: restore the permission, then `sweep resume`",
    errno.EROFS: "the storage has become read-only: restore it, then `sweep resume`",
}


def _in_words(row: EpochRow) -> str:
    """An epoch's row for the log."""
    loss = "" if row["train_loss"] is None else f"loss {row['train_loss']:.4f}, "
    return (
        f"epoch {row['epoch']} ends at step {row['step']}: {loss}validation accuracy {row['val_accuracy']:.4f}, "
        f"{row['wall_s']:.0f} s of training so far"
    )


def _reached(row: EpochRow) -> dict[str, Any]:
    return {key: row[key] for key in ("epoch", "step", "val_accuracy", "wall_s")}
