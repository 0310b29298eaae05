"""Speed and memory of loading batches, beside the step that they are for and beside other ways to load them.

    python benchmarks/loading.py [--images 130000] [--side 256] [--folder FOLDER] [--json FILE]

Stored images of `side` pixels are written to FOLDER (26 GB with the defaults: choose it so that they are larger than
memory) and read in random order, in batches of 256 windows of 224 pixels, on all cores. All rates are images per second
of CPU time, which doesn't depend on what else the machine does, and per second of wall time. The peers read the same
files: PyTorch's DataLoader with a process per core, and one indexing of a memory map in the training process. Anonymous
memory is what a process can't give back; the kernel's cache of the files is not part of it. About 4 minutes on 2 cores.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from sweep.data.augment import cut_windows, random_corners
from sweep.data.images import Images
from sweep.data.registry import DATASETS
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.training.loader import Loader, Wanted
from sweep.training.run import Run

SIZE, BATCH, SHARD = 224, 256, 64 * 2**20
SECONDS = 20.0
Step = Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=130_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="loading-") as folder:
        shards = written(Path(folder), arguments.images, arguments.side)
        rows = [measured(name, steps) for name, steps in ways(shards).items()]
    gib = arguments.images * 3 * arguments.side**2 / 2**30
    memory = psutil.virtual_memory().total / 2**30
    facts = (
        f"{arguments.images:,} images of {arguments.side} pixels, {gib:.1f} GiB, on a machine with {memory:.1f} GiB. "
        f"Loading and augmenting a batch takes {share_of_a_step():.1%} of the CPU time of a step of simplified at 224 "
        f"pixels (float32, CPU). On {os.cpu_count()} cores of {platform.machine()}, PyTorch {torch.__version__}."
    )
    for row in rows:
        print(row)
    print(facts)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"rows": rows, "remark": facts}, indent=1) + "\n")


def written(folder: Path, images: int, side: int) -> list[np.ndarray]:
    """Shards of stored images, none of them in the kernel's cache."""
    per_shard = SHARD // (3 * side * side)
    levels = np.random.default_rng(0).integers(0, 256, (per_shard, 3, side, side), dtype=np.uint8)
    shards = []
    for number, start in enumerate(range(0, images, per_shard)):
        file = folder / f"{number}.npy"
        np.save(file, levels[: min(per_shard, images - start)])
        with file.open("rb") as written_file:
            os.fsync(written_file.fileno())
            os.posix_fadvise(written_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        shards.append(np.load(file, mmap_mode="r"))
    return shards


def ways(shards: list[np.ndarray]) -> dict[str, Callable[[], Iterator[int]]]:
    """Each yields the number of images of a batch."""
    threads = os.cpu_count() or 1
    images = Images(shards)
    labels = torch.zeros(len(images), dtype=torch.int64)
    normalise = DATASETS["imagenet"].normalise

    def wanted() -> Iterator[Wanted]:
        draw = Generator().manual_seed(0)
        while True:
            for numbers in torch.randperm(len(images), generator=draw).split(BATCH):
                yield Wanted(numbers, random_corners(len(numbers), images.side, SIZE, draw), draw)

    def ours(augmented: bool) -> Iterator[int]:
        with Loader(images, labels, SIZE, torch.device("cpu"), threads) as loader:
            for batch in loader.batches(wanted()):
                if augmented:
                    mirrored(normalise(batch.windows), batch.draw)
                yield len(batch.windows)

    def torch_loader() -> Iterator[int]:
        while True:
            for batch in DataLoader(Windows(shards), BATCH, shuffle=True, num_workers=threads):
                yield len(batch)

    def indexing() -> Iterator[int]:
        for want in wanted():
            stored = images.gather(want.numbers)
            mirrored(normalise(cut_windows(stored, want.corners, SIZE)), want.draw)
            yield len(stored)

    return {
        "this project's loader": lambda: ours(augmented=False),
        "this project's loader, then normalised and mirrored on the CPU": lambda: ours(augmented=True),
        "PyTorch's DataLoader, a process per core": torch_loader,
        "whole images first, then windows, normalised and mirrored on the CPU": indexing,
    }


def mirrored(images: Tensor, draw: Generator) -> Tensor:
    flips = torch.rand(len(images), generator=draw) < 0.5
    return torch.where(flips[:, None, None, None], images.flip(-1), images)


class Windows(Dataset[Tensor]):
    """The same windows through PyTorch's own loader, one image at a time."""

    def __init__(self, shards: list[np.ndarray]) -> None:
        self._shards = shards
        self._per_shard = len(shards[0])

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __getitem__(self, number: int) -> Tensor:
        image = self._shards[number // self._per_shard][number % self._per_shard]
        top, left = torch.randint(image.shape[-1] - SIZE + 1, (2,)).tolist()
        return torch.from_numpy(image[:, top : top + SIZE, left : left + SIZE].copy())


def measured(name: str, steps: Callable[[], Iterator[int]]) -> dict[str, Any]:
    """Rates over some seconds, after the first batch; its memory at a quarter of them and at the end."""
    process = psutil.Process()
    batches = steps()
    next(batches)
    began, cpu_began, images = time.perf_counter(), cpu_seconds(process), 0
    early_mib = None
    while (took_s := time.perf_counter() - began) < SECONDS:
        images += next(batches)
        if early_mib is None and took_s > SECONDS / 4:
            early_mib = anonymous_mib(process)
    cpu_s, late_mib = cpu_seconds(process) - cpu_began, anonymous_mib(process)
    batches.close()  # type: ignore[attr-defined]  # a generator
    return {
        "way": name,
        "images_per_cpu_s": round(images / cpu_s),
        "images_per_s": round(images / took_s),
        "memory_mib": round(late_mib),
        "growth_mib": round(late_mib - (early_mib or late_mib)),
    }


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children, also those that have ended."""
    return sum(process.cpu_times()[:4]) + sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True))


def anonymous_mib(process: psutil.Process) -> float:
    """Of a process and its children; Linux alone tells it."""
    every = [process, *process.children(recursive=True)]
    lines = [Path(f"/proc/{each.pid}/status").read_text().splitlines() for each in every]
    return sum(int(line.split()[1]) for said in lines for line in said if line.startswith("RssAnon")) / 2**10


def share_of_a_step() -> float:
    """CPU time to load and augment a batch of `simplified` at 224 pixels, as a share of the time to learn from it."""
    batch = 8
    settings = ["recipe.batch_size=8", "recipe.precision=float32", "data={name: scenes, image_size: 224}"]
    spec = expand(load_grid("article-simplified", settings)).plans[0].spec
    run = Run(spec)
    side = round(SIZE * 8 / 7)
    images = Images([np.random.default_rng(0).integers(0, 256, (64, 3, side, side), dtype=np.uint8)])
    labels = torch.arange(64) % spec.data.num_classes
    loading_s = learning_s = 0.0
    with Loader(images, labels, SIZE, torch.device("cpu")) as loader:
        for index in range(6):
            draw = Generator().manual_seed(index)
            numbers = torch.randint(64, (batch,), generator=draw)
            began = time.process_time()
            (loaded,) = loader.batches([Wanted(numbers, random_corners(batch, images.side, SIZE, draw), draw)])
            augmented = mirrored(DATASETS["imagenet"].normalise(loaded.windows), draw)
            augmented = augmented.contiguous(memory_format=torch.channels_last)
            middle = time.process_time()
            run.learn([(augmented, loaded.labels)], batch, lr=0.01)
            if index:  # the first one warms up
                loading_s += middle - began
                learning_s += time.process_time() - middle
    return loading_s / learning_s


if __name__ == "__main__":
    main()
