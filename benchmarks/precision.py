"""How much a layer's banding score depends on rounding, and so on the machine, a GPU included if there is one.

    python benchmarks/precision.py [--json FILE] [CHECKPOINT ...]

Half a minute on 2 CPU cores. Each layer is scored again with its input channels in another order (which changes the
order of every sum), with every result of every operation off by up to 4 units in its last place, in float64, and on
a GPU where there is one. Expect no score to move by more than 0.005. The layers of given checkpoints are added.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.banding import band_scores
from analysis.readers.convs import spatial_convs
from analysis.reduce import Reduction, reduce_layer, reduce_per_neuron

LIMIT = 0.005
SHAPES = [(64, 3, 7), (48, 24, 5), (48, 48, 5), (128, 64, 3), (128, 64, 7), (512, 512, 5)]
NOISE = {
    "nearly of rank 3": 0.01,
    "banded": 0.3,
    "half banded": 0.7,
    "unbanded": None,
}  # beside patterns of size 1; None: nothing but noise


def weights(n: int, c: int, size: int, noise: float | None) -> Tensor:
    """Three patterns over channels whose mixture depends on the kernel's row, plus Gaussian noise."""
    generator = torch.Generator().manual_seed(n + size)
    mixture = torch.rand(n, 3, size, 1, generator=generator).expand(n, 3, size, size)
    patterns = torch.randn(n, 3, c, generator=generator)
    gaussian = torch.randn(n, c, size, size, generator=generator)
    return gaussian if noise is None else torch.einsum("nfyx,nfc->ncyx", mixture, patterns) + noise * gaussian


class OtherRounding(TorchDispatchMode):
    """Moves every floating-point result of PyTorch by up to `units` in its last place: no two machines agree there."""

    def __init__(self, units: float = 4, seed: int = 0) -> None:
        super().__init__()
        self.units, self.draw = units, torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            computed = isinstance(tensor, Tensor) and tensor.is_floating_point() and not op.is_view
            if computed and op.overloadpacket._qualified_op_name not in _COPIES:
                off = 2 * torch.rand(tensor.shape, generator=self.draw, dtype=tensor.dtype) - 1
                tensor.mul_(1 + self.units * torch.finfo(tensor.dtype).eps * off)
        return result


_COPIES = {f"aten::{name}" for name in ("_to_copy", "cat", "clamp", "clone", "copy_", "exp2", "eye", "index", "where")}


def plain(w: Tensor) -> Reduction:
    return reduce_layer(w)


def other_order(w: Tensor) -> Reduction:
    return reduce_layer(w[:, torch.randperm(w.shape[1], generator=torch.Generator().manual_seed(0))])


def other_rounding(w: Tensor) -> Reduction:
    with OtherRounding():
        return reduce_layer(w)


def in_float64(w: Tensor) -> Reduction:
    return reduce_per_neuron(w.double())


def on_gpu(w: Tensor) -> Reduction:
    return reduce_layer(w, device="cuda")


MACHINES: dict[str, Callable[[Tensor], Reduction]] = {
    "channels in another order": other_order,
    "every operation rounded otherwise": other_rounding,
    "float64": in_float64,
    "gpu": on_gpu,
}


def layers(checkpoints: list[Path]) -> Iterator[tuple[str, Tensor]]:
    for kind, noise in NOISE.items():
        for n, c, size in SHAPES:
            yield f"{kind} {n}x{c}x{size}x{size}", weights(n, c, size, noise)
    for file in checkpoints:
        for conv in spatial_convs(file):
            if conv.skipped is None:
                yield f"{file.name} {conv.layer}", conv.read().float()


def measure(name: str, w: Tensor) -> dict[str, Any]:
    """A layer's scores, and for each machine how far off the worse of its two scores is."""
    ours = band_scores(plain(w).reduced)
    row = {"layer": name, "horizontal": round(ours.horizontal, 3), "vertical": round(ours.vertical, 3)}
    for machine, reduce in MACHINES.items():
        if machine == "gpu" and not torch.cuda.is_available():
            continue
        theirs = band_scores(reduce(w).reduced)
        off = max(abs(theirs.horizontal - ours.horizontal), abs(theirs.vertical - ours.vertical))
        row |= {machine: f"{off:.6f}"}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name, w in layers(arguments.checkpoints):
        rows.append(measure(name, w))
        print(json.dumps(rows[-1]), flush=True)
    largest = max(float(row[machine]) for row in rows for machine in MACHINES if machine in row)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    remark = f"Largest difference: {largest:.4f}. On {platform.machine()}, {gpu}, PyTorch {torch.__version__}."
    print(remark)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "remark": remark}, indent=1) + "\n")
    sys.exit(largest > LIMIT)


if __name__ == "__main__":
    main()
