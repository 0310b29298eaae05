"""The sweep directory: the only truth about a sweep, independent of Ray's own files.

```
<storage>/<sweep>/sweep.yaml           what was launched
                  driver/<n>.json      who works on it (sweep.store.lease)
                  requests/            what the dashboard asks for (sweep.store.requests)
                  trials/<trial_id>/   spec.json, status.json, epochs.jsonl, error.txt, log.txt
                    checkpoints/<step>/
                    layers/<step>/
                    attempts/<n>/      what an attempt had left when another was begun from scratch
                  results/*.parquet    compacted tables, rebuilt from the above at any time
```
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal, NotRequired

import yaml
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict
from upath import UPath

from analysis.layers import RESULTS
from sweep.spec import SCHEMA, Plan, TrialSpec
from sweep.store.files import move, read_json, write_json, write_text
from sweep.store.kept import kept_checkpoints
from sweep.store.manifest import EpochRow

_THREADS = 16
Seat = tuple[str, str, int, str]
"""Architecture, intervention, seed and id of a trial."""
State = Literal["pending", "running", "finished", "failed", "excluded"]


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known of a trial's course; times ending in `_at` are seconds since 1970.

    `reason` says why a cell is excluded or a trial was interrupted; `final` that failing again is certain.
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


class Launch(TypedDict):
    """One launch: when, and the grid as it was written."""

    launched_at: NotRequired[str]
    grid: dict[str, Any]


_STATUS = TypeAdapter(Status)
_LAUNCHES = TypeAdapter(list[Launch])
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it


@dataclass(frozen=True)
class SweepDir:
    """Paths and records of one sweep."""

    path: UPath

    @property
    def name(self) -> str:
        return self.path.name

    def trial(self, trial_id: str) -> "TrialDir":
        return TrialDir(self.path / "trials" / trial_id)

    def trials(self) -> list["TrialDir"]:
        """All trials, by id."""
        folder = self.path / "trials"
        children = sorted(folder.iterdir(), key=str) if folder.exists() else []
        return [TrialDir(child) for child in children if not child.name.startswith(".")]

    def launches(self) -> list[dict[str, Any]]:
        """The launches so far, oldest first, each with `launched_at` and `grid`."""
        file = self.path / "sweep.yaml"
        if not file.exists():
            return []
        try:
            launches = _LAUNCHES.validate_python(yaml.load(file.read_text(encoding="utf-8"), _LOADER)["launches"])
        except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{file} is damaged ({said}); restore it, or launch the grid again without it") from error
        return [dict(launch) for launch in launches]

    def record_launch(self, grid: dict[str, Any]) -> None:
        """Add a grid to `sweep.yaml` unless it is the one launched last."""
        launches = self.launches()
        if launches and launches[-1]["grid"] == grid:
            return
        launches.append({"launched_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "grid": grid})
        document = yaml.safe_dump({"schema": SCHEMA, "launches": launches}, sort_keys=False)
        write_text(self.path / "sweep.yaml", document)

    def add(self, plans: Sequence[Plan], known: Set[str] = frozenset()) -> int:
        """Plan trials; of those already planned only the root may change. Gives the number of new ones.

        A damaged spec is written anew. `known` trials without a root are taken for planned without a look.
        """
        todo = [plan for plan in plans if plan.root is not None or plan.trial_id not in known]
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(self._add, todo))

    def _add(self, plan: Plan) -> bool:
        trial = self.trial(plan.trial_id)
        try:
            planned = trial.plan()
        except FileNotFoundError:
            trial.write_plan(plan)
            return True
        except ValueError:
            trial.write_plan(plan)
            return False
        if planned.root != plan.root:
            trial.write_plan(plan)
        return False

    def read(self, trials: Iterable["TrialDir"]) -> list[tuple[Plan, Status]]:
        """Plans and statuses of some trials, in the order in which the launched grids name them."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = [pair for pair in pool.map(_read, trials) if pair is not None]
        place = self.places()
        return sorted(found, key=lambda pair: place(_seat(pair[0].spec)))

    def read_all(self) -> list[tuple[Plan, Status]]:
        """Plans and statuses of all trials, each from its own files."""
        return self.read(self.trials())

    def places(self) -> Callable[[Seat], tuple[int, int, int, str]]:
        """A sort key: the order in which the launched grids name architectures and interventions, then seeds."""
        grids = [launch["grid"] for launch in self.launches()]
        architectures = _places(name for grid in grids for name in grid.get("architectures", []))
        interventions = _places(name for grid in grids for name in grid.get("interventions", []))

        def place(seat: Seat) -> tuple[int, int, int, str]:
            architecture, intervention, seed, trial_id = seat
            return (
                architectures.get(architecture, len(architectures)),
                interventions.get(intervention, len(interventions)),
                seed,
                trial_id,
            )

        return place


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
    def checkpoints(self) -> UPath:
        return self.path / "checkpoints"

    @property
    def layers(self) -> UPath:
        return self.path / "layers"

    def write_plan(self, plan: Plan) -> None:
        """Plan the trial, with the status that follows from it; the spec file comes last."""
        if plan.excluded is not None:
            self.write_status(Status(status="excluded", reason=plan.excluded))
        write_json(self.spec_file, plan.to_json())

    def plan(self) -> Plan:
        """What was planned.

        Raises:
            ValueError: the file is damaged or of another version; launching its grid again writes it anew.
        """
        values = read_json(self.spec_file)
        try:
            return Plan.from_json(values)
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{self.spec_file} is damaged ({said}); launch its grid again") from error

    def status(self) -> Status:
        """The trial's status; pending where none was written yet, or what was written is damaged."""
        file = self.path / "status.json"
        try:
            return _STATUS.validate_python(read_json(file))
        except FileNotFoundError:
            return Status()
        except ValueError:  # checkpoints and rows tell how far the trial came
            return Status(reason="its status was damaged")

    def write_status(self, status: Status) -> None:
        write_json(self.path / "status.json", asdict(status))

    def epochs(self) -> list[EpochRow]:
        """The rows of the finished epochs, up to the first damaged line; epoch 0 is the untrained network's."""
        rows: list[EpochRow] = []
        try:
            lines = (self.path / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
            rows.extend(_epoch_row(line) for line in lines)
        except (FileNotFoundError, ValueError, TypeError):  # each checkpoint holds the rows; training writes them anew
            return rows
        return rows

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        write_text(self.path / "epochs.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def unanalysed(self, plan: Plan) -> list[UPath]:
        """The checkpoints kept for the analysis that have no results yet, newest first."""
        if plan.excluded is not None:
            return []
        kept = kept_checkpoints(self.checkpoints, plan.spec.recipe.epochs)
        return [folder for folder in kept if not (self.layers / folder.name / RESULTS).exists()]

    def set_aside(self) -> None:
        """Move what the trial has come to into `attempts/<n>/`, so that it begins from scratch.

        The status comes first: cut short in between, the trial is pending and goes on from what is left.
        """
        attempts = self.path / "attempts"
        taken = [int(path.name) for path in attempts.iterdir() if path.name.isdecimal()] if attempts.exists() else []
        beside = attempts / str(max(taken, default=0) + 1)
        status = self.status()
        write_json(beside / "status.json", asdict(status))
        self.write_status(Status(attempts=status.attempts, reason="begins from scratch"))
        for name in ("checkpoints", "layers", "epochs.jsonl", "error.txt", "probe.json"):
            if (self.path / name).exists():
                move(self.path / name, beside / name)

    def write_error(self, traceback: str) -> None:
        write_text(self.path / "error.txt", traceback)

    def clear_error(self) -> None:
        (self.path / "error.txt").unlink(missing_ok=True)


def _read(trial: TrialDir) -> tuple[Plan, Status] | None:
    """A trial's plan and status, or None where its planning was cut short."""
    try:
        plan = trial.plan()
    except FileNotFoundError:
        return None
    status = trial.status()
    if plan.excluded is not None and status.status != "excluded":
        status = Status(status="excluded", reason=plan.excluded)
    return plan, status


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


def _seat(spec: TrialSpec) -> Seat:
    return spec.architecture, spec.intervention, spec.init_seed, spec.trial_id


def this_process() -> dict[str, Any]:
    """Host and process id, as a status records them."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _places(names: Iterable[str]) -> dict[str, int]:
    """Where each name first stands."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}
