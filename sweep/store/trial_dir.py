"""The directory of one trial: its spec, status, epochs, errors, checkpoints and results."""

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from upath import UPath

from analysis.write import RESULTS, read_bytes
from sweep.spec import Plan
from sweep.store.files import files_below, move, read_json, read_text, remove_file, write_json, write_text
from sweep.store.kept import kept_checkpoints
from sweep.store.manifest import EpochRow, by_step, checkpoint_steps

FROM_SCRATCH = "starts from scratch"
"""The reason of a pending trial whose earlier work has been set aside."""
State = Literal["pending", "running", "finished", "failed", "excluded"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a trial; times ending in `_at` are seconds since 1970.

    `reason` says why a cell is excluded or a trial was interrupted; `final` that a retry would fail too. `gpus` and
    `cpus` are what the last attempt occupies, on a machine of `node_type`: the cloud's name for it, else its
    accelerator's, else CPU.
    """

    status: State = "pending"
    reason: str | None = None
    attempts: int = 0
    error: str | None = None
    final: bool = False
    host: str | None = None
    pid: int | None = None
    started_at: float | None = None
    heartbeat_at: float | None = None
    epoch: int = 0
    step: int = 0
    steps: int | None = None
    val_accuracy: float | None = None
    wall_s: float = 0.0
    code_version: str | None = None
    torch_version: str | None = None
    device: str | None = None
    threads: int | None = None
    cpu_capability: str | None = None
    gpus: float | None = None
    cpus: int | None = None
    node_type: str | None = None


_STATUS = TypeAdapter(Status)


MEASURED = {"probes": "probe.json", "ablations": "ablation.json", "examples": "examples.json"}
"""Files of trials that a table is gathered from."""


@dataclass(frozen=True)
class TrialDir:
    """Paths and records of one trial."""

    path: UPath

    @property
    def trial_id(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> UPath:
        return self.path / "spec.json"

    @property
    def status_file(self) -> UPath:
        return self.path / "status.json"

    @property
    def epochs_file(self) -> UPath:
        return self.path / "epochs.jsonl"

    @property
    def error_file(self) -> UPath:
        return self.path / "error.txt"

    @property
    def log_file(self) -> UPath:
        return self.path / "log.txt"

    def measured_file(self, table: str) -> UPath:
        """What a command has measured on the trial's network, for a table of `MEASURED`."""
        return self.path / MEASURED[table]

    def measured_pictures(self, table: str) -> UPath:
        """A folder for each step with pictures that belong to what was measured."""
        return self.path / table

    def measured_picture(self, table: str, step: int, layer: str) -> UPath:
        """The picture of a layer."""
        return self.measured_pictures(table) / str(step) / f"{layer}.png"

    @property
    def checkpoints(self) -> UPath:
        return self.path / "checkpoints"

    @property
    def layers(self) -> UPath:
        return self.path / "layers"

    @property
    def attempts(self) -> UPath:
        """What earlier attempts had left when another started from scratch."""
        return self.path / "attempts"

    def results_file(self, step: int | str) -> UPath:
        """The scores of a checkpoint's layers; written last, so it says that the analysis is complete."""
        return self.layers / str(step) / RESULTS

    def write_plan(self, plan: Plan) -> None:
        """Plan the trial, with the status that follows from it; the spec file comes last."""
        if plan.excluded is not None:
            self.write_status(Status(status="excluded", reason=plan.excluded))
        write_json(self.spec_file, plan.to_json())

    def plan(self) -> Plan:
        """What was planned.

        Raises:
            ValueError: the file is damaged or of another version; launching its grid again rewrites it.
        """
        values = read_json(self.spec_file)
        try:
            return Plan.from_json(values)
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{self.spec_file} is damaged ({said}); launch its grid again") from error

    def status(self) -> Status:
        """The trial's status; pending if none was written yet, or it is damaged."""
        try:
            return _STATUS.validate_python(read_json(self.status_file))
        except FileNotFoundError:
            return Status()
        except ValueError:  # checkpoints and rows tell how far the trial got
            return Status(reason="its status was damaged")

    def write_status(self, status: Status) -> None:
        write_json(self.status_file, asdict(status))

    def epochs(self) -> list[EpochRow]:
        """The rows of the finished epochs, up to the first damaged line; epoch 0 is the untrained network's."""
        rows: list[EpochRow] = []
        try:
            lines = read_bytes(self.epochs_file).decode().splitlines()
            rows.extend(_epoch_row(line) for line in lines)
        except (FileNotFoundError, ValueError, TypeError):  # each checkpoint holds the rows; training rewrites them
            return rows
        return rows

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        write_text(self.epochs_file, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def unanalysed(self, plan: Plan) -> list[UPath]:
        """The checkpoints kept for the analysis that have no results yet, newest first."""
        if plan.excluded is not None:
            return []
        analysed = [step for step, files in by_step(files_below(self.layers)).items() if RESULTS in files]
        return kept_checkpoints(self.checkpoints, plan.spec.recipe.epochs, analysed)

    def interrupted(self, how: str) -> str:
        """How the trial was interrupted, in words, and what it resumes from."""
        trained = max(checkpoint_steps(self.checkpoints), default=0) > 0  # that of step 0 is the untrained network
        return f"{how}; resumes from its last checkpoint" if trained else f"{how}; no checkpoint yet"

    def set_aside(self) -> None:
        """Move the trial's work into `attempts/<n>/`, so that it starts from scratch.

        The status comes first: if interrupted in between, the trial is pending and resumes from what is left.
        """
        before = list(self.attempts.iterdir()) if self.attempts.exists() else []
        taken = [int(path.name) for path in before if path.name.isdecimal()]
        beside = TrialDir(self.attempts / str(max(taken, default=0) + 1))
        status = self.status()
        beside.write_status(status)
        self.write_status(Status(attempts=status.attempts, reason=FROM_SCRATCH))
        measured = chain.from_iterable((self.measured_file(of), self.measured_pictures(of)) for of in MEASURED)
        for path in (self.checkpoints, self.layers, self.epochs_file, self.error_file, *measured):
            if path.exists():
                move(path, beside.path / path.name)

    def write_error(self, traceback: str) -> None:
        write_text(self.error_file, traceback)

    def clear_error(self) -> None:
        remove_file(self.error_file)


def _epoch_row(line: str) -> EpochRow:
    """One line of `epochs.jsonl`.

    Raises:
        ValueError, TypeError: it is damaged.
    """
    row: EpochRow = json.loads(line)
    if not isinstance(row, dict) or not {"epoch", "step"} <= row.keys():
        raise ValueError(f"not an epoch's row: {line}")
    if not all(value is None or isinstance(value, int | float) for value in row.values()):
        raise ValueError(f"not all numbers: {line}")
    return row


def this_process() -> dict[str, Any]:
    """Host and process id, as a status records them."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def read_error(trial: TrialDir) -> str | None:
    """The traceback of a failed trial, or None."""
    return _text(trial.error_file)


def read_log(trial: TrialDir) -> str | None:
    """What happened to a trial, a line each, or None if nothing has yet."""
    return _text(trial.log_file)


def read_spec(trial: TrialDir) -> dict[str, Any] | None:
    """The spec of a trial, all that its result depends on; None if it can't be read."""
    content = _text(trial.spec_file)
    try:
        return dict(json.loads(content)["spec"]) if content is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def _text(path: UPath) -> str | None:
    try:
        return read_text(path)
    except FileNotFoundError:
        return None
