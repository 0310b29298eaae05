"""Analyse the layers of a checkpoint: weights in, scores and reduced weights out.

Axis letters: `n` neurons, `y x` kernel rows and columns.
"""

import difflib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits
from upath import UPath

from analysis.banding import BandScores, Verdict, band_scores, neuron_scores, sort_neurons, verdict
from analysis.nulls import TurnedNull, turned_null
from analysis.profile import KernelShape, column_profile, kernel_shape, row_profile
from analysis.readers.conv import Conv
from analysis.readers.convs import final_convs, spatial_convs
from analysis.readers.entry import AnyPath
from analysis.reduce import Method, Reduction, reduce_layer
from analysis.reliability import reliability
from analysis.write import RESULTS, arrays_names, is_local, is_outage, read_bytes, remove_unfinished, write_bytes

Row = dict[str, Any]
Choice = Literal["final", "all"]
_SMALL = 16 * 2**20  # bytes

_SCORES = (
    "neurons", "dead", "horizontal", "horizontal_low", "horizontal_high", "vertical", "vertical_low", "vertical_high",
    "null_horizontal_mean", "null_horizontal_high", "null_vertical_mean", "null_vertical_high",
)  # fmt: skip
_KERNEL = ("middle_row", "middle_column", "asymmetry_top_bottom", "asymmetry_left_right")
_REDUCTION = ("residual", "zeros", "single_tap", "iterations")
_NOISE = ("null_turned_mean", "null_turned_high", "reliability")
_REST = ("verdict", "row_profile", "column_profile", "analysis_wall_s")


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """One convolution: its scores and reduced weights, or the reason why it was skipped."""

    layer: str
    shape: tuple[int, ...]
    groups: int | None
    skipped: str | None = None
    scores: BandScores | None = None
    turned: TurnedNull | None = None
    reliability: float | None = None
    verdict: Verdict | None = None
    reduction: Reduction | None = None
    kernel: KernelShape | None = None
    order: Int[np.ndarray, " n"] | None = None


def analyze_file(path: AnyPath, layers: Sequence[str] | None = None) -> list[LayerResult]:
    """Score the spatial convolutions of a checkpoint, all or those named: `sweep analyze` from Python.

    Raises:
        ValueError: the file can't be read, or has no layer of a given name.
    """
    return list(analyze_convs(chosen_convs(path, layers)))


def chosen_convs(path: AnyPath, layers: Sequence[str] | None) -> list[Conv]:
    """The convolutions of a checkpoint, all or those named.

    Raises:
        ValueError: the file can't be read, or has no layer of a given name.
    """
    convs = spatial_convs(path)
    return convs if layers is None else _named(convs, layers)


def analyze_convs(convs: Sequence[Conv], method: Method = "per-neuron", device: str = "cpu") -> Iterator[LayerResult]:
    """The results of convolutions in their order, as many at a time as there are cores, each on one thread.

    A layer that can't be analysed (NaN in its weights) gives a result with the reason.
    """
    with one_thread(), ThreadPoolExecutor(os.cpu_count() if device == "cpu" else 1) as pool:
        yield from pool.map(lambda conv: _analyze_or_tell(conv, method, device), convs)


def analyze_checkpoint(
    model_file: AnyPath, out_dir: AnyPath, layers: Choice = "final", device: str = "cpu"
) -> list[Row]:
    """Analyse convs of a checkpoint; write their arrays and, last, `layers.json` into `out_dir`.

    `final`: those that the checkpoint names (all that can be scored where it names none). `all`: also every other conv
    that can be scored, the last one first; their positions follow on.
    Whatever is wrong with a layer is reported in its row: it has an `error` and no scores.
    A checkpoint that has its results is not analysed again. At most one process may analyse it at a time.

    Raises:
        STORAGE_ERRORS: the storage is unavailable; nothing says that the checkpoint is analysed.
    """
    folder = UPath(out_dir)
    before = results_in(folder)
    if before is not None:
        return before
    remove_unfinished(folder)
    original = UPath(model_file)
    with _nearby(original) as file:
        rows = [_naming(original, file, row) for row in _rows(file, folder, layers, device)]
    _write_results(folder, rows)
    return rows


def analyze_chosen(convs: Sequence[Conv], out_dir: AnyPath, device: str = "cpu") -> list[Row]:
    """Analyse convs wherever their weights come from, and write what `analyze_checkpoint` does.

    Raises:
        STORAGE_ERRORS: the storage is unavailable.
    """
    folder = UPath(out_dir)
    rows = _rows_of(convs, folder, device)
    _write_results(folder, rows)
    return rows


def failed_row(layer: str, position: int, error: Exception) -> Row:
    """The row of a layer whose analysis failed."""
    empty = dict.fromkeys((*_SCORES, *_NOISE, *_KERNEL, *_REDUCTION, *_REST))
    return {"layer": layer, "position": position} | empty | {"error": f"{type(error).__name__}: {error}"}


def best_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for all linear algebra: the same bits everywhere, and many layers can be analysed at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def results_in(out_dir: AnyPath) -> list[Row] | None:
    """The rows that an earlier analysis has left in a folder, or None."""
    folder = UPath(out_dir)
    try:
        rows = json.loads(read_bytes(folder / RESULTS))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    whole = isinstance(rows, list) and all(isinstance(row, dict) and {"layer", "error"} <= row.keys() for row in rows)
    return rows if whole else None


@contextmanager
def _nearby(file: UPath) -> Iterator[UPath]:
    """A small file of an object store as a local copy, made in one request; any other file as it is.

    Readers ask for a file's parts one by one, so they spare a large one most of its bytes.
    """
    try:
        content = b"" if is_local(file) else read_bytes(file, _SMALL + 1)
    except FileNotFoundError:  # whoever reads it tells so
        content = b""
    if not 0 < len(content) <= _SMALL:
        yield file
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder, file.name)
        copy.write_bytes(content)
        yield UPath(copy)


def _naming(original: UPath, copy: UPath, row: Row) -> Row:
    """A row whose error names the file that was asked for."""
    return row | {"error": row["error"] and row["error"].replace(str(copy), str(original))}


def _rows(model_file: UPath, folder: UPath, layers: Choice, device: str) -> list[Row]:
    try:
        chosen = _chosen(model_file, layers)
    except Exception as error:
        if is_outage(error):
            raise
        return [failed_row("", 1, error)]  # whatever is wrong with the file
    return _rows_of(chosen, folder, device)


def _rows_of(chosen: Sequence[Conv], folder: UPath, device: str) -> list[Row]:
    with one_thread():
        names = arrays_names(conv.layer for conv in chosen)
        return [_row(folder / names[conv.layer], conv, i, device) for i, conv in enumerate(chosen, start=1)]


def _write_results(folder: UPath, rows: list[Row]) -> None:
    write_bytes(folder / RESULTS, (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())


def _chosen(model_file: AnyPath, layers: Choice) -> list[Conv]:
    names = final_convs(model_file)
    convs = spatial_convs(model_file)
    final = [] if names is None else _named(convs, names)
    if final and layers == "final":
        return final
    named = {conv.layer for conv in final}
    return final + [conv for conv in reversed(convs) if conv.layer not in named and conv.skipped is None]


def _row(arrays: UPath, conv: Conv, position: int, device: str) -> Row:
    began = time.perf_counter()
    try:
        result = _analyze(conv, "per-neuron", device)
        if result.scores is None or result.turned is None or result.reduction is None or result.kernel is None:
            return failed_row(conv.layer, position, ValueError(f"not scored: {result.skipped}"))
        _write_arrays(arrays, result)
    except Exception as error:
        if is_outage(error):
            raise
        return failed_row(conv.layer, position, error)  # one bad layer must not stop the others
    reduced = result.reduction.reduced
    row = {
        "layer": conv.layer,
        "position": position,
        **{name: getattr(result.scores, name) for name in _SCORES},
        **asdict(result.turned),
        "reliability": result.reliability,
        "verdict": result.verdict,
        **asdict(result.kernel),
        "row_profile": _compact_json(row_profile(reduced)),
        "column_profile": _compact_json(column_profile(reduced)),
        **{name: getattr(result.reduction, name) for name in _REDUCTION},
        "analysis_wall_s": round(time.perf_counter() - began, 4),
        "error": None,
    }
    endless = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return failed_row(conv.layer, position, ValueError(f"not finite: {', '.join(endless)}")) if endless else row


def _analyze_or_tell(conv: Conv, method: Method, device: str) -> LayerResult:
    try:
        return _analyze(conv, method, device)
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: kinds of tensors that PyTorch can't convert
        return LayerResult(layer=conv.layer, shape=conv.shape, groups=conv.groups, skipped=str(error))


def _analyze(conv: Conv, method: Method, device: str) -> LayerResult:
    if conv.skipped is not None:
        return LayerResult(layer=conv.layer, shape=conv.shape, groups=conv.groups, skipped=conv.skipped)
    weights = conv.read()
    reduction = reduce_layer(weights, method, device)
    scores = band_scores(reduction.reduced)
    return LayerResult(
        layer=conv.layer,
        shape=conv.shape,
        groups=conv.groups,
        scores=scores,
        turned=turned_null(reduction.reduced),
        reliability=reliability(torch.as_tensor(weights), device=device),
        verdict=verdict(scores),
        reduction=reduction,
        kernel=kernel_shape(weights),
        order=sort_neurons(reduction.reduced),
    )


def _compact_json(profile: Float[np.ndarray, "k f"]) -> str:
    return json.dumps(profile.round(4).tolist(), separators=(",", ":"))


def _named(convs: Sequence[Conv], names: Sequence[str]) -> list[Conv]:
    by_name = {conv.layer: conv for conv in convs}
    for name in names:
        if name not in by_name:
            nearest = difflib.get_close_matches(name, by_name, n=1, cutoff=0.0)[0]
            raise ValueError(f"no layer {name!r}; did you mean {nearest!r}? Layers: {', '.join(by_name)}")
    return [by_name[name] for name in names]


def _write_arrays(path: UPath, result: LayerResult) -> None:
    assert result.reduction is not None
    assert result.order is not None
    reduced: Float[np.ndarray, "n y x 3"] = result.reduction.reduced
    horizontal, vertical = neuron_scores(reduced)
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        reduced=reduced.astype(np.float16),
        order=result.order,
        horizontal=horizontal.astype(np.float32),
        vertical=vertical.astype(np.float32),
    )
    write_bytes(path, buffer.getvalue())
