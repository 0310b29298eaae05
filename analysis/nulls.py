"""What a layer would score if its kernels had no direction of their own: nulls beside that of shuffled positions.

Axis letters: `b` images, `c` channels, `h w` map rows and columns, `n` neurons, `y x` kernel rows and columns, `k`
windows, `s` draws, `f` NMF factors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from analysis.banding import BandScores, band_scores, variation
from analysis.reduce import reduce_weights

_DRAWS = 1000
_LEVEL = 0.975
_WINDOWS = 4096  # more change the score less than another seed does
_BYTES = 256 * 2**20  # of windows held at a time


@dataclass(frozen=True, kw_only=True)
class TurnedNull:
    """Mean and 97.5th percentile of the score, the same in both directions, with each neuron's kernel turned by a
    random multiple of 90 degrees and mirrored at random; None for kernels that are not square."""

    null_turned_mean: float | None
    null_turned_high: float | None


def turned_null(reduced: Num[np.ndarray, "n y x f"], seed: int = 0) -> TurnedNull:
    """What smooth kernels score that have no direction in common: it keeps each neuron's shape.

    Mirroring and half turns change no neuron's share of rows or columns, and a quarter turn swaps them. So a draw needs
    only one coin for each neuron. A kernel that isn't square can be mirrored and turned by 180 degrees at most: its
    null would be its score, which says nothing.

    Raises:
        ValueError: the array can't be scored.
    """
    sums = variation(reduced)
    if reduced.shape[1] != reduced.shape[2]:
        return TurnedNull(null_turned_mean=None, null_turned_high=None)
    total = float(sums.total.sum())
    if total == 0:
        return TurnedNull(null_turned_mean=0.0, null_turned_high=0.0)
    middle, half = (sums.rows + sums.columns) / 2, (sums.rows - sums.columns) / 2
    coins = np.random.default_rng(seed).integers(2, size=(_DRAWS, len(half))) * 2 - 1
    shares = np.array([middle.sum(), np.quantile(middle.sum() + coins @ half, _LEVEL)]) / total
    mean, high = ((shares - sums.expected_rows) / (1 - sums.expected_rows)).tolist()
    return TurnedNull(null_turned_mean=mean, null_turned_high=high)


def input_null(
    inputs: Float[Tensor, "b c h w"], kernel: tuple[int, int], neurons: int = 128, seed: int = 0
) -> BandScores:
    """Scores of kernels that are random combinations of windows of a layer's inputs: what the data make likely.

    Training adds windows of the inputs to a kernel, each times a number. So a layer whose inputs vary more from row to
    row than from column to column starts out with a score that no head has caused. Each kernel sums up to 4,096
    windows, drawn at random without padding, with weights from a normal distribution.

    Raises:
        ValueError: the maps are smaller than the kernel, or all windows are zero.
    """
    generator = torch.Generator().manual_seed(seed)
    windows = _windows(inputs.detach().cpu().float(), kernel, generator)
    kernels = torch.randn((neurons, len(windows)), generator=generator) @ windows.flatten(1)
    if not kernels.any():
        raise ValueError("all windows of the layer's inputs are zero; take images on which it is active")
    return band_scores(reduce_weights(kernels.reshape(neurons, *windows.shape[1:])), seed)


def _windows(inputs: Float[Tensor, "b c h w"], kernel: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random windows [k, c, y, x], each position of each image at most once."""
    b, c, h, w = inputs.shape
    ky, kx = kernel
    if h < ky or w < kx:
        raise ValueError(f"a map of {h}x{w} has no windows of {ky}x{kx}; take larger images")
    views = inputs.unfold(2, ky, 1).unfold(3, kx, 1)  # b c rows columns y x, without a copy
    rows, columns = views.shape[2:4]
    most = min(_WINDOWS, max(1, _BYTES // (4 * c * ky * kx)))
    chosen = torch.randperm(b * rows * columns, generator=generator)[:most]
    image, position = chosen // (rows * columns), chosen % (rows * columns)
    return views[image, :, position // columns, position % columns]
