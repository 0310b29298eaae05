"""Planted bands under noise: from which reliability on is a layer's verdict of none to be trusted?

    python benchmarks/reliability.py [--json FILE]

About three minutes on one core. Layers of 48 neurons have perfect horizontal bands, or bands with something else mixed
in whose score without noise is known; kernels of 3, 5 and 7, 16, 64 and 256 channels, normal noise from none to 2.5
times the weights. In each range of `analysis.reliability`: how many layers have perfect bands (`perfect`), how many of
them are called horizontal, their mean score; then the mean score of mixed bands as a share of the score without noise
(`kept`), and the same after a correction for attenuation (`corrected`): the score divided by the reliability stepped up
by Spearman and Brown from half the channels to all. A correction that may be adopted is 1 in each range.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.banding import RELIABLE, THRESHOLD, band_scores
from analysis.layers import one_thread
from analysis.reduce import reduce_weights
from analysis.reliability import reliability

NEURONS = 48
KERNELS, CHANNELS = (3, 5, 7), (16, 64, 256)
NOISE = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5)
MIXED = {3: 0.6, 5: 0.9, 7: 1.0}
"""How strong what isn't banded is beside the bands, for each kernel; the score without noise is then about a half."""
EDGES = (-1.0, 0.1, 0.2, 0.3, RELIABLE, 0.6, 0.8, 1.0)


class Planted(NamedTuple):
    perfect: bool
    reliability: float
    score: float
    truth: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with one_thread():
        found = [layer for job in enumerate(itertools.product(KERNELS, CHANNELS)) for layer in layers(*job)]
    rows = [row for low, high in itertools.pairwise(EDGES) if (row := in_range(found, low, high))]
    for row in rows:
        print(row)
    missed = [layer.reliability for layer in found if layer.perfect and layer.score < THRESHOLD]
    remark = (
        f"{len(found)} layers. The most reliable layer whose perfect bands are not called horizontal has "
        f"{max(missed):.2f}; a verdict of none is trusted from {RELIABLE} on."
    )
    print(remark)
    if arguments.json:
        facts = {"command": "python benchmarks/reliability.py", "remark": remark, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def layers(seed: int, kind: tuple[int, int]) -> list[Planted]:
    """Layers of one kernel and one number of channels, with perfect and mixed bands, under each noise."""
    kernel, channels = kind
    generator = torch.Generator().manual_seed(seed)
    found = []
    for mixed in (0.0, MIXED[kernel]):
        weights = signal(kernel, channels, mixed, generator)
        truth = band_scores(reduce_weights(weights)).horizontal
        for strength in NOISE:
            noisy = weights + strength * torch.randn(weights.shape, generator=generator)
            agreed = reliability(noisy)
            assert agreed is not None
            score = band_scores(reduce_weights(noisy)).horizontal
            found.append(Planted(mixed == 0, agreed, score, truth))
    return found


def signal(kernel: int, channels: int, mixed: float, generator: torch.Generator) -> Tensor:
    """Weights of standard deviation 1 made of three factors a neuron."""
    maps = torch.rand((NEURONS, 3, kernel, 1), generator=generator).expand(NEURONS, 3, kernel, kernel)
    maps = maps + mixed * torch.rand((NEURONS, 3, kernel, kernel), generator=generator)
    mixture = torch.randn((NEURONS, channels, 3), generator=generator)
    weights = torch.einsum("ncf,nfyx->ncyx", mixture, maps)
    return weights / weights.std()


def in_range(found: list[Planted], low: float, high: float) -> dict[str, Any] | None:
    """One row of the table; None where no perfect bands are that reliable."""
    here = [layer for layer in found if low <= layer.reliability < high]
    perfect, mixed = ([layer for layer in here if layer.perfect == kind] for kind in (True, False))
    if not perfect:
        return None
    kept = [layer.score / layer.truth for layer in mixed]
    corrected = [layer.score / layer.truth / stepped_up(layer.reliability) for layer in mixed]
    return {
        "reliability": f"below {high}" if low == EDGES[0] else f"{low} to {high}",
        "perfect": len(perfect),
        "called horizontal": sum(layer.score >= THRESHOLD for layer in perfect),
        "mean score": f"{np.mean([layer.score for layer in perfect]):.2f}",
        "mixed": len(mixed),
        "kept": f"{np.mean(kept):.2f}" if mixed else "",
        "corrected": f"{np.mean(corrected):.2f}" if mixed else "",
    }


def stepped_up(half: float) -> float:
    """Spearman and Brown's reliability of twice the channels; at least 0.05, or the correction would run away."""
    return max(0.05, 2 * half / (1 + half))


if __name__ == "__main__":
    main()
