"""What the page Weights takes to show one layer: from its file to what the browser gets.

    python benchmarks/neurons.py [--json FILE]

The arrays are written as an analysis writes them, with random reduced weights, which compress worst. Times are CPU
milliseconds, the median of 20: `read_ms` for reading the file, `draw_ms` for the picture of all neurons, their order by
score and their labels. `sent_kib` is what goes to the browser, of which `png_kib` is the picture. A few seconds.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from upath import UPath

sys.path.remove(str(Path(__file__).parent))  # or dashboard.py there is taken for the package of that name

from analysis.write import arrays_file
from dashboard import weights
from sweep.results.tables import ReducedLayer, read_reduced
from sweep.store.sweep_dir import SweepDir

LAYERS = ((64, 5), (512, 3), (512, 5), (512, 7), (2048, 3))
TIMES = 20
TRIAL, STEP, CONV = "trial", 1, "conv"
Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="neurons-") as folder:
        rows = [row(UPath(folder) / f"{neurons}-{kernel}", neurons, kernel) for neurons, kernel in LAYERS]
    for one in rows:
        print(one)
    if arguments.json:
        remark = f"On one of {os.cpu_count()} cores of {platform.machine()}."
        facts = {"command": "python benchmarks/neurons.py", "remark": remark, "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def row(sweep: UPath, neurons: int, kernel: int) -> dict[str, Any]:
    write(sweep, neurons, kernel)
    layer, read_ms = measured(lambda: read_reduced(sweep, TRIAL, STEP, CONV))
    assert layer is not None
    (picture, document), draw_ms = measured(lambda: drawn(layer))
    sent = len(picture) * 4 / 3 + len(document)  # the picture travels in base64
    return {
        "neurons": neurons,
        "kernel": f"{kernel}x{kernel}",
        "read_ms": read_ms,
        "draw_ms": draw_ms,
        "png_kib": round(len(picture) / 1024),
        "sent_kib": round(sent / 1024),
    }


def write(sweep: UPath, neurons: int, kernel: int) -> None:
    draw = np.random.default_rng(0)
    file = Path(arrays_file(SweepDir(sweep).trial(TRIAL).layers / str(STEP), CONV).path)
    file.parent.mkdir(parents=True)
    scores = draw.random(neurons).astype(np.float32)
    reduced = draw.random((neurons, kernel, kernel, 3)).astype(np.float16)
    order = draw.permutation(neurons).astype(np.int32)
    np.savez_compressed(file, reduced=reduced, order=order, horizontal=scores, vertical=-scores)


def drawn(layer: ReducedLayer) -> tuple[bytes, str]:
    document = {"order": weights.ordered(layer, "horizontal").tolist(), "labels": weights.labels(layer)}
    return weights.atlas(layer), json.dumps(document)


def measured(do: Callable[[], Result]) -> tuple[Result, float]:
    """What a call returns, and the CPU milliseconds that it takes."""
    result, times = do(), []
    for _ in range(TIMES):
        began = time.process_time()
        do()
        times.append(time.process_time() - began)
    return result, round(1000 * statistics.median(times), 1)


if __name__ == "__main__":
    main()
