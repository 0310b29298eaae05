"""The banding score of a layer's reduced weights, with its uncertainty.

Axis letters: `n` neurons, `y x` kernel rows and columns, `f` NMF factors.
T = sum over n,y,x,f of (r - mean over y,x)^2; R is the same sum for the row means (mean over x), C for the column
means (mean over y), both times the number of positions averaged. Row share = R/T, column share = C/T. Under a random
shuffle of positions the expected row share is (ky - 1)/(ky kx - 1). Score = (share - expected)/(1 - expected): 1 for
perfect bands, 0 for chance.

Source: ours; on the layers published by Petrov et al. (Distill 2021) a threshold of 2/3 gives the article's calls (the
tests have five of them).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Num

Verdict = Literal["horizontal", "vertical", "none"]
THRESHOLD = 2 / 3  # between the highest unbanded (0.63) and the lowest banded (0.71) of the 18 published layers
RELIABLE = 0.44
"""Planted perfect bands of at least this reliability reach the threshold (benchmarks/reliability.py)."""

# 200 shuffles in all. A round's shuffles share one gather over the weights, which costs most; with ten rounds their
# common part no longer shows in the 97.5th percentile.
_ROUNDS, _SHUFFLES_PER_ROUND = 10, 20
_LEVEL = 0.975
_EDGE = 1e-12  # a share nearer to 0 or 1 counts as this far from it: its logit stays finite


@dataclass(frozen=True, kw_only=True)
class BandScores:
    """Scores of one layer: 1 is perfect bands, 0 chance; negative where the other direction takes all variation.

    `_low`, `_high`: 95% interval over neurons. `null_`: mean and 97.5th percentile of the score when the
    positions of each neuron are shuffled. `dead` counts neurons without any variation over positions.
    """

    horizontal: float
    horizontal_low: float
    horizontal_high: float
    vertical: float
    vertical_low: float
    vertical_high: float
    null_horizontal_mean: float
    null_horizontal_high: float
    null_vertical_mean: float
    null_vertical_high: float
    neurons: int
    dead: int


@dataclass(frozen=True)
class Variation:
    """Per neuron: `total` T[n], `rows` R[n], `columns` C[n], 0 where nothing varies; the shares expected by chance."""

    total: Float[np.ndarray, " n"]
    rows: Float[np.ndarray, " n"]
    columns: Float[np.ndarray, " n"]
    expected_rows: float
    expected_columns: float


def band_scores(reduced: Num[np.ndarray, "n y x f"], seed: int = 0) -> BandScores:
    """Score a layer; the scale of each neuron and the order of its factors do not matter to the verdict's direction.

    A layer without any variation over positions scores 0. `seed` draws the shuffles.

    Raises:
        ValueError: the array does not have four axes, at least 2x2 positions and a neuron, or is not finite.
    """
    reduced = _checked(reduced)
    sums = variation(reduced)
    null_rows, null_columns = _null(reduced, sums, np.random.default_rng(seed))
    horizontal, horizontal_low, horizontal_high = _estimate(sums.rows, sums.total, sums.expected_rows)
    vertical, vertical_low, vertical_high = _estimate(sums.columns, sums.total, sums.expected_columns)
    return BandScores(
        horizontal=horizontal,
        horizontal_low=horizontal_low,
        horizontal_high=horizontal_high,
        vertical=vertical,
        vertical_low=vertical_low,
        vertical_high=vertical_high,
        null_horizontal_mean=float(null_rows.mean()),
        null_horizontal_high=float(np.quantile(null_rows, _LEVEL)),
        null_vertical_mean=float(null_columns.mean()),
        null_vertical_high=float(np.quantile(null_columns, _LEVEL)),
        neurons=len(reduced),
        dead=int((sums.total == 0).sum()),
    )


def share_with_interval(part: Float[np.ndarray, " n"], total: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """sum(part) / sum(total) with Student's t interval of its logit, whose standard error is the jackknife's.

    On the logit's scale a share near 0 or 1 is hardly skewed, and no end is impossible. A single neuron leaves
    everything possible.

    Source: Efron and Tibshirani 1993, chapter 11, for the jackknife; the kind of interval is ours, chosen by coverage
    and width where neurons are few (benchmarks/coverage.py).
    """
    from scipy.special import expit, logit, stdtrit  # a quarter of a second for pages that need only the threshold

    n, share = len(total), float(part.sum() / total.sum())
    if n == 1:
        return share, 0.0, 1.0
    rest = total.sum() - total
    without = np.divide(part.sum() - part, rest, out=np.full(n, share), where=rest > 0)
    logits = logit(without.clip(_EDGE, 1 - _EDGE))
    error = np.sqrt((n - 1) / n * np.square(logits - logits.mean()).sum())
    middle, half = logit(min(max(share, _EDGE), 1 - _EDGE)), stdtrit(n - 1, _LEVEL) * error
    return share, min(float(expit(middle - half)), share), max(float(expit(middle + half)), share)


def verdict(scores: BandScores) -> Verdict:
    """What a layer shows: the direction whose score is at least 2/3, else none.

    They can't both reach it: row and column shares add up to at most 1.
    """
    if scores.horizontal >= THRESHOLD:
        return "horizontal"
    return "vertical" if scores.vertical >= THRESHOLD else "none"


def too_noisy(verdict: str | None, reliability: float | None) -> bool:
    """Whether a layer's verdict is none although noise would hide even perfect bands.

    `reliability` is that of `analysis.reliability`; where it is missing, the verdict stands.
    """
    # Tables of older versions have no reliability: None, NaN or pandas' NA.
    return verdict == "none" and isinstance(reliability, float) and bool(reliability < RELIABLE)


def neuron_scores(
    reduced: Num[np.ndarray, "n y x f"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Horizontal and vertical score of each neuron alone; 0 for a neuron without variation."""
    sums = variation(_checked(reduced))
    return (
        _score(sums.rows, sums.total, sums.expected_rows),
        _score(sums.columns, sums.total, sums.expected_columns),
    )


def variation(reduced: Float[np.ndarray, "n y x f"]) -> Variation:
    """What varies over the positions of each neuron, in all and by rows and columns."""
    _, ky, kx, _ = reduced.shape
    centred = reduced - reduced.mean(axis=(1, 2), keepdims=True)
    total = np.square(centred).sum(axis=(1, 2, 3))
    alive = total > 1e-8 * np.square(reduced).sum(axis=(1, 2, 3))  # anything below is rounding in a constant neuron
    return Variation(
        total=np.where(alive, total, 0),
        rows=np.where(alive, np.square(centred.mean(axis=2)).sum(axis=(1, 2)) * kx, 0),
        columns=np.where(alive, np.square(centred.mean(axis=1)).sum(axis=(1, 2)) * ky, 0),
        expected_rows=(ky - 1) / (ky * kx - 1),
        expected_columns=(kx - 1) / (ky * kx - 1),
    )


def sort_neurons(reduced: Num[np.ndarray, "n y x f"]) -> Int[np.ndarray, " n"]:
    """An order in which neighbours look alike: along the first principal component of the reduced weights.

    Source: the article sorts by a one-dimensional embedding; one principal component is ours.
    """
    flat = np.asarray(reduced, dtype=np.float64).reshape(len(reduced), -1)
    centred = flat - flat.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    first = vectors[:, -1]
    first = first * np.sign(first[np.abs(first).argmax()])  # an eigenvector's sign is arbitrary: fix it
    return np.argsort(centred @ first, kind="stable").astype(np.int32)


def _checked(reduced: Num[np.ndarray, "..."]) -> Float[np.ndarray, "n y x f"]:
    array = np.asarray(reduced, dtype=np.float64)  # float16, as it is stored, would lose the sums of squares
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"reduced weights must have the shape [n, ky, kx, factors], not {list(array.shape)}")
    if min(array.shape[1:3]) < 2:
        raise ValueError(f"a kernel of {array.shape[1]}x{array.shape[2]} has no bands; at least 2x2 is needed")
    if not np.isfinite(array).all():
        raise ValueError("reduced weights must be finite; did training diverge?")
    return array


def _score(part: Float[np.ndarray, " b"], total: Float[np.ndarray, " b"], expected: float) -> Float[np.ndarray, " b"]:
    # Nothing varies where the total is 0: the share is what chance gives, and the score 0.
    share = np.divide(part, total, out=np.full_like(total, expected), where=total > 0)
    return (share - expected) / (1 - expected)


def _estimate(
    part: Float[np.ndarray, " n"], total: Float[np.ndarray, " n"], expected: float
) -> tuple[float, float, float]:
    """A layer's score, and its 95% interval over the neurons that vary."""
    alive = total > 0
    shares = share_with_interval(part[alive], total[alive]) if alive.any() else (expected,) * 3
    score, low, high = ((share - expected) / (1 - expected) for share in shares)
    return score, low, high


def _null(
    reduced: Float[np.ndarray, "n y x f"], sums: Variation, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """Scores of the layer with the positions of each neuron shuffled; the total variation stays the same.

    A shuffle is an order for each neuron, followed by one that all neurons share: together they are uniform and
    independent between neurons, and a round of shuffles with the same own orders is one matrix product.
    """
    n, ky, kx, f = reduced.shape
    centred = (reduced - reduced.mean(axis=(1, 2), keepdims=True)).reshape(n, ky * kx, f)
    rows, columns = [], []
    for _ in range(_ROUNDS):
        own = rng.random((n, ky * kx)).argsort(axis=1)
        values = np.take_along_axis(centred, own[:, :, None], axis=1).transpose(1, 0, 2).reshape(ky * kx, n * f)
        shuffled = rng.random((_SHUFFLES_PER_ROUND, ky * kx)).argsort(axis=1)
        rows.append(_squared_sums(shuffled // kx, ky, values) / kx)
        columns.append(_squared_sums(shuffled % kx, kx, values) / ky)
    total = np.full(_ROUNDS * _SHUFFLES_PER_ROUND, sums.total.sum())
    return (
        _score(np.concatenate(rows), total, sums.expected_rows),
        _score(np.concatenate(columns), total, sums.expected_columns),
    )


def _squared_sums(
    line: Int[np.ndarray, "s p"], lines: int, values: Float[np.ndarray, "p m"]
) -> Float[np.ndarray, " s"]:
    """For each shuffle, the sum of the squares of the sums over each line (row or column) of positions."""
    members = (line[:, None, :] == np.arange(lines)[None, :, None]).astype(np.float64)
    sums = members.reshape(-1, line.shape[1]) @ values
    return np.einsum("lm,lm->l", sums, sums).reshape(len(line), -1).sum(axis=1)
