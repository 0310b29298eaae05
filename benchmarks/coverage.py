"""Intervals of a layer's score: how many of 100 hold the true value, and how wide are they?

    python benchmarks/coverage.py [--draws 1000] [--json FILE]

About four minutes on one core. From six populations of 20,000 neurons with bands and noise that differ between neurons,
whose score is known, layers are drawn at random. `held` is the share of 95% intervals that hold the population's score,
in the mean over the populations, `worst` in the worst of them, `width` the mean width. `this project` is
`analysis.banding`; the others are kinds that it was chosen among, the percentile interval being what came before.
No interval knows of banded neurons that its layer has none of: where a quarter of the neurons is banded, one layer in
ten of 8 neurons shows no band.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from analysis.banding import share_with_interval, variation

NEURONS = (8, 16, 32, 64, 512)
POPULATION = 20_000
KERNEL = 5
RESAMPLES = 1000
TINY = 1e-9

Interval = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sums = {name: variation(reduced) for name, reduced in populations(np.random.default_rng(0)).items()}
    shares = {name: (one.rows, one.total, one.rows.sum() / one.total.sum()) for name, one in sums.items()}
    rows = []
    for neurons in NEURONS:
        rows += measure(neurons, shares, arguments.draws)
        print(*rows[-len(KINDS) :], sep="\n", flush=True)
    expected = (KERNEL - 1) / (KERNEL * KERNEL - 1)
    scores = ", ".join(f"{name} {(share - expected) / (1 - expected):.2f}" for name, (_, _, share) in shares.items())
    remark = f"{arguments.draws} layers of each population and size. The populations' scores: {scores}."
    if arguments.json:
        facts = {"command": "python benchmarks/coverage.py", "remark": remark, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def populations(draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Reduced weights [n, y, x, f] with known scores, each neuron divided by its maximum."""
    rows = draw.random((POPULATION, KERNEL, 1, 3))
    noise = draw.random((POPULATION, KERNEL, KERNEL, 3))
    strength = draw.random((POPULATION, 1, 1, 1))
    uneven = draw.lognormal(size=(POPULATION, 1, 1, 1)) / 2
    made = {
        "noise of each strength": rows + strength * noise,
        "noise strong in a few": rows + uneven * noise,
        "seven in ten banded": np.where(strength < 0.7, rows + 0.3 * noise, noise),
        "a quarter banded": np.where(strength < 0.25, rows + 0.1 * noise, noise),
        "nearly perfect": rows + 0.2 * strength**2 * noise,
        "random": noise,
    }
    return {name: reduced / reduced.max(axis=(1, 2, 3), keepdims=True) for name, reduced in made.items()}


def measure(neurons: int, shares: dict[str, tuple[np.ndarray, np.ndarray, float]], draws: int) -> list[dict[str, Any]]:
    """One row for each kind of interval."""
    draw = np.random.default_rng(neurons)
    scale = 1 - (KERNEL - 1) / (KERNEL * KERNEL - 1)
    held: dict[str, list[float]] = {kind: [] for kind in KINDS}
    width: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for part, total, truth in shares.values():
        found = {kind: np.empty((draws, 2)) for kind in KINDS}
        for number in range(draws):
            chosen = draw.integers(POPULATION, size=neurons)
            layer = Layer(part[chosen], total[chosen], draw)
            for kind, interval in KINDS.items():
                found[kind][number] = interval(layer)
        for kind, ends in found.items():
            held[kind].append(float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()))
            width[kind].append(float((ends[:, 1] - ends[:, 0]).mean() / scale))
    return [
        {
            "neurons": neurons,
            "interval": kind,
            "held": f"{np.mean(held[kind]):.3f}",
            "worst": f"{min(held[kind]):.3f}",
            "width": f"{np.mean(width[kind]):.3f}",
        }
        for kind in KINDS
    ]


class Layer:
    """A drawn layer's share with its jackknife and bootstrap, which the kinds of intervals have in common."""

    def __init__(self, part: np.ndarray, total: np.ndarray, draw: np.random.Generator) -> None:
        self.part, self.total, self.n = part, total, len(part)
        self.share = part.sum() / total.sum()
        self.without = (part.sum() - part) / (total.sum() - total)
        counts = np.stack([np.bincount(d, minlength=self.n) for d in draw.integers(self.n, size=(RESAMPLES, self.n))])
        terms = np.stack([part, total, part**2, part * total, total**2], axis=1)
        sums = counts @ terms
        self.shares = sums[:, 0] / sums[:, 1]
        squares = sums[:, 2] - 2 * self.shares * sums[:, 3] + self.shares**2 * sums[:, 4]
        self.errors = np.sqrt(squares.clip(0) * self.n / (self.n - 1)) / sums[:, 1]

    @property
    def error(self) -> float:
        return float(np.sqrt((self.n - 1) / self.n * np.square(self.without - self.without.mean()).sum()))


def this_project(layer: Layer) -> Interval:
    return share_with_interval(layer.part, layer.total)[1:]


def jackknife(layer: Layer) -> Interval:
    half = stdtrit(layer.n - 1, 0.975) * layer.error
    return layer.share - half, layer.share + half


def percentile(layer: Layer) -> Interval:
    low, high = np.quantile(layer.shares, (0.025, 0.975)).tolist()
    return low, high


def bias_corrected(layer: Layer) -> Interval:
    """BCa (Efron 1987)."""
    bias = ndtri(((layer.shares < layer.share).mean()).clip(1 / RESAMPLES, 1 - 1 / RESAMPLES))
    distances = layer.without.mean() - layer.without
    acceleration = (distances**3).sum() / (6 * np.square(distances).sum() ** 1.5)
    z = bias + ndtri(np.array([0.025, 0.975]))
    low, high = np.quantile(layer.shares, ndtr(bias + z / (1 - acceleration * z))).tolist()
    return low, high


def bootstrap_t(layer: Layer) -> Interval:
    """Bootstrap-t of the logit."""
    shares = layer.shares.clip(TINY, 1 - TINY)
    middle = logit(np.clip(layer.share, TINY, 1 - TINY))
    t = (logit(shares) - middle) / (layer.errors / (shares * (1 - shares)) + TINY)
    error = layer.error / (layer.share * (1 - layer.share))
    low, high = np.quantile(t, (0.025, 0.975))
    return float(expit(middle - high * error)), float(expit(middle - low * error))


KINDS: dict[str, Callable[[Layer], Interval]] = {
    "this project: jackknife t of the logit": this_project,
    "jackknife t": jackknife,
    "bootstrap, percentile": percentile,
    "bootstrap, BCa": bias_corrected,
    "bootstrap t of the logit": bootstrap_t,
}

if __name__ == "__main__":
    main()
