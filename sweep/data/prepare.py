"""Prepare a data set once per machine: decoded arrays in files that all trials share by memory-mapping."""

import errno
import logging
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from sweep.data.arrays import Arrays, Batch, Pictures
from sweep.data.augment import centre_window, random_corners
from sweep.data.images import Images
from sweep.data.index import Watch, cache_folder, silent
from sweep.data.prepared import (
    CacheError,
    flaw,
    full,
    is_checked,
    reserve,
    size_of,
    sync_folder,
    write_array,
    write_record,
)
from sweep.data.registry import DATASETS
from sweep.spec import DataSpec

Stored = UInt8[Tensor, "b 3 stored_h stored_w"]
Windows = UInt8[Tensor, "b 3 s s"]
_logger = logging.getLogger("sweep.data")  # goes to a trial's log.txt, elsewhere to standard error
_FILES = ("train_images", "train_labels", "val_images", "val_labels")


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Memory-mapped images and labels of one data set, with its normalisation and augmentation."""

    spec: DataSpec
    train_images: Images
    train_labels: Int64[Tensor, " n"]
    val_images: Images
    val_labels: Int64[Tensor, " m"]

    def training_corners(self, number: int, draw: Generator) -> Int64[Tensor, "b 2"]:
        """Where the windows of a training batch are cut, drawn before all else that `draw` is for."""
        return random_corners(number, self.train_images.side, self.spec.image_size, draw)

    def centre_corners(self, number: int) -> Int64[Tensor, "b 2"]:
        """Where the windows of validation images are cut."""
        free = [(length - self.spec.image_size) // 2 for length in self.val_images.side]
        return torch.tensor(free).expand(number, 2)

    def training_batch(self, windows: Windows, labels: Int64[Tensor, " b"], draw: Generator) -> Batch:
        """Windows as a network sees them in training, randomly changed; all randomness is `draw`'s."""
        dataset = DATASETS[self.spec.name]
        return dataset.augment(dataset.read_options(self.spec.options), (dataset.normalise(windows), labels), draw)

    def validation_images(self, images: Stored) -> Float[Tensor, "b 3 s s"]:
        """Stored images as a network sees them in validation."""
        return DATASETS[self.spec.name].normalise(centre_window(images, self.spec.image_size))


def prepare(spec: DataSpec, root: Path | None, report: Watch = silent) -> PreparedData:
    """Open a data set's arrays; create them first if this machine lacks them or has damaged ones.

    Raises:
        ValueError: the content of `root` has changed since the spec was made.
        CacheError: there is no space for them, or no permission to write them.
    """
    cache = cache_folder()
    folder = cache / spec.key
    if not is_checked(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                _make_sure(spec, root, folder, report)
        except OSError as error:  # from the cache: errors in pictures are ValueErrors
            _raise_unless_intact(folder, error)
    return _open(spec, folder)


def _raise_unless_intact(folder: Path, error: OSError) -> None:
    """Report what is wrong with the cache, unless the data is there already: it may be read-only on purpose."""
    if flaw(folder) is None:
        return
    cache = folder.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise full(cache, error.strerror or "no space") from error
    if isinstance(error, CacheError):
        raise error
    raise CacheError(
        f"can't write to {cache}: {error.strerror or error}; set SWEEP_CACHE to a writable folder"
    ) from error


def _make_sure(spec: DataSpec, root: Path | None, folder: Path, report: Watch) -> None:
    """Check the data unless another process just did, and prepare it if it is missing or damaged."""
    if is_checked(folder):
        return
    wrong = flaw(folder) if folder.exists() else "there is none"
    if wrong is None:
        return
    if folder.exists():
        _logger.warning("the prepared data in %s is damaged (%s); preparing it again", folder, wrong)
    _make(spec, root, folder, report)


def _make(spec: DataSpec, root: Path | None, folder: Path, report: Watch) -> None:
    dataset = DATASETS[spec.name]
    options = dataset.read_options(spec.options)
    _remove_remains(folder)
    arrays = dataset.make(options, spec.image_size, spec.seed, root)
    found = arrays.fingerprints if arrays.fingerprints != (None,) else (dataset.inspect(options, root).fingerprint,)
    _require_unchanged(spec.fingerprint, found, root)
    shutil.rmtree(folder, ignore_errors=True)  # it is damaged, and its space is needed
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        _write(arrays, unfinished, report)
        _require_unchanged(dataset.inspect(options, root).fingerprint, found[:1], root)  # while they were decoded
        unfinished.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _remove_remains(folder: Path) -> None:
    """Remove what a killed process left behind; we hold the lock."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _require_unchanged(fingerprint: str | None, found: tuple[str | None, ...], root: Path | None) -> None:
    if fingerprint not in found:
        raise ValueError(
            f"{root} is not the folder this sweep was planned with: its pictures have changed; launch again"
        )


def _write(arrays: Arrays, folder: Path, report: Watch) -> None:
    """Write all arrays and, last, the record of their digests."""
    contents = {name: getattr(arrays, name) for name in _FILES}
    layouts = {name: _layout(content) for name, content in contents.items()}
    reserve(folder, sum(size_of(*layout) for layout in layouts.values()))
    total = sum(len(content.paths) for content in contents.values() if isinstance(content, Pictures))
    done = 0

    def advance(pictures: int) -> None:
        nonlocal done
        done += pictures
        report(done, total)

    digests = {}
    for name, content in contents.items():
        parts = content.chunks(advance) if isinstance(content, Pictures) else [content]
        digests[f"{name}.npy"] = write_array(folder / f"{name}.npy", *layouts[name], parts)
    write_record(folder, digests, {"class_names": arrays.class_names, "fingerprint": arrays.fingerprints[0]})


def _layout(content: np.ndarray | Pictures) -> tuple[tuple[int, ...], np.dtype]:
    if isinstance(content, Pictures):
        return (len(content.paths), *content.shape), np.dtype(np.uint8)
    return content.shape, content.dtype


def _open(spec: DataSpec, folder: Path) -> PreparedData:
    load = partial(np.load, mmap_mode="r", allow_pickle=False)
    train, val = (Images([load(folder / f"{part}_images.npy")]) for part in ("train", "val"))
    train_labels, val_labels = (
        torch.from_numpy(np.load(folder / f"{part}_labels.npy", allow_pickle=False)) for part in ("train", "val")
    )
    return PreparedData(spec=spec, train_images=train, train_labels=train_labels, val_images=val, val_labels=val_labels)
