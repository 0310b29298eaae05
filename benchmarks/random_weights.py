"""Random weights: how often is a band found where there is none, and is chance 0?

    python benchmarks/random_weights.py [--layers 1000] [--json FILE]

About 5 minutes on 2 CPU cores. Layers of all combinations of kernel size, neurons and kind of initialisation in turn,
each with its own seed. Expect no verdict but `none`, and a mean score that is 0 within its error (|z| < 3) in both
directions; the same for the mean of each layer's shuffle null.
"""

import argparse
import itertools
import json
import math
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from analysis.banding import band_scores, verdict
from analysis.layers import one_thread
from analysis.reduce import reduce_layer

KERNELS = (3, 5, 7)
NEURONS = (16, 32, 64, 128, 256, 512)


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """PyTorch's default for convolutions."""
    return torch.nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5), generator=generator)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.nn.init.kaiming_normal_(torch.empty(shape), generator=generator)


def orthogonal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.nn.init.orthogonal_(torch.empty(shape), generator=generator)


def sparse(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Normal, with nine in ten weights zero, as after pruning."""
    keep = torch.rand(shape, generator=generator) < 0.1
    return torch.randn(shape, generator=generator) * keep


def heavy_tailed(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A normal variable's cube."""
    return torch.randn(shape, generator=generator) ** 3


KINDS: dict[str, Callable[[tuple[int, ...], torch.Generator], Tensor]] = {
    "uniform": uniform,
    "normal": normal,
    "orthogonal": orthogonal,
    "sparse": sparse,
    "heavy-tailed": heavy_tailed,
}


def score(job: tuple[int, tuple[str, int, int]]) -> dict[str, Any]:
    seed, (kind, size, n) = job
    c = (16, 32, 64)[seed % 3]
    scores = band_scores(reduce_layer(KINDS[kind]((n, c, size, size), torch.Generator().manual_seed(seed))).reduced)
    return {"kind": kind, "size": size, "neurons": n, "verdict": verdict(scores), "scores": scores}


def against_zero(values: list[float]) -> dict[str, float]:
    error = statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return {"mean": round(mean, 6), "standard_error": round(error, 6), "z": round(mean / error, 2)}


def summary(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """One row: the layers of one kind of weights, or of all."""
    directions = {
        f"{direction}_{key}": value
        for direction in ("horizontal", "vertical")
        for key, value in against_zero([getattr(row["scores"], direction) for row in found]).items()
    }
    highest = max(max(row["scores"].horizontal, row["scores"].vertical) for row in found)
    false = sum(row["verdict"] != "none" for row in found)
    return {"weights": kind, "layers": len(found), "false_verdicts": false, "highest": round(highest, 3)} | directions


def remark(nulls: dict[str, dict[str, float]]) -> str:
    said = " and ".join(f"{null['mean']:+.6f} ± {null['standard_error']:.6f}" for null in nulls.values())
    return f"Mean of the layers' shuffle nulls, horizontal and vertical: {said}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells = itertools.cycle(itertools.product(KINDS, KERNELS, NEURONS))
    jobs = list(enumerate(itertools.islice(cells, arguments.layers)))
    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(score, jobs))
    rows = [summary(found, "all")] + [
        summary([row for row in found if row["kind"] == kind], kind) for kind in KINDS if arguments.layers >= 90
    ]
    nulls = {
        direction: against_zero([getattr(row["scores"], f"null_{direction}_mean") for row in found])
        for direction in ("horizontal", "vertical")
    }
    for row in rows:
        print(json.dumps(row))
    print("shuffle null", nulls)
    if arguments.json:
        facts: dict[str, Any] = {"command": "python benchmarks/random_weights.py", "torch": torch.__version__}
        facts |= {"shuffle_null": nulls, "remark": remark(nulls)}
        arguments.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
