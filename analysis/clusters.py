"""Sort the neurons of many layers into k kinds by their reduced weights, as the article's figure 12 does.

Axis letters: `n` neurons, `y x` kernel rows and columns, `f` NMF factors, `k` clusters, `l` layers.

Source: Petrov et al., Distill 2021, figure 12: k-means with k = 4 to 19. The article does not say how the weights were
normalised; dividing each position by its sum over factors is ours, and others can be chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Num
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from analysis.banding import THRESHOLD, neuron_scores

Normalisation = Literal["position", "maximum", "norm", "none"]
Label = Literal["vertical", "horizontal", "unbanded"]
LABELS: tuple[Label, ...] = get_args(Label)
KS = range(4, 20)

_STARTS = 5
_FITTED = 20_000  # neurons; more only cost time: centres are means of hundreds of neurons each
_CHUNK = 50_000

Reduced = Float[np.ndarray, "n y x f"]


def _by_position(reduced: Reduced) -> Reduced:
    return _divided(reduced, reduced.sum(axis=3, keepdims=True))


def _by_maximum(reduced: Reduced) -> Reduced:
    return _divided(reduced, reduced.max(axis=(1, 2, 3), keepdims=True))


def _by_norm(reduced: Reduced) -> Reduced:
    return _divided(reduced, np.sqrt(np.square(reduced).sum(axis=(1, 2, 3), keepdims=True)))


def _as_is(reduced: Reduced) -> Reduced:
    return reduced


NORMALISATIONS: dict[Normalisation, Callable[[Reduced], Reduced]] = {
    "position": _by_position,
    "maximum": _by_maximum,
    "norm": _by_norm,
    "none": _as_is,
}
"""What the weights are divided by: `position` each position by its sum over factors; `maximum` and `norm` each neuron
by its maximum or its Euclidean norm; `none` nothing. Where the divisor is zero the weights stay zero."""


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """k kinds of neurons: vertical ones first, then horizontal, then unbanded, the largest first among each.

    `assigned` is the cluster of each neuron; `labels` says what each centre shows by its own banding score, whose
    two directions `horizontal` and `vertical` are. `inertia`: mean squared distance of a neuron to its centre.
    """

    assigned: Int[np.ndarray, " n"]
    centres: Float[np.ndarray, "k y x f"]
    labels: tuple[Label, ...]
    horizontal: Float[np.ndarray, " k"]
    vertical: Float[np.ndarray, " k"]
    inertia: float


def normalised(reduced: Num[np.ndarray, "n y x f"], normalisation: Normalisation) -> Float[np.ndarray, "n y x f"]:
    """The weights divided as `NORMALISATIONS` says, in float64."""
    return NORMALISATIONS[normalisation](np.asarray(reduced, dtype=np.float64))


def cluster(points: Float[np.ndarray, "n y x f"], k: int, seed: int = 0) -> Clusters:
    """Find k clusters of normalised neurons; the same input gives the same clusters.

    Centres are fitted to at most 20,000 neurons, drawn by `seed`; all are assigned.

    Raises:
        ValueError: there are fewer distinct neurons than clusters; `possible_ks` says which k are possible.
    """
    n = len(points)
    flat, fitted_to = points.reshape(n, -1), _sample(points, seed)
    distinct = len(np.unique(fitted_to, axis=0))
    if distinct < k:
        raise ValueError(f"{distinct} distinct neurons can't make {k} clusters; analyse more layers or lower k")
    with threadpool_limits(1):  # sums would depend on the number of threads
        fitted = KMeans(k, n_init=_STARTS, random_state=seed).fit(fitted_to)
        parts = [_assigned(fitted, flat[start : start + _CHUNK]) for start in range(0, n, _CHUNK)]
    found = np.concatenate([assigned for assigned, _ in parts])
    centres = fitted.cluster_centers_.reshape(k, *points.shape[1:])
    horizontal, vertical = neuron_scores(centres)
    labels = [label(*scores) for scores in zip(horizontal, vertical, strict=True)]
    sizes = np.bincount(found, minlength=k)
    order = sorted(range(k), key=lambda c: (LABELS.index(labels[c]), -sizes[c]))
    return Clusters(
        assigned=np.argsort(order)[found],
        centres=centres[order],
        labels=tuple(labels[c] for c in order),
        horizontal=horizontal[order],
        vertical=vertical[order],
        inertia=sum(squares for _, squares in parts) / n,
    )


def possible_ks(points: Float[np.ndarray, "n y x f"], seed: int = 0) -> list[int]:
    """Those of `KS` for which there are enough distinct neurons."""
    distinct = len(np.unique(_sample(points, seed), axis=0))
    return [k for k in KS if k <= distinct]


def label(horizontal: float, vertical: float) -> Label:
    """What a centre with these banding scores shows: the direction whose score is at least 2/3, else unbanded."""
    if horizontal >= THRESHOLD:
        return "horizontal"
    return "vertical" if vertical >= THRESHOLD else "unbanded"


def own_scores(points: Float[np.ndarray, "n y x f"]) -> Float[np.ndarray, "2 n"]:
    """Horizontal and vertical score of each neuron alone."""
    parts = [neuron_scores(points[start : start + _CHUNK]) for start in range(0, len(points), _CHUNK)]
    return np.concatenate([np.stack(part) for part in parts], axis=1) if parts else np.empty((2, 0))


def member_means(assigned: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], k: int) -> Float[np.ndarray, " k"]:
    """The mean of a value over the neurons of each cluster; a centre may be banded where its neurons are not."""
    return np.bincount(assigned, weights=values, minlength=k) / np.bincount(assigned, minlength=k)


def shares(assigned: Int[np.ndarray, " n"], sizes: Sequence[int], k: int) -> Float[np.ndarray, "l k"]:
    """For each layer the percentage of its neurons in each cluster; layers of `sizes` neurons stand one after another.

    Raises:
        ValueError: the sizes do not add up to the number of neurons.
    """
    if sum(sizes) != len(assigned):
        raise ValueError(f"layers of {sum(sizes)} neurons in all, but {len(assigned)} are assigned")
    parts = np.split(assigned, np.cumsum(sizes)[:-1])
    return np.array([100 * np.bincount(part, minlength=k) / len(part) for part in parts])


def _sample(points: Float[np.ndarray, "n y x f"], seed: int) -> Float[np.ndarray, "m p"]:
    flat = points.reshape(len(points), int(np.prod(points.shape[1:])))
    if len(flat) <= _FITTED:
        return flat
    return flat[np.random.default_rng(seed).choice(len(flat), _FITTED, replace=False)]


def _assigned(fitted: KMeans, flat: Float[np.ndarray, "n p"]) -> tuple[Int[np.ndarray, " n"], float]:
    """The nearest centre of each neuron, and the sum of their squared distances to it."""
    found = fitted.predict(flat)
    return found, float(np.square(flat - fitted.cluster_centers_[found]).sum())


def _divided(reduced: Reduced, by: Float[np.ndarray, "..."]) -> Reduced:
    return reduced / np.where(by > 0, by, 1)
