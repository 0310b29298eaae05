"""Analyse the layers of a checkpoint: weights in, scores and reduced weights out.

Axis letters: `n` neurons, `y x` kernel rows and columns.
"""

import difflib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import Float, Int
from upath import UPath

from analysis.banding import BandScores, Verdict, band_scores, neuron_scores, sort_neurons, verdict
from analysis.read import AnyPath, ConvWeight, final_convs, spatial_convs
from analysis.reduce import Reduction, reduce_layer

RESULTS = "layers.json"
Row = dict[str, Any]

_SCORES = (
    "neurons", "dead", "horizontal", "horizontal_low", "horizontal_high", "vertical", "vertical_low", "vertical_high",
    "null_horizontal_mean", "null_horizontal_high", "null_vertical_mean", "null_vertical_high",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """One convolution: its scores and reduced weights, or the reason why it was skipped."""

    layer: str
    shape: tuple[int, ...]
    skipped: str | None = None
    scores: BandScores | None = None
    verdict: Verdict | None = None
    reduction: Reduction | None = None
    order: Int[np.ndarray, " n"] | None = None


def analyze_file(path: AnyPath, layers: Sequence[str] | None = None) -> list[LayerResult]:
    """Score the spatial convolutions of a checkpoint, all or those named.

    Raises:
        ValueError: the file can't be read, or has no layer of a given name.
    """
    convs = spatial_convs(path)
    return [_analyze(conv) for conv in (convs if layers is None else _named(convs, layers))]


def analyze_checkpoint(model_file: AnyPath, out_dir: AnyPath) -> list[Row]:
    """Analyse the final convs that a checkpoint names; write their arrays and, last, `layers.json` into `out_dir`.

    Whatever goes wrong is told in the rows: a layer that fails has an `error` and no scores.
    """
    folder = UPath(out_dir)
    try:
        names = final_convs(model_file)
        convs = spatial_convs(model_file)
        chosen = convs if names is None else _named(convs, names)
    except (ValueError, OSError) as error:
        rows = [failed_row("", 1, error)]
    else:
        rows = [_row(folder, conv, position) for position, conv in enumerate(chosen, start=1)]
    _write(folder / RESULTS, (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())
    return rows


def failed_row(layer: str, position: int, error: Exception) -> Row:
    """The row of a layer whose analysis failed."""
    empty = dict.fromkeys((*_SCORES, "verdict", "residual", "analysis_wall_s"))
    return {"layer": layer, "position": position} | empty | {"error": f"{type(error).__name__}: {error}"}


def _row(folder: UPath, conv: ConvWeight, position: int) -> Row:
    began = time.perf_counter()
    try:
        result = _analyze(conv)
        if result.scores is None or result.reduction is None:
            return failed_row(conv.layer, position, ValueError(f"not scored: {result.skipped}"))
        _write_arrays(folder / f"{conv.layer}.npz", result)
    except Exception as error:  # noqa: BLE001  # one bad layer must not stop the others; its row tells
        return failed_row(conv.layer, position, error)
    scores = asdict(result.scores)
    return {
        "layer": conv.layer,
        "position": position,
        **{name: scores[name] for name in _SCORES},
        "verdict": result.verdict,
        "residual": result.reduction.residual,
        "analysis_wall_s": round(time.perf_counter() - began, 4),
        "error": None,
    }


def _analyze(conv: ConvWeight) -> LayerResult:
    shape = tuple(conv.weight.shape)
    if conv.skipped is not None:
        return LayerResult(layer=conv.layer, shape=shape, skipped=conv.skipped)
    reduction = reduce_layer(conv.weight)
    scores = band_scores(reduction.reduced)
    return LayerResult(
        layer=conv.layer,
        shape=shape,
        scores=scores,
        verdict=verdict(scores),
        reduction=reduction,
        order=sort_neurons(reduction.reduced),
    )


def _named(convs: Sequence[ConvWeight], names: Sequence[str]) -> list[ConvWeight]:
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
    _write(path, buffer.getvalue())


def _write(path: UPath, data: bytes) -> None:
    """Replace a file as a whole; an object store's put does so by itself."""
    if path.protocol not in ("", "file"):
        path.write_bytes(data)
        return
    target = Path(path.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    unfinished.write_bytes(data)
    unfinished.replace(target)
