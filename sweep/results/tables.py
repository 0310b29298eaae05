"""Read the results of a sweep: tables, pictures' data and errors.

Needs neither torch nor Ray, so the dashboard and reports start fast and run anywhere.
The tables are written by `sweep.results.compact`; a table that does not exist yet reads as empty, with its columns.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, Literal, NoReturn
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812  # its own name says nothing

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile
from upath import UPath

from analysis.write import arrays_file, write_bytes
from sweep.store.files import entry_version
from sweep.store.sweep_dir import SweepDir

# NumPy reads an array's header with ast.literal_eval. In CPython 3.11 that fails now and then if two threads are in it,
# with "SystemError: AST constructor recursion depth mismatch" (python/cpython#106905).
_DECODING = Lock()

Row = dict[str, Any]
"""A row of a table by the names of its columns."""
TableName = Literal["trials", "epochs", "layers", "neurons", "clusters", "probes", "ablations", "examples"]

COLUMNS: dict[TableName, dict[str, str]] = {
    "trials": {
        "trial_id": "string", "architecture": "string", "intervention": "string", "data": "string",
        "seed": "Int64", "status": "string", "reason": "string", "attempts": "Int64", "error": "string",
        "host": "string", "epoch": "Int64", "epochs": "Int64", "step": "Int64", "steps": "Int64",
        "val_accuracy": "Float64", "wall_s": "Float64", "parameters": "Int64", "heartbeat_at": "Float64",
        "code_version": "string", "torch_version": "string", "settled": "boolean", "data_key": "string",
        "recipe_key": "string", "device": "string", "node_type": "string", "gpus": "Float64", "cpus": "Int64",
        "images": "Int64", "gpu_hours": "Float64", "cpu_hours": "Float64", "flip": "string", "primary": "string",
    },
    "epochs": {
        "trial_id": "string", "epoch": "Int64", "step": "Int64", "train_loss": "Float64",
        "train_accuracy": "Float64", "val_loss": "Float64", "val_accuracy": "Float64",
        "val_top5_accuracy": "Float64", "learning_rate": "Float64", "wall_s": "Float64", "images_per_s": "Float64",
        "wait_s": "Float64", "compute_s": "Float64", "save_s": "Float64", "gpu_mib": "Float64",
    },
    "layers": {
        "trial_id": "string", "step": "Int64", "epoch": "Float64", "layer": "string", "position": "Int64",
        "neurons": "Int64", "horizontal": "Float64", "horizontal_low": "Float64", "horizontal_high": "Float64",
        "vertical": "Float64", "vertical_low": "Float64", "vertical_high": "Float64", "verdict": "string",
        "expected": "string", "null_horizontal_mean": "Float64", "null_horizontal_high": "Float64",
        "null_vertical_mean": "Float64", "null_vertical_high": "Float64", "dead": "Int64", "zeros": "Int64",
        "single_tap": "Int64", "middle_row": "Float64", "middle_column": "Float64", "asymmetry_top_bottom": "Float64",
        "asymmetry_left_right": "Float64", "row_profile": "string", "column_profile": "string", "residual": "Float64",
        "analysis_wall_s": "Float64", "error": "string", "null_turned_mean": "Float64", "null_turned_high": "Float64",
        "reliability": "Float64",
    },
    "neurons": {
        "trial_id": "string", "step": "Int64", "layer": "string", "neuron": "Int64",
        "horizontal": "Float64", "vertical": "Float64",
    },
    "clusters": {
        "trial_id": "string", "step": "Int64", "layer": "string", "position": "Int64", "neurons": "Int64",
        "kernel": "string", "normalisation": "string", "k": "Int64", "cluster": "Int64", "label": "string",
        "centre_horizontal": "Float64", "centre_vertical": "Float64", "neurons_horizontal": "Float64",
        "neurons_vertical": "Float64", "inertia": "Float64", "percent": "Float64",
    },
    "probes": {
        "trial_id": "string", "step": "Int64", "layer": "string", "row_r2": "Float64", "column_r2": "Float64",
        "images": "Int64", "null_input_horizontal": "Float64", "null_input_vertical": "Float64",
    },
    "ablations": {
        "trial_id": "string", "step": "Int64", "layer": "string", "change": "string", "accuracy": "Float64",
        "recalibrated_accuracy": "Float64", "images": "Int64",
    },
    "examples": {
        "trial_id": "string", "step": "Int64", "layer": "string", "neuron": "Int64", "images": "Int64",
        "activations": "string", "image_numbers": "string", "positions": "string", "windows": "string",
    },
}  # fmt: skip
"""Columns and their pandas types. `status` is pending, running, finished, failed or excluded; `reason` says why an
excluded cell makes no sense or a trial was interrupted; `error` is the last line of the traceback; `position` 1 is the
last conv, higher numbers than the final convs' are other convs, which have no `expected`; `dead` neurons show no
variation over positions, `zeros` among them have no weights; `single_tap` ones have weights at one position alone;
`row_profile` is JSON [ky][3], the share of each factor in each row, `column_profile` [kx][3] (docs/score.md explains
them all); times ending in `_at` are seconds since 1970; `settled` trials are finished and analysed: their rows no
longer change; `data_key` and `recipe_key` are equal for equal content; `gpus` and `cpus` are what the trial occupies or
will, `images` those of all its epochs, `gpu_hours` what its training has taken so far, and `cpu_hours` where it had no
GPU; `flip` is the data set's option, missing where it is the usual one, `primary` the direction of the primary
endpoint. `clusters` has a row for each layer, k and cluster: the `percent` of the layer's neurons in it, what the
cluster's centre shows, and the mean of its neurons' own scores. `probes`: R^2 of absolute position read from a map;
`map` is the last one; `null_input_` what kernels made of the layer's own inputs score. `null_turned_` is the same in
both directions; missing in older tables, as is `reliability`. `ablations`: validation accuracy with a conv's kernels
changed, as they are and after batch norm has taken its statistics anew. `examples` has a row for each neuron, and in it
JSON lists of the validation images, of so many `images`, that it responds to most, the strongest first: `activations`
of the conv's output, `image_numbers` among all validation images, `positions` [row, column] in the map, and the
`windows` [top, left, bottom, right] of the image that these see, in pixels, which may reach beyond its border."""

DAMAGE = (
    ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, AssertionError, NotImplementedError,
    MemoryError, RecursionError, BadZipFile, ZlibError,
)  # fmt: skip
"""What pyarrow, pandas and numpy raise for bytes that aren't a table or array, once the storage has returned them."""
_ROW_GROUP = 20_000  # rows that are decoded at a time: a trial's lie in one group or two
_CURES = {
    "clusters": "sweep report",
    "probes": "sweep probe",
    "ablations": "sweep ablate",
    "examples": "sweep examples",
}


class DamagedTableError(ValueError):
    """A results table is not as it was written; all of them can be rewritten from the trials' files."""


@dataclass(frozen=True)
class ReducedLayer:
    """One analysed layer: `reduced` float32[n, ky, kx, 3], `order` int[n] by similarity, scores float32[n]."""

    reduced: np.ndarray
    order: np.ndarray
    horizontal: np.ndarray
    vertical: np.ndarray


def read_table(
    sweep: UPath,
    name: TableName,
    columns: Sequence[str] | None = None,
    trial_id: str | None = None,
    *,
    categorical: bool = False,
) -> pd.DataFrame:
    """One compacted table of a sweep as a frame with the columns of `COLUMNS`, or some of them, of one trial or all.

    `categorical` ids of trials are half of the memory of a table with many rows of each.

    Raises:
        DamagedTableError: it can't be read; the message says which command rewrites it.
    """
    types = COLUMNS[name] if columns is None else {column: COLUMNS[name][column] for column in columns}
    types = types | {"trial_id": "category"} if categorical else types
    return read_parquet(SweepDir(sweep).table(name), types, f"{_CURES.get(name, 'sweep resume')} {sweep}", trial_id)


def read_parquet(path: UPath, types: Mapping[str, str], command: str, trial_id: str | None = None) -> pd.DataFrame:
    """A table's file as a frame with columns of these pandas types; `command` rewrites the file.

    Raises:
        DamagedTableError: it can't be read.
    """
    if not path.exists():
        return _empty(types)
    data = path.read_bytes()
    try:
        file = _opened(data, [column for column, dtype in types.items() if dtype == "category"])
        written = _written(file, types)
        table = file.read(written, use_threads=False) if trial_id is None else _of_trial(file, written, trial_id)
        return _frame(table, types)
    except DAMAGE as error:
        _refuse(path, error, command)


def read_newest(sweep: UPath, columns: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Of the table `layers`, the rows of each trial's newest analysed checkpoint, and how many each trial has.

    Other rows are dropped as they are decoded: they are most of a large sweep's memory.

    Raises:
        DamagedTableError: as `read_table`.
    """
    types, path = {column: COLUMNS["layers"][column] for column in columns}, SweepDir(sweep).table("layers")
    if not path.exists():
        return _empty(types), pd.Series(dtype=int)
    data = path.read_bytes()
    try:
        file = _opened(data, ["trial_id"])
        written, (ids, trials, steps) = _written(file, types), _keys(file)
        newest = np.full(len(ids), -1, dtype=np.int64)
        np.maximum.at(newest, trials, steps)
        kept, begin = [], 0
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, written, use_threads=False)
            rows = slice(begin, begin := begin + len(group))
            kept.append(group.filter(pa.array(steps[rows] == newest[trials[rows]])))
        each = int(steps.max(initial=0)) + 2
        checkpoints = np.unique(trials * each + steps + 1)  # of a layer each, a row
        analysed = np.bincount(checkpoints // each, minlength=len(ids))
        table = pa.concat_tables(kept) if kept else file.schema_arrow.empty_table().select(written)
        return _frame(table, types), pd.Series(analysed, index=ids)
    except DAMAGE as error:
        _refuse(path, error, f"sweep resume {sweep}")


def table_versions(sweep: UPath) -> dict[str, str]:
    """What changes when a table is rewritten, by the tables' names; those that don't exist are left out.

    However many trials there are, this takes one request to the storage.
    """
    folder = SweepDir(sweep).results
    try:
        entries = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    return {PurePosixPath(entry["name"]).stem: entry_version(entry) for entry in entries if entry["type"] == "file"}


def _empty(types: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype=dtype) for column, dtype in types.items()})


def _opened(data: bytes, categories: Sequence[str]) -> ParquetFile:
    """A table's file, from which some columns of text are read as categories.

    Whoever reads it uses one thread: more take longer, each in memory of its own.
    """
    return ParquetFile(pa.BufferReader(data), read_dictionary=categories, page_checksum_verification=True)


def _written(file: ParquetFile, types: Mapping[str, str]) -> list[str]:
    """The columns that a file has: older versions wrote fewer."""
    names = set(file.schema_arrow.names)
    return [column for column in types if column in names]


def _frame(table: pa.Table, types: Mapping[str, str]) -> pd.DataFrame:
    return table.to_pandas(use_threads=False).reindex(columns=list(types)).astype(types)


def _keys(file: ParquetFile) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The ids of a table's trials; each row's trial, as its place among them, and step."""
    rows = file.read(["trial_id", "step"], use_threads=False).combine_chunks()
    ids = rows["trial_id"].combine_chunks()
    return ids.dictionary.to_pylist(), ids.indices.to_numpy().astype(np.int64), rows["step"].fill_null(-1).to_numpy()


def _of_trial(file: ParquetFile, columns: Sequence[str], trial_id: str) -> pa.Table:
    """One trial's rows; groups of rows that can't hold any are not decoded."""
    place = file.schema_arrow.names.index("trial_id")
    groups = [file.metadata.row_group(number).column(place).statistics for number in range(file.num_row_groups)]
    may = [n for n, s in enumerate(groups) if s is None or not s.has_min_max or s.min <= trial_id <= s.max]
    table = file.read_row_groups(may, sorted({*columns, "trial_id"}))
    return table.filter(pc.equal(table["trial_id"], trial_id)).select(columns)


def _refuse(path: UPath, error: BaseException, command: str) -> NoReturn:
    said = " ".join(str(error).split()) or type(error).__name__
    raise DamagedTableError(f"{path} is damaged ({said[:200]}); `{command}` rewrites it") from error


def table_of(name: TableName, rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a table with the columns of `COLUMNS`."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS[name])).astype(COLUMNS[name])


def write_table(sweep: UPath, name: TableName, table: pd.DataFrame) -> None:
    """Write one table of a sweep, as a whole."""
    write_bytes(SweepDir(sweep).table(name), parquet(table))


def parquet(table: pd.DataFrame) -> bytes:
    """A table as a Parquet file, with checksums, so that a flipped byte is noticed."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False, write_page_checksum=True, row_group_size=_ROW_GROUP)
    return buffer.getvalue()


def read_reduced(sweep: UPath, trial_id: str, step: int, layer: str) -> ReducedLayer | None:
    """The reduced weights of one analysed layer, or None where it was not analysed or its file is damaged."""
    return read_arrays(SweepDir(sweep).trial(trial_id).layers / str(step), layer)


def read_arrays(folder: UPath, layer: str) -> ReducedLayer | None:
    """The reduced weights of a layer whose results are in a folder, or None where they are missing or damaged."""
    path = arrays_file(folder, layer)
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        arrays = decoded(data, ("reduced", "order", "horizontal", "vertical"))
        return ReducedLayer(**arrays | {"reduced": arrays["reduced"].astype(np.float32)})
    except DAMAGE:  # `sweep analyze SWEEP` rewrites it
        return None


def decoded(data: bytes, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those arrays of an .npz file's bytes that are in it, by name.

    Raises:
        DAMAGE: any of these, if the bytes are no such file.
    """
    with _DECODING, np.load(BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names if name in arrays.files}


def read_centres(sweep: UPath, k: int) -> np.ndarray | None:
    """The centres of the k clusters of the table `clusters`, float[k, ky, kx, 3], or None where there are none."""
    return read_clusters_array(sweep, str(k))


def read_clusters_array(sweep: UPath, name: str) -> np.ndarray | None:
    """One array of the file that holds the centres of the clusters, or None where there is none.

    Raises:
        DamagedTableError: the file can't be read; the message says which command rewrites it.
    """
    path = SweepDir(sweep).centres
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        return decoded(data, [name]).get(name)
    except DAMAGE as error:
        _refuse(path, error, f"sweep report {sweep}")


def plain_records(frame: pd.DataFrame) -> list[Row]:
    """A frame's rows by the names of its columns, with None where a value is missing."""
    rows: list[Row] = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    return rows


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
