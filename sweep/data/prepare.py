"""Have a data set on this machine: decoded images in files that all trials share by memory-mapping.

Its key names it in the cache. It is fetched from where it lies prepared, or made from its source.
"""

import errno
import logging
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor
from upath import UPath

from analysis.write import write_bytes
from models.names import Flip
from sweep.data.arrays import Batch
from sweep.data.augment import centre_window, random_corners
from sweep.data.build import ChangedError, Progress, Target, Wanted, build
from sweep.data.fetch import fetch_files
from sweep.data.images import Images
from sweep.data.index import cache_folder
from sweep.data.parallel import in_threads
from sweep.data.place import UnreachableError, as_folder
from sweep.data.prepared import FORMER_RECORD, CacheError, flaw, full, is_checked, note_checked, note_use, sync_folder
from sweep.data.registry import DATASETS
from sweep.data.room import RESERVED, Hold, hold, make_room, unfinished_folder, working_alone
from sweep.data.set_index import INDEX, TRAIN, VAL, SetIndex, Sets, find_sets, read_index
from sweep.spec import DataSpec

Stored = UInt8[Tensor, "b 3 stored_h stored_w"]
Windows = UInt8[Tensor, "b 3 s s"]
_logger = logging.getLogger("sweep.data")  # goes to a trial's log.txt, elsewhere to standard error


def in_words(done: int, total: int, unit: str) -> str:
    """How far a set is: `fetching data, 40 of 250 GB`, or `preparing data, 500 of 1,000 images`."""
    if unit != "bytes":
        return f"preparing data, {done:,} of {total:,} {unit}"
    size, name = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"fetching data, {done / size:.0f} of {total / size:.0f} {name}"


class StoppedError(RuntimeError):
    """Preparing, fetching or training was asked to stop; what is complete is kept for the next time."""


def silent(done: int, total: int, unit: str) -> None:
    """Report nothing."""


def never() -> bool:
    """Never stop."""
    return False


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Memory-mapped images and labels of one data set, with its normalisation and augmentation.

    While `held` exists, the set is not removed from the cache to make room for another. `flip` is in place of the
    spec's, where an intervention has its own.
    """

    spec: DataSpec
    train_images: Images
    train_labels: Int64[Tensor, " n"]
    val_images: Images
    val_labels: Int64[Tensor, " m"]
    held: Hold | None = field(default=None, repr=False, compare=False)
    flip: Flip | None = None

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
        options = dataset.read_options(self.spec.options)
        if self.flip is not None:
            options = options.model_copy(update={"flip": self.flip})
        return dataset.augment(options, (dataset.normalise(windows), labels), draw)

    def validation_images(self, images: Stored) -> Float[Tensor, "b 3 s s"]:
        """Stored images as a network sees them in validation."""
        return DATASETS[self.spec.name].normalise(centre_window(images, self.spec.image_size))

    def levels(self, images: Float[Tensor, "b 3 s s"]) -> UInt8[Tensor, "b 3 s s"]:
        """Pixel levels of images that a network sees."""
        return DATASETS[self.spec.name].levels(images)


def prepare(
    spec: DataSpec, root: str | Path | None, report: Progress = silent, stop: Callable[[], bool] = never
) -> PreparedData:
    """Open a data set; fetch or make it first if this machine lacks it or has damaged files.

    `root` is what a grid gives as `data.root`: a folder of pictures, a prepared set, or a folder or URL of such sets.

    Raises:
        ValueError: the content of `root` has changed since the spec was made, or is damaged.
        CacheError: there is no space for it, or no permission to write it.
        UnreachableError: its URL can't be read now.
        StoppedError: `stop` said so.
    """
    folder = cache_folder() / spec.prepared.key
    while True:
        fetch(spec, root, report, stop)
        held = hold(folder)
        if held is not None:  # else another process has just removed it to make room
            return _open(spec, folder, held)


def fetch(spec: DataSpec, root: str | Path | None, report: Progress = silent, stop: Callable[[], bool] = never) -> None:
    """`prepare`, without opening the set."""
    cache, spec = cache_folder(), spec.prepared
    folder = cache / spec.key
    if not is_checked(folder):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            check = partial(_check, stop)
            with working_alone(folder, check):
                _make_sure(spec, None if root is None else str(root), folder, report, check)
        except UnreachableError:
            raise
        except OSError as error:  # from the cache: errors in pictures are ValueErrors
            _raise_unless_intact(folder, error)
    note_use(folder)


def is_placed(spec: DataSpec) -> bool:
    """Whether this node's cache holds a set and its files have been checked."""
    return is_checked(cache_folder() / spec.prepared.key)


def finish(unfinished: Path, folder: Path, index: SetIndex) -> None:
    """Give a complete set its name in the cache."""
    (unfinished / RESERVED).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    sync_folder(unfinished)
    unfinished.rename(folder)
    sync_folder(folder.parent)
    note_checked(folder, index)


def _check(stop: Callable[[], bool]) -> None:
    if stop():
        raise StoppedError("stopped while the data set was prepared; what is complete is kept")


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


def is_whole(folder: Path) -> bool:
    """Whether a set of the cache is there and what its index says; damage is told."""
    wrong = flaw(folder) if folder.exists() else None
    if wrong is not None and not (folder / FORMER_RECORD).exists():
        _logger.warning("the prepared data in %s is damaged (%s); preparing it again", folder, wrong)
    return folder.exists() and wrong is None


def _make_sure(spec: DataSpec, root: str | None, folder: Path, report: Progress, check: Callable[[], None]) -> None:
    """Check the data unless another process just did, and fetch or make it if it is missing or damaged."""
    if is_checked(folder):
        return
    if is_whole(folder):
        return
    unfinished = unfinished_folder(folder)

    def begin(size: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # it is damaged, and its space is needed
        make_room(unfinished, size)

    sets = None if root is None else find_sets(as_folder(root))
    try:
        if sets is None:
            with in_threads() as mapped:
                target = Target(folder=unfinished, begin=begin)
                index, _ = build(Wanted.of(spec, root), target, mapped, report, check)
        else:
            index = _fetched(spec, sets, unfinished, begin, report, check)
        finish(unfinished, folder, index)
    except UnreachableError:
        raise  # what is complete is kept
    except (ValueError, OSError):
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _fetched(
    spec: DataSpec, sets: Sets, unfinished: Path, begin: Callable[[int], None], report: Progress,
    check: Callable[[], None],
) -> SetIndex:  # fmt: skip
    source, index = sets.choose(spec.name, spec.image_size, spec.seed, spec.options)
    if index.spec != spec:
        raise ChangedError(
            f"{source} is not the set this sweep was planned with: it was prepared from other pictures; launch again"
        )
    begin(index.size)
    fetch_files(source, index, unfinished, report, check)
    write_bytes(UPath(unfinished / INDEX), index.to_bytes())
    return index


def _open(spec: DataSpec, folder: Path, held: Hold) -> PreparedData:
    index = read_index(folder)
    _allow_open_files(len(index.shards))
    shards = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in index.shards]
    (train, train_labels), (val, val_labels) = (np.load(folder / name, allow_pickle=False) for name in (TRAIN, VAL))
    return PreparedData(
        spec=spec,
        train_images=Images(shards, train),
        train_labels=torch.from_numpy(train_labels),
        val_images=Images(shards, val),
        val_labels=torch.from_numpy(val_labels),
        held=held,
    )


def _allow_open_files(shards: int) -> None:
    """Raise this process's limit of open files where the shards, each mapped, would exceed it.

    Raises:
        OSError: it may not be raised so far.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * shards + 512  # those of another set, and what else a trial opens
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"the set has {shards:,} files, but a process may open {hard:,}; raise that with `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
