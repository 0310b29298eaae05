"""What a sweep is right now: the one truth that dashboard, report, `status` and their JSON are drawn from.

Made from the tables as the driver last wrote them, however many trials there are with the same few requests to the
storage. Needs neither torch nor Ray. Every part is computed when it is first asked for, and once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import pandas as pd

from sweep.results import cells, cost
from sweep.results.compact import survey
from sweep.results.contrasts import contrasts
from sweep.results.statistics import over_seeds, scored
from sweep.results.tables import COLUMNS, DamagedTableError, TableName, read_newest, read_table, table_versions
from sweep.results.words import kind_of
from sweep.store.kept import epochs_to_keep
from sweep.store.lease import Holder, holder
from sweep.store.sweep_dir import SweepDir

_EPOCH_COLUMNS = ("trial_id", "epoch", "wall_s", "images_per_s")
_OTHERS = {  # of layers, for pages of one trial
    "row_profile", "column_profile", "middle_row", "middle_column", "asymmetry_top_bottom", "asymmetry_left_right",
    "residual", "analysis_wall_s", "zeros",
}  # fmt: skip
_LAYER_COLUMNS = tuple(name for name in COLUMNS["layers"] if name not in _OTHERS)
_PARTS: tuple[TableName, ...] = ("trials", "epochs", "layers")


@dataclass(frozen=True)
class Version:
    """Tells whether a state is still that of its sweep: what the tables were, and who works on them."""

    tables: tuple[tuple[str, str], ...]
    driver: str | None


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which trials a reader wants to see: those that have one of the values of each field; an empty one means all.

    `recipe` is a recipe's key, `search` a part of an id, an error, a reason or a host, in any case.
    """

    status: Sequence[str] = ()
    verdict: Sequence[str] = ()
    architecture: Sequence[str] = ()
    intervention: Sequence[str] = ()
    data: Sequence[str] = ()
    recipe: Sequence[str] = ()
    unexpected: bool = False
    search: str = ""


FILTERED = {field.name: field.name for field in fields(Filters) if field.name not in ("unexpected", "search")} | {
    "recipe": "recipe_key"
}
"""The column that each filter of several values looks at."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The failed trials that have failed in the same way; `error` is one of their errors, `hosts` are where."""

    kind: str
    error: str
    trial_ids: tuple[str, ...]
    hosts: tuple[str, ...]

    @property
    def title(self) -> str:
        """Such as `DivergedError x 7`."""
        name = self.kind.partition(":")[0]
        return f"{name} x {len(self.trial_ids)}" if len(self.trial_ids) > 1 else name


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of how many findings that the article lets one expect, how many were found."""

    found: int
    expected: int

    def __str__(self) -> str:
        return f"{self.found} of {self.expected} as expected"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A host on which trials run now, with what they occupy; `heartbeat_at` is their newest, in seconds since 1970."""

    host: str
    trials: int
    gpus: float
    cpus: int
    device: str | None
    heartbeat_at: float | None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a sweep is; `images_per_s` is what the running trials train on together, None while nothing is known.

    `analyses_waiting` counts checkpoints that are kept and not analysed.
    """

    trials_done: int
    trials: int
    epochs_done: int
    epochs: int
    images_per_s: float | None
    analyses_waiting: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a state is made of: the trials, their epochs, and the `newest` of their layers (`cells.newest`).

    `analysed` counts the analysed checkpoints by trial.
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    newest: pd.DataFrame
    analysed: pd.Series

    @classmethod
    def of(cls, tables: Mapping[TableName, pd.DataFrame]) -> Tables:
        """From whole tables."""
        layers = tables["layers"]
        analysed = layers[["trial_id", "step"]].drop_duplicates().groupby("trial_id", sort=False).size()
        return cls(trials=tables["trials"], epochs=tables["epochs"], newest=cells.newest(layers), analysed=analysed)

    @classmethod
    def read(cls, sweep: SweepDir) -> Tables:
        """From a sweep's files, without ever holding all that they say.

        Raises:
            DamagedTableError: a table can't be read.
        """
        newest, analysed = read_newest(sweep.path, _LAYER_COLUMNS)
        return cls(
            trials=read_table(sweep.path, "trials"),
            epochs=read_table(sweep.path, "epochs", _EPOCH_COLUMNS, categorical=True),
            newest=newest.sort_values("position", kind="stable"),
            analysed=analysed,
        )


class State:
    """A sweep at one moment.

    `trials` has a row for each trial, as `cells.standing` and `cells.last_convs` make it, with `unexpected` (its last
    conv's verdict isn't the expected one). `newest` are the layers of each trial's newest analysed checkpoint.
    """

    def __init__(self, sweep: SweepDir, tables: Tables, driver: Holder | None) -> None:
        self.sweep, self.driver = sweep, driver
        self.version = Version((), None if driver is None else driver.token)
        self.newest = tables.newest
        self.trials = _as_they_are(tables.trials, self.newest, driver)
        self._epochs, self._analysed = tables.epochs, tables.analysed
        self._cells: dict[int, pd.DataFrame] = {}

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        return cells.counts(self.trials)

    @cached_property
    def positions(self) -> list[int]:
        """The positions of analysed convs: 1 is the last one."""
        return sorted(int(position) for position in self.newest["position"].dropna().unique())

    def cells(self, position: int = 1) -> pd.DataFrame:
        """The grid (`cells.cells`), with what the convs at a position show."""
        if position not in self._cells:
            facts = self.trials[list(COLUMNS["trials"])]
            trials = self.trials if position == 1 else cells.with_layer(facts, self.newest, position)
            self._cells[position] = cells.cells(trials)
        return self._cells[position]

    @cached_property
    def scored(self) -> pd.DataFrame:
        """A row for each finished trial and layer analysed at its last step (`statistics.scored`)."""
        return scored(self.trials, self.newest)

    @cached_property
    def over_seeds(self) -> pd.DataFrame:
        """A row for each cell and layer (`statistics.over_seeds`), the last conv first."""
        return over_seeds(self.scored).sort_values("position", kind="stable", ignore_index=True)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """What each intervention changes (`contrasts.contrasts`), the last conv first."""
        return contrasts(self.scored)

    @cached_property
    def agreement(self) -> Agreement:
        """Over all cells and layers of which something was expected."""
        known = self.over_seeds[self.over_seeds["expected"] != "unknown"]
        return Agreement(found=int((~known["surprising"]).sum()), expected=len(known))

    @cached_property
    def failures(self) -> list[Failures]:
        """The failed trials by what they failed of, the most frequent first."""
        failed = self.trials[self.trials["status"] == "failed"]
        errors = failed["error"].fillna("no error was recorded")
        groups = failed.assign(error=errors).groupby(errors.map(kind_of), sort=False)
        found = [
            Failures(
                kind=str(kind),
                error=str(group["error"].iloc[0]),
                trial_ids=tuple(group["trial_id"]),
                hosts=tuple(group["host"].dropna().unique()),
            )
            for kind, group in groups
        ]
        return sorted(found, key=lambda failures: -len(failures.trial_ids))

    @cached_property
    def trial_costs(self) -> list[cost.TrialCost]:
        """What each trial has cost and will cost."""
        speeds = cost.measured_speeds(self.trials, self._epochs)
        return cost.trial_costs(self.trials, speeds, cost.read_prices())

    @cached_property
    def cost(self) -> cost.Cost:
        """What the sweep has cost and will cost."""
        return cost.cost_of(self.trial_costs)

    @cached_property
    def progress(self) -> Progress:
        """How far it is."""
        runnable = self.trials[self.trials["status"] != "excluded"]
        running = runnable[runnable["status"] == "running"]
        speeds = [one.images_per_s for one in self.trial_costs if one.status == "running" and one.images_per_s]
        return Progress(
            trials_done=self.counts["finished"],
            trials=len(runnable),
            epochs_done=int(runnable["epoch"].fillna(0).sum()),
            epochs=int(runnable.loc[runnable["images"].fillna(1) > 0, "epochs"].fillna(0).sum()),
            images_per_s=sum(speeds) if speeds else None,
            analyses_waiting=_unanalysed(runnable, self._epochs, self._analysed),
            nodes=tuple(_node(str(host), part) for host, part in running.groupby("host")),
        )

    def chosen(self, filters: Filters) -> pd.DataFrame:
        """The trials that a reader wants to see, those first that need attention: failed, running, pending."""
        found = self.trials
        for name, column in FILTERED.items():
            if values := getattr(filters, name):
                found = found[found[column].isin(list(values))]
        if filters.unexpected:
            found = found[found["unexpected"]]
        if filters.search:
            found = found[_mentions(found, filters.search)]
        return found.sort_values("status", key=lambda statuses: statuses.map(_URGENCY), kind="stable")


_URGENCY = {"failed": 0, "running": 1, "pending": 2, "finished": 3, "excluded": 4}
_SEARCHED = ("trial_id", "error", "reason", "analysis_error", "host")


def glance(sweep: SweepDir) -> tuple[Version, Holder | None]:
    """The version of a sweep's state as it is now, and who works on it; takes three requests to the storage."""
    driver = holder(sweep.path)
    tables = sorted(table_versions(sweep.path).items())
    return Version(tuple(tables), None if driver is None else driver.token), driver


def read_state(sweep: SweepDir, *, surveyed: bool = False) -> State:
    """A sweep as it is now. `surveyed`: where a table is missing or damaged, the trials' files are read instead.

    Raises:
        DamagedTableError: a table can't be read; the message says which command rewrites it.
    """
    version, driver = glance(sweep)  # first: tables that change meanwhile are read again
    try:
        missing = surveyed and any(name not in dict(version.tables) for name in _PARTS)
        tables = Tables.of(survey(sweep).tables) if missing else Tables.read(sweep)
    except DamagedTableError:
        if not surveyed:
            raise
        tables = Tables.of(survey(sweep).tables)
    state = State(sweep, tables, driver)
    state.version = version
    return state


def _as_they_are(trials: pd.DataFrame, newest: pd.DataFrame, driver: Holder | None) -> pd.DataFrame:
    last = cells.with_layer(cells.standing(trials, driver), newest, position=1)
    told = last["verdict"].notna() & last["expected"].notna() & (last["expected"] != "unknown")
    ended = (last["status"] == "finished") & (last["analysed_step"] == last["step"]).fillna(False)
    return last.assign(unexpected=(ended & told & (last["expected"] != last["verdict"])).fillna(False).astype(bool))


def _unanalysed(trials: pd.DataFrame, epochs: pd.DataFrame, analysed: pd.Series) -> int:
    """Checkpoints kept so far without those analysed: of the epochs that trials have told of, those to keep."""
    reached = trials["trial_id"].map(epochs.groupby("trial_id", sort=False)["epoch"].max())
    begun = trials[reached.notna() & trials["epochs"].notna()]
    kept_epochs = {number: epochs_to_keep(int(number)) for number in begun["epochs"].unique()}
    done = begun["trial_id"].map(analysed).fillna(0)
    return sum(
        max(0, bisect_right(kept_epochs[number], epoch) - int(few))
        for number, epoch, few in zip(begun["epochs"], reached[begun.index], done, strict=True)
    )


def _node(host: str, trials: pd.DataFrame) -> Node:
    devices, beats = trials["device"].dropna(), trials["heartbeat_at"].dropna()
    return Node(
        host=host,
        trials=len(trials),
        gpus=float(trials["gpus"].fillna(0).sum()),
        cpus=int(trials["cpus"].fillna(1).sum()),
        device=str(devices.iloc[0]) if len(devices) else None,
        heartbeat_at=float(beats.max()) if len(beats) else None,
    )


def _mentions(trials: pd.DataFrame, part: str) -> pd.Series:
    found = pd.Series(False, index=trials.index)
    for column in _SEARCHED:
        found |= trials[column].str.contains(part, case=False, regex=False).fillna(False).astype(bool)
    return found
