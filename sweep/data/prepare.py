"""Prepare a data set once per machine: decoded arrays in files that all trials memory-map and share."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from sweep.data.arrays import Arrays, Batch, Pictures
from sweep.data.augment import centre_window, random_window
from sweep.data.registry import DATASETS
from sweep.spec import DataSpec

Stored = UInt8[Tensor, "b 3 stored_h stored_w"]
_FILES = ("train_images", "train_labels", "val_images", "val_labels")


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Memory-mapped images and labels of one data set, with its normalisation and augmentation."""

    spec: DataSpec
    train_images: UInt8[Tensor, "n 3 h w"]
    train_labels: Int64[Tensor, " n"]
    val_images: UInt8[Tensor, "m 3 h w"]
    val_labels: Int64[Tensor, " m"]

    def training_batch(self, images: Stored, labels: Int64[Tensor, " b"], draw: Generator) -> Batch:
        """Stored images as a network sees them in training, randomly changed; all randomness is `draw`'s."""
        dataset = DATASETS[self.spec.name]
        windows = random_window(dataset.normalise(images), self.spec.image_size, draw)
        return dataset.augment(dataset.options.model_validate(self.spec.options), (windows, labels), draw)

    def validation_images(self, images: Stored) -> Float[Tensor, "b 3 s s"]:
        """Stored images as a network sees them in validation."""
        return centre_window(DATASETS[self.spec.name].normalise(images), self.spec.image_size)


def cache_folder() -> Path:
    """Where prepared data lies on this machine: `$SWEEP_CACHE`, by default `~/.cache/weight-banding`."""
    return Path(os.environ.get("SWEEP_CACHE") or Path.home() / ".cache" / "weight-banding")


Report = Callable[[int, int], None]
"""Told, while pictures are decoded, how many are done and how many there are."""


def silent(done: int, total: int) -> None:
    """Report to nobody."""


def prepare(spec: DataSpec, root: Path | None, report: Report = silent) -> PreparedData:
    """Open a data set's arrays, making them first where this machine does not have them yet.

    Raises:
        ValueError: the content of `root` is not what the spec was made from.
    """
    folder = cache_folder() / spec.key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                _make(spec, root, folder, report)
    return _open(spec, folder)


def _make(spec: DataSpec, root: Path | None, folder: Path, report: Report) -> None:
    dataset = DATASETS[spec.name]
    options = dataset.options.model_validate(spec.options)
    if dataset.inspect(options, root).fingerprint != spec.fingerprint:
        raise ValueError(
            f"{root} is not the folder this sweep was planned with: its pictures have changed; launch anew"
        )
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    arrays = dataset.make(options, spec.image_size, spec.seed, root)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write(arrays, unfinished, report)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write(arrays: Arrays, folder: Path, report: Report) -> None:
    contents = {name: getattr(arrays, name) for name in _FILES}
    total = sum(len(content.paths) for content in contents.values() if isinstance(content, Pictures))
    done = 0

    def advance(pictures: int) -> None:
        nonlocal done
        done += pictures
        report(done, total)

    for name, content in contents.items():
        file = folder / f"{name}.npy"
        if isinstance(content, Pictures):
            content.write(file, advance)
        else:
            np.save(file, content)
    (folder / "classes.json").write_text(json.dumps(arrays.class_names), encoding="utf-8")


def _open(spec: DataSpec, folder: Path) -> PreparedData:
    # Copy-on-write maps: PyTorch wants writable memory, the file stays untouched, untouched pages stay shared.
    load = partial(np.load, mmap_mode="c", allow_pickle=False)
    tensors = {name: torch.from_numpy(load(folder / f"{name}.npy")) for name in _FILES}
    return PreparedData(spec=spec, **tensors)
