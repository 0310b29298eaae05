"""Keep the results tables up to date with the trial directories.

A settled trial, finished and analysed, is read from its files once; after that, its rows come from the tables. So a
look at a sweep costs only what its unsettled trials cost. Remove `results/` to have everything read again.
Every row carries its trial's id; the trial's row carries code and library versions.
"""

from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from upath import UPath

from analysis.write import arrays_file
from sweep.results.tables import (
    COLUMNS,
    DAMAGE,
    DamagedTableError,
    Row,
    TableName,
    decoded,
    read_table,
    table_of,
    write_table,
)
from sweep.spec import Plan
from sweep.store.files import read_json, remove_file
from sweep.store.sweep_dir import Seat, SweepDir
from sweep.store.trial_dir import Status, TrialDir

Trials = Sequence[tuple[Plan, Status]]
GATHERED: tuple[TableName, ...] = ("probes", "ablations", "examples")
"""Tables that commands of their own make from the trials' files."""
SMALL: tuple[TableName, ...] = ("epochs", "layers", "trials")
"""Tables that are kept up to date while a sweep runs; `trials` is written last, since it says what is settled."""


@dataclass(frozen=True)
class Survey:
    """The state of a sweep: its tables, and the plans and statuses of unsettled trials."""

    tables: dict[TableName, pd.DataFrame]
    unsettled: Trials

    @property
    def newly_settled(self) -> bool:
        """Whether trials are settled that the tables, as they are written, don't know to be."""
        read = {plan.trial_id for plan, _ in self.unsettled}
        trials = self.tables["trials"]
        return bool((trials["settled"].fillna(False) & trials["trial_id"].isin(list(read))).any())


def survey(sweep: SweepDir) -> Survey:
    """Read a sweep: settled trials from the tables, the others from their files."""
    known, settled = _known(sweep)
    trials = sweep.trials()
    settled = settled & {trial.trial_id for trial in trials}
    unsettled = sweep.read(trial for trial in trials if trial.trial_id not in settled)
    with ThreadPoolExecutor(16) as pool:
        fresh = list(pool.map(lambda pair: _rows_of(sweep.trial(pair[0].trial_id), *pair), unsettled))
    tables: dict[TableName, pd.DataFrame] = {}
    for name in SMALL:
        kept = known[name][known[name]["trial_id"].isin(settled)]
        new = table_of(name, chain.from_iterable(rows[name] for rows in fresh))
        tables[name] = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    return Survey(in_order(tables, sweep.ranking()), unsettled)


def look(sweep: SweepDir) -> dict[TableName, pd.DataFrame]:
    """The small tables as its driver last wrote them, or if one is missing or damaged, from the trials' files.

    However many trials there are, this takes the same few requests to the storage.
    """
    tables = {name: _table(sweep, name) for name in SMALL}
    found = {name: table for name, table in tables.items() if table is not None}
    return found if len(found) == len(SMALL) else survey(sweep).tables


def in_order(
    tables: dict[TableName, pd.DataFrame], rank_of: Callable[[Seat], tuple[int, int, int, str]]
) -> dict[TableName, pd.DataFrame]:
    """The small tables with their trials in the order in which the launched grids name them."""
    rank = _ranks(tables["trials"], rank_of)
    return {
        name: table.sort_values("trial_id", key=lambda ids: ids.map(rank), kind="stable", ignore_index=True)
        for name, table in tables.items()
    }


def compact(sweep: SweepDir) -> None:
    """Rewrite the small tables, each file as a whole."""
    tables = survey(sweep).tables
    for name in SMALL:
        write_table(sweep.path, name, tables[name])


def mend(sweep: SweepDir) -> list[str]:
    """Rewrite the tables that are missing or damaged; returns the names of the damaged ones.

    Clusters have their own command: their table is removed, and then counts as not made yet.
    """
    tables: list[TableName] = [*SMALL, "neurons", "clusters", *GATHERED]
    damaged = [name for name in tables if sweep.table(name).exists() and _table(sweep, name) is None]
    for name in damaged:
        remove_file(sweep.table(name))
    if not all(sweep.table(name).exists() for name in (*SMALL, "neurons")):
        compact_all(sweep)
    for name in GATHERED:
        if name in damaged:
            gather(sweep, name)
    return [str(name) for name in damaged]


def compact_all(sweep: SweepDir) -> None:
    """Rewrite all tables, the neurons' too."""
    tables = survey(sweep).tables
    compact_neurons(sweep, tables["layers"])
    for name in SMALL:
        write_table(sweep.path, name, tables[name])


def compact_neurons(sweep: SweepDir, layers: pd.DataFrame) -> None:
    """Rewrite the neurons' table for a table of layers."""
    write_table(sweep.path, "neurons", _neurons(sweep, layers))


def unsettle(sweep: SweepDir, trial_ids: Set[str]) -> None:
    """Have trials read from their files again; call this before the files change."""
    known, settled = _known(sweep)
    if settled & trial_ids:
        tables: dict[TableName, pd.DataFrame | None] = {"trials": known["trials"], "neurons": _table(sweep, "neurons")}
        for name, table in tables.items():
            if table is not None:
                write_table(sweep.path, name, table[~table["trial_id"].isin(trial_ids)])


def settled_trials(sweep: SweepDir) -> Set[str]:
    """Ids of the trials that are finished and analysed according to the tables."""
    return _known(sweep)[1]


def layer_rows(trial: TrialDir, plan: Plan) -> list[Row]:
    """One row for each analysed layer of each checkpoint of a trial, with the finding expected."""
    if not trial.layers.exists():
        return []
    epoch_of = {row["step"]: row["epoch"] for row in trial.epochs()}
    expected = dict(zip(plan.layers, plan.expected, strict=True))
    rows = []
    steps = [path for path in trial.layers.iterdir() if path.name.isdecimal()]
    for folder in sorted(steps, key=lambda path: int(path.name)):
        if trial.results_file(folder.name).exists():
            step = int(folder.name)
            common = {"trial_id": plan.trial_id, "step": step, "epoch": epoch_of.get(step)}
            rows += [
                row | common | {"expected": expected.get(row["layer"])}
                for row in _results(trial.results_file(folder.name))
            ]
    return rows


def _results(file: UPath) -> list[Row]:
    """The rows of one checkpoint; if its file is damaged, one row that says so, as for a failed analysis."""
    try:
        rows = read_json(file)
    except ValueError:
        rows = None
    if isinstance(rows, list) and all(_fits(row, "layers") for row in rows):
        return rows
    return [{"layer": "", "position": 1, "error": f"{file} is damaged; `sweep analyze SWEEP` rewrites it"}]


def _fits(row: object, name: TableName) -> bool:
    """Whether a row of a file fits a table: it names its layer, and its values have the columns' types."""
    if not isinstance(row, dict) or not isinstance(row.get("layer"), str):
        return False
    return all(row.get(column) is None or _is(row[column], kind) for column, kind in COLUMNS[name].items())


def _is(value: object, kind: str) -> bool:
    """Whether a value from a JSON file fits a column of this type."""
    if kind == "string":
        return isinstance(value, str) and value == value.encode(errors="replace").decode()  # no lone surrogates
    if isinstance(value, float):
        return kind == "Float64" or value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def gather(sweep: SweepDir, table: TableName) -> None:
    """Write a table of `GATHERED` from the trials' files."""
    with ThreadPoolExecutor(16) as pool:
        rows = chain.from_iterable(pool.map(lambda trial: measured_rows(trial, table), sweep.trials()))
        write_table(sweep.path, table, table_of(table, rows))


def measured_rows(trial: TrialDir, table: TableName) -> list[Row]:
    """What was measured on a trial; nothing where the file is missing or damaged, since measuring rewrites it."""
    file = trial.measured_file(table)
    try:
        rows = read_json(file) if file.exists() else []
    except ValueError:
        return []
    return rows if isinstance(rows, list) and all(_fits(row, table) for row in rows) else []


def _known(sweep: SweepDir) -> tuple[dict[TableName, pd.DataFrame], Set[str]]:
    """The tables as written, and the trials settled in them; all empty where a table is missing or damaged."""
    found = {name: _table(sweep, name) for name in SMALL}
    tables = {name: table for name, table in found.items() if table is not None}
    if len(tables) < len(found):
        return {name: table_of(name, []) for name in SMALL}, set()
    trials = tables["trials"]
    return tables, set(trials.loc[trials["settled"].fillna(False) & trials["recipe_key"].notna(), "trial_id"])


def _table(sweep: SweepDir, name: TableName) -> pd.DataFrame | None:
    """A table as written; None where it is missing or damaged."""
    if not sweep.table(name).exists():
        return None
    try:
        return read_table(sweep.path, name)
    except DamagedTableError:
        return None


def _rows_of(trial: TrialDir, plan: Plan, status: Status) -> dict[TableName, list[Row]]:
    if status == Status():  # it has never begun
        return {"trials": [trial_row(plan, status) | {"settled": False}], "epochs": [], "layers": []}
    settled = status.status == "excluded" or (status.status == "finished" and not trial.unanalysed(plan))
    return {
        "trials": [trial_row(plan, status) | {"settled": settled}],
        "epochs": [{"trial_id": plan.trial_id} | row for row in trial.epochs()],
        "layers": layer_rows(trial, plan),
    }


def trial_row(plan: Plan, status: Status) -> Row:
    """A trial's row: what it is and its state."""
    spec = plan.spec
    return {
        "trial_id": plan.trial_id,
        "architecture": spec.architecture,
        "intervention": spec.intervention,
        "data": spec.data.name,
        "data_key": spec.data.key,
        "flip": spec.data.options.get("flip"),
        "recipe_key": spec.recipe.key,
        "seed": spec.init_seed,
        "epochs": spec.recipe.epochs,
        "parameters": plan.parameters,
        "primary": plan.primary,
        **{name: getattr(status, name) for name in COLUMNS["trials"] if hasattr(status, name)},
        **occupied(plan, status),
    }


def occupied(plan: Plan, status: Status) -> Row:
    """What a trial occupies, or will in its next attempt, and for how many hours it has done so."""
    planned = plan.resources
    before = (status.gpus, status.cpus)  # None where an older version ran it
    if None in before and planned is not None:
        before = (planned.gpus, planned.cpus)
    now = before if planned is None or status.status in ("running", "finished") else (planned.gpus, planned.cpus)
    hours, (gpus, cpus) = status.wall_s / 3600, before
    return {
        "gpus": now[0],
        "cpus": now[1],
        "images": plan.images,
        "gpu_hours": None if gpus is None else hours * gpus,
        "cpu_hours": None if gpus is None or cpus is None else 0.0 if gpus else hours * cpus,
    }


def _ranks(trials: pd.DataFrame, rank_of: Callable[[Seat], Any]) -> dict[str, int]:
    """Where each trial stands in the tables."""
    seats = trials[["architecture", "intervention", "seed", "trial_id"]].itertuples(index=False, name=None)
    return {seat[3]: rank for rank, seat in enumerate(sorted(seats, key=rank_of))}


def _neurons(sweep: SweepDir, layers: pd.DataFrame) -> pd.DataFrame:
    """The neurons' table for a table of layers; what was read before is not read again."""
    known = _table(sweep, "neurons")
    if known is None:
        known = table_of("neurons", [])
    keys = ["trial_id", "step", "layer"]
    analysed = layers.loc[layers["error"].isna(), keys]
    kept = known[known["trial_id"].isin(settled_trials(sweep))].merge(analysed, on=keys)
    have = set(map(tuple, kept[keys].drop_duplicates().itertuples(index=False)))
    missing = [key for key in analysed.itertuples(index=False, name=None) if key not in have]
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda key: _neurons_of(sweep.trial(key[0]), key[1], key[2]), missing))
    frames = [frame for frame in (kept, *read) if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else table_of("neurons", [])


def _neurons_of(trial: TrialDir, step: int, layer: str) -> pd.DataFrame:
    path = arrays_file(trial.layers / str(step), layer)
    try:
        columns = decoded(path.read_bytes(), ("horizontal", "vertical"))
        facts = {"trial_id": trial.trial_id, "step": step, "layer": layer}
        frame = pd.DataFrame(facts | {"neuron": np.arange(len(columns["horizontal"]))} | columns)
        return frame.astype(COLUMNS["neurons"])
    except DAMAGE:  # `sweep analyze SWEEP` rewrites it
        return table_of("neurons", [])
