"""How much of a layer's reduced weights is signal: do two halves of its input channels show the same?

Axis letters: `n` neurons, `c` input channels, `y x` kernel rows and columns, `p` positions (y, x flattened), `f`
factors.
"""

from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from analysis.reduce import COLOURS, reduce_layer

NEURONS = 64
"""At most this many neurons of a layer are looked at: of more, the halves would take as long as the layer."""
_ORDERS = [list(order) for order in permutations(range(COLOURS))]
_SHUFFLES = 4


def reliability(weights: Num[Tensor, "n c y x"], seed: int = 0, device: str = "cpu") -> float | None:
    """Agreement of the factor maps of even and odd input channels, beyond chance: 1 is all signal, 0 all noise.

    The halves are reduced each by itself. Their agreement r is the correlation over positions of all neurons' factor
    maps, in that order of each neuron's factors in which they agree best; r0 is the same with the positions of one half
    shuffled. The result is (r - r0) / (1 - r0), which may fall a little below 0. `seed` draws the shuffles. Missing for
    layers of fewer than four channels.

    Planted perfect bands of this reliability score alike whatever their kernel, channels and noise
    (benchmarks/reliability.py).

    Source: ours, after the split-half reliability of psychological tests (Spearman 1910, Brown 1910).

    Raises:
        ValueError: the weights can't be reduced.
    """
    n, c = weights.shape[:2]
    if c < 4:
        return None
    chosen = weights[torch.linspace(0, n - 1, min(n, NEURONS)).long()]
    first, second = (_maps(chosen[:, half::2], device) for half in (0, 1))
    draw = np.random.default_rng(seed)
    chance = float(np.mean([_agreement(first, _shuffled(second, draw)) for _ in range(_SHUFFLES)]))
    return (_agreement(first, second) - chance) / (1 - chance) if chance < 1 else 0.0


def _maps(weights: Num[Tensor, "n c y x"], device: str) -> Float[np.ndarray, "n p f"]:
    """Factor maps with a mean of 0 over the positions."""
    reduced = reduce_layer(weights, device=device).reduced.astype(np.float64)
    maps = reduced.reshape(len(reduced), -1, COLOURS)
    return maps - maps.mean(axis=1, keepdims=True)


def _agreement(first: Float[np.ndarray, "n p f"], second: Float[np.ndarray, "n p f"]) -> float:
    products = np.einsum("npf,npg->nfg", first, second)
    best = np.max([products[:, range(COLOURS), order].sum(axis=1) for order in _ORDERS], axis=0)
    norms = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float(best.sum() / norms) if norms > 0 else 0.0


def _shuffled(maps: Float[np.ndarray, "n p f"], draw: np.random.Generator) -> Float[np.ndarray, "n p f"]:
    """The positions of each neuron in a random order, the same for all of its factors."""
    order = draw.random(maps.shape[:2]).argsort(axis=1)
    return np.take_along_axis(maps, order[:, :, None], axis=1)
