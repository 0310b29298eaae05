"""Rebuild the results tables from the trial directories.

Every row carries its trial's id; the trial's row carries code and library versions.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from upath import UPath

from sweep.files import read_json, write_bytes
from sweep.results import COLUMNS, TableName
from sweep.store import Plan, Status, SweepDir, TrialDir

Row = dict[str, Any]


@dataclass
class Rows:
    """The rows of one trial or of many, by table."""

    trials: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    neurons: list[pd.DataFrame] = field(default_factory=list)


def compact(sweep: SweepDir) -> None:
    """Write `results/*.parquet` anew, each file as a whole."""
    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(lambda pair: _rows_of(sweep.trial(pair[0].trial_id), *pair), sweep.read_all()))
    folder = sweep.path / "results"
    _write(folder, "trials", _frame("trials", (row for part in parts for row in part.trials)))
    _write(folder, "epochs", _frame("epochs", (row for part in parts for row in part.epochs)))
    _write(folder, "layers", _frame("layers", (row for part in parts for row in part.layers)))
    neurons = [frame for part in parts for frame in part.neurons]
    _write(folder, "neurons", pd.concat(neurons) if neurons else _frame("neurons", []))


def layer_rows(trial: TrialDir, plan: Plan) -> list[Row]:
    """One row for each analysed layer of each checkpoint of a trial, with the finding expected."""
    if not trial.layers.exists():
        return []
    epoch_of = {row["step"]: row["epoch"] for row in trial.epochs()}
    expected = dict(zip(plan.layers, plan.expected, strict=True))
    rows = []
    for folder in sorted(trial.layers.iterdir(), key=lambda path: int(path.name)):
        if (folder / "layers.json").exists():
            step = int(folder.name)
            common = {"trial_id": plan.trial_id, "step": step, "epoch": epoch_of.get(step)}
            rows += [
                row | common | {"expected": expected.get(row["layer"])} for row in read_json(folder / "layers.json")
            ]
    return rows


def trial_row(plan: Plan, status: Status) -> Row:
    """A trial's row: what it is and how it stands."""
    spec = plan.spec
    return {
        "trial_id": plan.trial_id,
        "architecture": spec.architecture,
        "intervention": spec.intervention,
        "data": spec.data.name,
        "seed": spec.init_seed,
        "epochs": spec.recipe.epochs,
        "parameters": plan.parameters,
        **{name: getattr(status, name) for name in COLUMNS["trials"] if hasattr(status, name)},
    }


def _rows_of(trial: TrialDir, plan: Plan, status: Status) -> Rows:
    layers = layer_rows(trial, plan)
    return Rows(
        trials=[trial_row(plan, status)],
        epochs=[{"trial_id": plan.trial_id} | row for row in trial.epochs()],
        layers=layers,
        neurons=[_neurons(trial, row) for row in layers if row["error"] is None],
    )


def _neurons(trial: TrialDir, row: Row) -> pd.DataFrame:
    path: UPath = trial.layers / str(row["step"]) / f"{row['layer']}.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in ("horizontal", "vertical")}
    facts = {"trial_id": trial.trial_id, "step": row["step"], "layer": row["layer"]}
    frame = pd.DataFrame(facts | {"neuron": np.arange(len(columns["horizontal"]))} | columns)
    return frame.astype(COLUMNS["neurons"])


def _frame(name: TableName, rows: Iterable[Row]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS[name])).astype(COLUMNS[name])


def _write(folder: UPath, name: TableName, frame: pd.DataFrame) -> None:
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    write_bytes(folder / f"{name}.parquet", buffer.getvalue())
