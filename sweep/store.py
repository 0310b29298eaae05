"""The sweep directory: the only truth about a sweep, independent of Ray's own files.

```
<storage>/<sweep>/sweep.yaml           what was launched
                  trials/<trial_id>/   spec.json, status.json, epochs.jsonl, error.txt
                    checkpoints/<step>/
                    layers/<step>/
                  results/*.parquet    compacted tables, rebuilt from the above at any time
```
"""

import json
import os
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import yaml
from upath import UPath

from sweep.files import read_json, write_json, write_text
from sweep.spec import SCHEMA, TrialSpec

State = Literal["pending", "running", "finished", "failed", "excluded"]
EpochRow = dict[str, float | int | None]


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known of a trial's course; times ending in `_at` are seconds since 1970."""

    status: State = "pending"
    reason: str | None = None
    attempts: int = 0
    error: str | None = None
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A trial as planned: its spec, and what else is needed to run it and to read its results.

    `root` is the folder its images come from, where it was when last launched; `layers` are the convs to analyse, the
    last one first, `expected` the finding for each; `excluded` is the reason why the cell makes no sense, or None.
    """

    spec: TrialSpec
    root: str | None
    parameters: int
    layers: tuple[str, ...]
    expected: tuple[str, ...]
    excluded: str | None = None

    @property
    def trial_id(self) -> str:
        return self.spec.trial_id

    def to_json(self) -> dict[str, Any]:
        values = asdict(replace(self, spec=None))  # type: ignore[arg-type]  # the spec follows as pydantic's own JSON
        return values | {"trial_id": self.trial_id, "spec": self.spec.model_dump(mode="json")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            ValueError: the spec was written by another version, or its content is not what its id says.
        """
        version = values["spec"].get("schema_version")
        if version != SCHEMA:
            raise ValueError(
                f"trial {values['trial_id']} has spec version {version}, this project reads {SCHEMA}; "
                "use the version that wrote it, or launch into a new storage"
            )
        spec = TrialSpec.model_validate(values["spec"])
        if spec.trial_id != values["trial_id"]:
            raise ValueError(f"spec.json of {values['trial_id']} was changed by hand; restore it, or remove the trial")
        return cls(
            spec=spec,
            root=values["root"],
            parameters=values["parameters"],
            layers=tuple(values["layers"]),
            expected=tuple(values["expected"]),
            excluded=values["excluded"],
        )


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
        """All planned trials, by id."""
        folder = self.path / "trials"
        return [TrialDir(child) for child in sorted(folder.iterdir(), key=str)] if folder.exists() else []

    def launches(self) -> list[dict[str, Any]]:
        """The launches so far, oldest first, each with `launched_at` and `grid`."""
        file = self.path / "sweep.yaml"
        if not file.exists():
            return []
        try:
            return list(yaml.safe_load(file.read_text(encoding="utf-8"))["launches"])
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}); restore it, or launch the grid again without it") from error

    def record_launch(self, grid: dict[str, Any]) -> None:
        """Add a grid to `sweep.yaml` unless it is the one launched last."""
        launches = self.launches()
        if launches and launches[-1]["grid"] == grid:
            return
        launches.append({"launched_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "grid": grid})
        document = yaml.safe_dump({"schema": SCHEMA, "launches": launches}, sort_keys=False)
        write_text(self.path / "sweep.yaml", document)

    def add(self, plans: Sequence[Plan]) -> int:
        """Plan trials; of those already planned only the root may change. Gives the number of new ones."""
        new = 0
        for plan in plans:
            trial = self.trial(plan.trial_id)
            known = trial.plan() if trial.spec_file.exists() else None
            if known is None or known.root != plan.root:
                trial.write_plan(plan)
            new += known is None
        return new

    def read_all(self) -> list[tuple[Plan, Status]]:
        """Plans and statuses of all trials, in the order in which the launched grids name them."""
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda trial: (trial.plan(), trial.status()), self.trials()))
        grids = [launch["grid"] for launch in self.launches()]
        architectures = _places(name for grid in grids for name in grid["architectures"])
        interventions = _places(name for grid in grids for name in grid["interventions"])

        def place(pair: tuple[Plan, Status]) -> tuple[int, int, int, str]:
            spec = pair[0].spec
            return (
                architectures.get(spec.architecture, len(architectures)),
                interventions.get(spec.intervention, len(interventions)),
                spec.init_seed,
                pair[0].trial_id,
            )

        return sorted(found, key=place)


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
        return Plan.from_json(read_json(self.spec_file))

    def status(self) -> Status:
        """The trial's status; pending where none was written yet."""
        file = self.path / "status.json"
        try:
            values = read_json(file)
        except FileNotFoundError:
            return Status()
        try:
            return Status(**values)
        except TypeError as error:
            raise ValueError(f"{file} is not a status ({error}); remove it and run `sweep resume`") from error

    def write_status(self, status: Status) -> None:
        write_json(self.path / "status.json", asdict(status))

    def epochs(self) -> list[EpochRow]:
        """The rows of the finished epochs; the first one, of epoch 0, is the untrained network's."""
        file = self.path / "epochs.jsonl"
        if not file.exists():
            return []
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        write_text(self.path / "epochs.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def write_error(self, traceback: str) -> None:
        write_text(self.path / "error.txt", traceback)

    def clear_error(self) -> None:
        (self.path / "error.txt").unlink(missing_ok=True)


def this_process() -> dict[str, Any]:
    """Host and process id, as a status records them."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _places(names: Iterable[str]) -> dict[str, int]:
    """Where each name first stands."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}
