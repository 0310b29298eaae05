"""The actor pool: checkpoints of `simplified`, three layers each, through one actor and through two.

    python benchmarks/pool.py [--checkpoints 500] [--sample 60] [--json FILE]

About 10 minutes for 500 checkpoints on 2 idle CPU cores, and 0.8 GB of disk. Expect at least 1.7 times the throughput
from two actors. Ten full checkpoints of 18.5 million parameters are written as the project writes them, one network
per seed, and hard-linked into the requested number of folders. The last three convs of every second network are banded
(benchmarks/nmf.py says how), the other networks are as initialised. One actor analyses the first `--sample` folders,
two actors analyse all; actors are started, and have analysed one checkpoint each, before the clock starts.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from nmf import banded  # type: ignore[import-not-found]  # a script's own folder is on its path
from upath import UPath

import models
from analysis.actors import AnalysisPool
from analysis.layers import Row
from sweep.store.checkpoint import write_checkpoint
from sweep.store.manifest import MODEL, Progress

NETWORKS = 10


def write_network(folder: Path, seed: int) -> None:
    """A checkpoint as `sweep` keeps it for the analysis; with an odd seed, its last convs are banded."""
    net = models.build("simplified", "baseline", 1001, 224, seed)
    state = dict(net.state_dict())
    if seed % 2:
        for name in net.final_convs:
            n, c, size, _ = state[f"{name}.weight"].shape
            state[f"{name}.weight"] = banded(n, c, size)
    progress = Progress(step=0, epoch=0, images=0, loss_sum=0.0, correct=0, wall_s=0.0, rows=[])
    write_checkpoint(UPath(folder), progress, state, {}, {"final_convs": json.dumps(list(net.final_convs))})


def spread(networks: list[Path], folder: Path, count: int) -> list[Path]:
    """`count` folders, each with a hard link to one of the networks' files."""
    files = []
    for index in range(count):
        file = folder / f"{index:04}" / MODEL
        file.parent.mkdir(parents=True)
        os.link(networks[index % len(networks)] / MODEL, file)
        files.append(file)
    return files


def through_pool(files: list[Path], out: Path, actors: int) -> dict[str, Any]:
    """Seconds, throughput and memory of a pool; every layer must have been scored."""
    pool = AnalysisPool(actors, num_cpus=1.0, num_gpus=0.0)
    while any(worker.starting is not None for worker in pool._workers):
        pool._collect(timeout_s=1.0)
    before = pool.peaks_mib()
    for index in range(actors):
        pool.submit(str(files[index]), str(out / f"warm-{index}"))
    pool.drain(lambda _file, _rows: None)
    rows: list[Row] = []
    began = time.perf_counter()
    for file in files:
        pool.submit(str(file), str(out / file.parent.name))
    pool.drain(lambda _file, found: rows.extend(found))
    wall_s = time.perf_counter() - began
    peaks = pool.peaks_mib()
    pool.close()
    errors = [row["error"] for row in rows if row["error"]]
    assert not errors, errors[0]
    return {
        "actors": actors,
        "checkpoints": len(files),
        "layers": len(rows),
        "wall_s": round(wall_s, 1),
        "checkpoints_per_s": round(len(files) / wall_s, 3),
        "idle_actor_mib": round(max(before)),
        "peak_actor_mib": round(max(peaks)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=500)
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        networks = [folder / "networks" / str(seed) for seed in range(NETWORKS)]
        for seed, network in enumerate(networks):
            write_network(network, seed)
        file_mib = (networks[0] / MODEL).stat().st_size / 2**20
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        files = spread(networks, folder / "checkpoints", arguments.checkpoints)
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=90 * 2**20
        )
        rows = [
            through_pool(files[: arguments.sample], folder / "one", actors=1),
            through_pool(files, folder / "two", actors=2),
        ]
        ray.shutdown()
    scaling = rows[1]["checkpoints_per_s"] / rows[0]["checkpoints_per_s"]
    for row in rows:
        print(json.dumps(row))
    print(f"scaling from 1 to 2 actors: {scaling:.2f}")
    if arguments.json:
        facts = {
            "command": "python benchmarks/pool.py",
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "scaling": round(scaling, 2),
            "remark": f"Scaling from 1 to 2 actors: {scaling:.2f}. A checkpoint has {file_mib:.0f} MiB; {NETWORKS} "
            f"networks are hard-linked into {len(files)} folders, half of them with banded last convs.",
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
