"""The sweep directory: the single source of truth about a sweep, independent of Ray's own files.

```
<storage>/<sweep>/sweep.yaml           what was launched
                  driver/<n>.json      who works on it (sweep.store.lease)
                  requests/            what the dashboard and `sweep stop` ask for (sweep.store.requests)
                  code/<hash>.json     the code that has worked on it (sweep.store.code)
                  notes/               sweep.json and <trial_id>.json: what readers noted (sweep.store.notes)
                  removing             it is being removed; without `sweep.yaml` it is no sweep (sweep.store.removal)
                  trials/<trial_id>/   spec.json, status.json, epochs.jsonl, error.txt, log.txt
                    checkpoints/<step>/
                    layers/<step>/
                    *.json, examples/<step>/   what was measured on the network (sweep.results.measuring)
                    attempts/<n>/      what an attempt had left when another started from scratch
                  results/*.parquet    compacted tables, rebuilt from the above at any time
```
"""

import time
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NotRequired

import yaml
from pydantic import TypeAdapter
from typing_extensions import TypedDict
from upath import UPath

from sweep.spec import SCHEMA, Plan, TrialSpec
from sweep.store.files import absolute, children, write_text
from sweep.store.strict_yaml import read_yaml
from sweep.store.trial_dir import Status, TrialDir

_THREADS = 16
Seat = tuple[str, str, int, str]
"""Architecture, intervention, seed and id of a trial."""


class Launch(TypedDict):
    """One launch: when, and the grid as it was written."""

    launched_at: NotRequired[str]
    grid: dict[str, Any]


_LAUNCHES = TypeAdapter(list[Launch])


@dataclass(frozen=True)
class SweepDir:
    """Paths and records of one sweep."""

    path: UPath

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def file(self) -> UPath:
        """What was launched; a folder with this file is a sweep."""
        return self.path / "sweep.yaml"

    @property
    def driver(self) -> UPath:
        """Who works on the sweep (sweep.store.lease)."""
        return self.path / "driver"

    @property
    def requests(self) -> UPath:
        """What the dashboard and `sweep stop` ask for (sweep.store.requests)."""
        return self.path / "requests"

    @property
    def code(self) -> UPath:
        """The code that has worked on the sweep (sweep.store.code)."""
        return self.path / "code"

    @property
    def results(self) -> UPath:
        """The compacted tables and what is drawn from them."""
        return self.path / "results"

    @property
    def notes(self) -> UPath:
        """What readers noted (sweep.store.notes)."""
        return self.path / "notes"

    @property
    def centres(self) -> UPath:
        """The centres of the clusters, an array for each k."""
        return self.results / "centres.npz"

    @property
    def picture(self) -> UPath:
        """The coloured weights of each trial's last conv."""
        return self.results / "weights.png"

    def table(self, name: str) -> UPath:
        """A compacted table (sweep.results.tables)."""
        return self.results / f"{name}.parquet"

    def trial(self, trial_id: str) -> TrialDir:
        return TrialDir(self._trials / trial_id)

    def has_trial(self, trial_id: str) -> bool:
        """Whether a trial of this id has been planned, whatever the id contains."""
        is_name = "/" not in trial_id and "\\" not in trial_id and trial_id not in ("", ".", "..")
        return is_name and self.trial(trial_id).path.exists()

    @property
    def _trials(self) -> UPath:
        return self.path / "trials"

    def trials(self) -> list[TrialDir]:
        """All trials, by id."""
        return [self.trial(name) for name in children(self._trials) if not name.startswith(".")]

    def launches(self) -> list[dict[str, Any]]:
        """The launches so far, oldest first, each with `launched_at` and `grid`."""
        if not self.file.exists():
            return []
        try:
            launches = _LAUNCHES.validate_python(read_yaml(self.file, "it")["launches"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"{self.file} is damaged ({said}); restore it, or remove it and launch the grid again"
            ) from error
        return [dict(launch) for launch in launches]

    def record_launch(self, grid: dict[str, Any]) -> None:
        """Add a grid to `sweep.yaml` unless it is the one launched last."""
        launches = self.launches()
        if launches and launches[-1]["grid"] == grid:
            return
        launches.append({"launched_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "grid": grid})
        document = yaml.safe_dump({"schema": SCHEMA, "launches": launches}, sort_keys=False)
        write_text(self.file, document)

    def add(self, plans: Sequence[Plan], known: Set[str] = frozenset()) -> int:
        """Plan trials; returns the number of new ones.

        Of those already planned only root, resources and number of images may change. A damaged spec is
        rewritten. `known` trials without a root count as planned without a check.
        """
        todo = [plan for plan in plans if plan.root is not None or plan.trial_id not in known]
        there = set(children(self._trials)) if todo else set()
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(lambda plan: self._add(plan, plan.trial_id in there), todo))

    def _add(self, plan: Plan, there: bool) -> bool:
        trial = self.trial(plan.trial_id)
        if not there:
            trial.write_plan(plan)
            return True
        try:
            planned = trial.plan()
        except FileNotFoundError:
            trial.write_plan(plan)
            return True
        except ValueError:
            trial.write_plan(plan)
            return False
        if (planned.root, planned.resources, planned.images) != (plan.root, plan.resources, plan.images):
            trial.write_plan(plan)
        return False

    def read(self, trials: Iterable[TrialDir]) -> list[tuple[Plan, Status]]:
        """Plans and statuses of some trials, in the order in which the launched grids name them."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = [pair for pair in pool.map(_read, trials) if pair is not None]
        rank = self.ranking()
        return sorted(found, key=lambda pair: rank(_seat(pair[0].spec)))

    def ranking(self) -> Callable[[Seat], tuple[int, int, int, str]]:
        """A sort key: the order in which the launched grids name architectures and interventions, then seeds."""
        grids = [launch["grid"] for launch in self.launches()]
        architectures = _ranks(name for grid in grids for name in grid.get("architectures", []))
        interventions = _ranks(name for grid in grids for name in grid.get("interventions", []))

        def rank(seat: Seat) -> tuple[int, int, int, str]:
            architecture, intervention, seed, trial_id = seat
            return (
                architectures.get(architecture, len(architectures)),
                interventions.get(intervention, len(interventions)),
                seed,
                trial_id,
            )

        return rank


def _read(trial: TrialDir) -> tuple[Plan, Status] | None:
    """A trial's plan and status, or None if its planning was interrupted."""
    try:
        plan = trial.plan()
    except FileNotFoundError:
        return None
    status = trial.status()
    if plan.excluded is not None and status.status != "excluded":
        status = Status(status="excluded", reason=plan.excluded)
    return plan, status


def _seat(spec: TrialSpec) -> Seat:
    return spec.architecture, spec.intervention, spec.init_seed, spec.trial_id


def _ranks(names: Iterable[str]) -> dict[str, int]:
    """The position of each name's first occurrence."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def is_sweep(path: UPath) -> bool:
    """Whether a folder holds a sweep."""
    return SweepDir(path).file.exists()


def sweep_names(storage: UPath) -> list[str]:
    """Names of the sweeps in a storage, sorted; empty if the storage does not exist."""
    if not storage.exists():
        return []
    return sorted(child.name for child in storage.iterdir() if is_sweep(child))


def open_sweep(name_or_path: str, storage: UPath) -> SweepDir:
    """The sweep at a path, or by name in a storage.

    Raises:
        ValueError: there is none; the message lists the sweeps of the storage.
    """
    is_url = "://" in name_or_path
    for path in (UPath(name_or_path), *(() if is_url else (storage / name_or_path,))):
        if is_sweep(path):
            return SweepDir(absolute(path))
    names = ", ".join(sweep_names(storage)) or "none"
    raise ValueError(f"there is no sweep {name_or_path!r}; sweeps in {storage}: {names}")
