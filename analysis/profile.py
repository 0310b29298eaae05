"""What else a layer's weights show: which row carries which factor, how heavy the middle is, how lopsided the kernel.

Axis letters: `n` neurons, `c` input channels, `y x` kernel rows and columns, `f` NMF factors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class KernelShape:
    """How a layer's weights are spread over the kernel.

    `middle_row`, `middle_column`: squared norm of the weights in the middle row (in an even kernel, the two middle
    ones), relative to an even spread: 1 is even, above 1 a heavy middle; the mean over neurons that are not zero.
    `asymmetry_top_bottom`, `asymmetry_left_right`: sum |M - M mirrored| / (2 sum M) of the mean kernel
    M[y, x] = mean over n, c of |W|: 0 is symmetric, 1 has all weight on one side.

    Source: ours. A footnote of Petrov et al. (Distill 2021) mentions the middle band's weight; mean kernels become
    lopsided where padding is uneven (Alsallakh et al., "Mind the Pad", ICLR 2021, figure 6).
    """

    middle_row: float
    middle_column: float
    asymmetry_top_bottom: float
    asymmetry_left_right: float


def row_profile(reduced: Num[np.ndarray, "n y x f"]) -> Float[np.ndarray, "y f"]:
    """Which row carries which factor: each row's share of a factor, averaged over neurons.

    q[n, y, f] = sum over x of r / sum over y, x of r; each column of the result sums to 1. Neurons in which a factor is
    zero don't count for it; a factor that is zero in all neurons has a profile of zeros.
    """
    by_row = np.asarray(reduced, dtype=np.float64).sum(axis=2)
    whole = by_row.sum(axis=1, keepdims=True)
    shares = np.divide(by_row, whole, out=np.zeros_like(by_row), where=whole > 0)
    return shares.sum(axis=0) / np.maximum((whole > 0).sum(axis=0), 1)


def column_profile(reduced: Num[np.ndarray, "n y x f"]) -> Float[np.ndarray, "x f"]:
    """`row_profile` for columns."""
    return row_profile(np.swapaxes(reduced, 1, 2))


def kernel_shape(weights: Num[Tensor, "n c y x"]) -> KernelShape:
    """How the weights are spread over the kernel; an all-zero layer counts as even and symmetric."""
    w = weights.detach().to(torch.float32)
    squares = torch.linalg.vector_norm(w, dim=1, dtype=torch.float64).square().cpu().numpy()
    mean = w.abs().sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
    return KernelShape(
        middle_row=_middle(squares.sum(axis=2)),
        middle_column=_middle(squares.sum(axis=1)),
        asymmetry_top_bottom=_asymmetry(mean, mean[::-1]),
        asymmetry_left_right=_asymmetry(mean, mean[:, ::-1]),
    )


def _middle(squares: Float[np.ndarray, "n k"]) -> float:
    k = squares.shape[1]
    middle = squares[:, (k - 1) // 2 : k // 2 + 1]
    alive = squares.sum(axis=1) > 0
    if not alive.any():
        return 1.0
    shares = middle.sum(axis=1)[alive] / squares.sum(axis=1)[alive]
    return float(shares.mean() * k / middle.shape[1])


def _asymmetry(kernel: Float[np.ndarray, "y x"], mirrored: Float[np.ndarray, "y x"]) -> float:
    total = kernel.sum()
    return float(np.abs(kernel - mirrored).sum() / (2 * total)) if total > 0 else 0.0
