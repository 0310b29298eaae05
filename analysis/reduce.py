"""Reduce a convolution's weights to three colours for each kernel position, as the article does.

Axis letters: `n` neurons, `c` input channels, `y x` kernel rows and columns,
`p` positions (y, x flattened), `f` factors.

Source: the authors' public notebook: X = [max(W, 0), max(-W, 0)] along the input channels, one rank-3 NMF per neuron.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from analysis.nmf import block_size, factorise

COLOURS = 3
_NOTHING = 1e-6  # of a neuron's squared norm: what decay leaves of unused weights

Method = Literal["per-neuron", "joint"]


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """Reduced weights and how well they stand for the weights.

    `residual`: squared norm of what three factors leave out, as a share of the weights' squared norm, over the layer.
    `zeros`: how many neurons have only zero weights; `single_tap`: how many others have weights at one position alone,
    such as a 1x1 kernel in the middle of a 3x3 one, and score 0 in either direction, whatever they do.
    `iterations`: those of the slowest neuron.
    """

    reduced: Float[np.ndarray, "n y x 3"]
    residual: float
    zeros: int
    single_tap: int
    iterations: int


def reduce_weights(weights: Num[Tensor, "n c y x"] | Num[np.ndarray, "n c y x"]) -> Float[np.ndarray, "n y x 3"]:
    """Reduced weights in [0, 1], each neuron divided by its own maximum, colours alike across neurons.

    Raises:
        ValueError: the weights don't have four axes, at least 2x2 positions and two input channels, or aren't finite.
    """
    return reduce_layer(weights).reduced


def reduce_layer(
    weights: Num[Tensor, "n c y x"] | Num[np.ndarray, "n c y x"], method: Method = "per-neuron", device: str = "cpu"
) -> Reduction:
    """`reduce_weights` with its diagnostics, by a named method, factorised on a device such as `cuda`."""
    return METHODS[method](_checked(weights).to(device))


def reduce_per_neuron(weights: Float[Tensor, "n c y x"]) -> Reduction:
    """Each neuron has its own NMF; X is built for a block of neurons at a time, which keeps memory low."""
    _, c, ky, kx = weights.shape
    size = block_size(ky * kx, 2 * c, weights.device)
    parts = [factorise(split_signs(block), COLOURS) for block in weights.split(size)]
    return _reduction(
        weights,
        torch.cat([part.w for part in parts]),
        torch.cat([part.objective for part in parts]),
        iterations=max(len(part.history) for part in parts),
    )


def reduce_jointly(weights: Float[Tensor, "n c y x"]) -> Reduction:
    """One NMF for all neurons together: all positions of all neurons share three factors.

    On trained networks the bands are far less clear than with one NMF per neuron; this is here for comparison.
    """
    n, _, ky, kx = weights.shape
    factors = factorise(split_signs(weights).reshape(1, n * ky * kx, -1), COLOURS)
    return _reduction(weights, factors.w.reshape(n, ky * kx, COLOURS), factors.objective, len(factors.history))


METHODS: dict[Method, Callable[[Float[Tensor, "n c y x"]], Reduction]] = {
    "per-neuron": reduce_per_neuron,
    "joint": reduce_jointly,
}


def split_signs(weights: Float[Tensor, "n c y x"]) -> Float[Tensor, "n p d"]:
    """Positions x features, with positive and negative parts side by side along the input channels (d = 2c)."""
    n, c, ky, kx = weights.shape
    flat = weights.permute(0, 2, 3, 1).reshape(n, ky * kx, c)
    # A factorisation must not be negative: excitation and inhibition become separate features.
    return torch.cat([flat.clamp(min=0), (-flat).clamp(min=0)], dim=2)


def align_colours(factors: Float[np.ndarray, "n y x 3"]) -> Float[np.ndarray, "n y x 3"]:
    """Order each neuron's factors so that a colour means the same in every neuron.

    Pools all n x 3 factor maps, each scaled by its neuron's maximum, and orders by the first principal component.
    Its sign is chosen so that the first colour is at the top, or, where maps vary more along x, at the left.
    """
    n, ky, kx, f = factors.shape
    maps = _per_neuron_maximum(factors).transpose(0, 3, 1, 2).reshape(n * f, ky * kx).astype(np.float64)
    centred = maps - maps.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending: the first principal component is the last column
    component = vectors[:, -1].reshape(ky, kx)
    down, right = _slope(component.mean(axis=1)), _slope(component.mean(axis=0))
    sign = 1.0 if (down if abs(down) >= abs(right) else right) >= 0 else -1.0
    coordinate = (centred @ vectors[:, -1] * sign).reshape(n, f)
    order = coordinate.argsort(axis=1, kind="stable")
    return np.take_along_axis(factors, order[:, None, None, :], axis=3)


def _reduction(
    weights: Float[Tensor, "n c y x"], w: Float[Tensor, "n p 3"], objective: Tensor, iterations: int
) -> Reduction:
    n, _, ky, kx = weights.shape
    factors = w.reshape(n, ky, kx, COLOURS).cpu().numpy()
    # In float64: squares of weights near 1e-20 would vanish in float32, and a neuron would count as zero.
    taps = torch.linalg.vector_norm(weights, dim=1, dtype=torch.float64).square().flatten(1)
    norms = taps.sum(dim=1)
    total = float(norms.sum())
    return Reduction(
        reduced=_per_neuron_maximum(align_colours(factors)),
        residual=float(objective.sum()) / total if total else 0.0,
        zeros=int((norms == 0).sum()),
        single_tap=int(((norms > 0) & (norms - taps.amax(dim=1) <= _NOTHING * norms)).sum()),
        iterations=iterations,
    )


def _per_neuron_maximum(factors: Float[np.ndarray, "n y x 3"]) -> Float[np.ndarray, "n y x 3"]:
    maximum = factors.max(axis=(1, 2, 3), keepdims=True)
    return factors / np.where(maximum > 0, maximum, 1)


def _slope(profile: np.ndarray) -> float:
    """How much a profile rises from its first to its last position."""
    return float(profile @ (np.arange(len(profile)) - (len(profile) - 1) / 2))


def _checked(weights: Tensor | np.ndarray) -> Float[Tensor, "n c y x"]:
    w = torch.as_tensor(weights)
    if w.is_complex():
        raise ValueError("weights are complex; pass their real and imaginary parts separately")
    w = w.detach().to(torch.float32)
    if w.ndim != 4 or w.numel() == 0:
        raise ValueError(f"conv weights must have the shape [n, c, ky, kx], not {list(w.shape)}")
    if min(w.shape[2:]) < 2:
        raise ValueError(f"a kernel of {w.shape[2]}x{w.shape[3]} has no bands; at least 2x2 is needed")
    if w.shape[1] < 2:
        raise ValueError("weights of one input channel have two features, too few for three factors")
    low, high = w.aminmax()
    if not (low > -torch.inf and high < torch.inf):
        bad = int((~w.isfinite()).sum())
        raise ValueError(
            f"{bad} of {w.numel()} weights are NaN or infinite; use a checkpoint from before training diverged"
        )
    return w
