"""Speed and quality of the batched NMF against scikit-learn's, neuron by neuron, and a plain torch one.

    python benchmarks/nmf.py [--json FILE]

About 2 minutes on 2 CPU cores. Expect several times scikit-learn's speed on layers of 512x512x5x5 with a
mean objective (squared Frobenius norm of what three factors leave out) of at most 1.0005 times its. Banded weights are
three patterns over channels whose mixture depends on the row, plus noise; random ones are Gaussian.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import NMF
from torch import Tensor

from analysis.nmf import factorise
from analysis.reduce import COLOURS, split_signs

SHAPES = [(512, 512, 5), (512, 512, 3), (128, 48, 5)]
SAMPLE = 128  # neurons that scikit-learn factorises; its time is scaled up to all
REPEATS = 3


def gaussian(n: int, c: int, size: int) -> Tensor:
    return 0.02 * torch.randn(n, c, size, size, generator=torch.Generator().manual_seed(0))


def banded(n: int, c: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixture = torch.rand(n, COLOURS, size, 1, generator=generator).expand(n, COLOURS, size, size)
    patterns = torch.randn(n, COLOURS, c, generator=generator)
    noise = 0.7 * torch.randn(n, c, size, size, generator=generator)
    return 0.02 * (torch.einsum("nfyx,nfc->ncyx", mixture, patterns) + noise)


def batched(x: Tensor) -> Tensor:
    return factorise(x, COLOURS).objective


def scikit_learn(solver: str) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        objectives = []
        for matrix in x.numpy():
            model = NMF(COLOURS, solver=solver, init="nndsvda")
            objectives.append(np.square(matrix - model.fit_transform(matrix) @ model.components_).sum())
        return torch.tensor(objectives)

    return run


def multiplicative(x: Tensor) -> Tensor:
    """Lee and Seung's updates, batched, 200 iterations."""
    generator = torch.Generator().manual_seed(0)
    scale = (x.mean(dim=(1, 2), keepdim=True) / COLOURS).sqrt()
    w = scale * torch.rand(len(x), x.shape[1], COLOURS, generator=generator)
    h = scale * torch.rand(len(x), COLOURS, x.shape[2], generator=generator)
    for _ in range(200):
        h *= (w.mT @ x) / (w.mT @ w @ h + 1e-12)
        w *= (x @ h.mT) / (w @ (h @ h.mT) + 1e-12)
    return (x - w @ h).square().sum(dim=(1, 2))


def on_gpu(x: Tensor) -> Tensor:
    return factorise(x.cuda(), COLOURS).objective.cpu()


CONTENDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "this project": batched,
    "scikit-learn, coordinate descent": scikit_learn("cd"),
    "scikit-learn, multiplicative": scikit_learn("mu"),
    "torch, multiplicative": multiplicative,
}
if torch.cuda.is_available():
    CONTENDERS[f"this project, {torch.cuda.get_device_name()}"] = on_gpu


def measure(contender: str, x: Tensor) -> dict[str, Any]:
    """Seconds for all neurons (median of repeats) and the mean objective over the first `SAMPLE`."""
    slow = contender.startswith("scikit")
    part = x[:SAMPLE] if slow else x
    times = []
    if not slow:
        CONTENDERS[contender](part)  # the first call sets things up, which takes a second on a GPU
    for _ in range(1 if slow else REPEATS):
        began = time.perf_counter()
        objective = CONTENDERS[contender](part)
        times.append((time.perf_counter() - began) * len(x) / len(part))
    return {"time_s": statistics.median(times), "objective": float(objective[:SAMPLE].double().mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")  # not converged in 200 iterations, its default
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    for n, c, size in SHAPES:
        for kind in (banded, gaussian):
            x = split_signs(kind(n, c, size))
            measured = {contender: measure(contender, x) for contender in CONTENDERS}
            reference = measured["scikit-learn, coordinate descent"]
            for contender, result in measured.items():
                row = {
                    "layer": f"{n}x{c}x{size}x{size}",
                    "weights": kind.__name__,
                    "method": contender,
                    "time_s": round(result["time_s"], 3),
                    "speed": round(reference["time_s"] / result["time_s"], 1),
                    "objective": round(result["objective"] / reference["objective"], 5),
                }
                rows.append(row)
                print(
                    "{layer:>13} {weights:9} {method:33} {time_s:8.3f} s {speed:6.1f}x {objective:8.5f}".format(**row)
                )
    if arguments.json:
        facts = {"command": "python benchmarks/nmf.py", "cores": os.cpu_count(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
