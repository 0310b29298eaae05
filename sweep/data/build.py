"""Make a prepared set from its source: pictures are read, hashed, examined, decoded and stored in one pass."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from upath import UPath

from analysis.write import write_bytes
from sweep.data.arrays import Arrays
from sweep.data.folders import ClassFolders, FolderOptions, stored_side
from sweep.data.index import Examination, recall_all, remember
from sweep.data.parallel import Mapper
from sweep.data.place import Folder, as_folder, read
from sweep.data.policy import listed
from sweep.data.registry import DATASETS, Source, source_of
from sweep.data.remote import Pictures, RemoteFolder, list_pictures
from sweep.data.set_index import INDEX, TRAIN, VAL, File, SetIndex
from sweep.data.shards import (
    Shard,
    ShardTask,
    make_shard,
    record_of,
    shard_name,
    shard_ranges,
    write_images,
    write_npy,
)
from sweep.spec import DataSpec, without_flip
from sweep.store.files import remove_file

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and the unit of both: "pictures" or "bytes"."""


class ChangedError(ValueError):
    """The source is not what a spec was made from."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The folder that a set is written to; `begin` makes it ready for so many bytes before anything is written."""

    folder: Folder
    begin: Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be made: a data set by name, with its options, from a root; `spec` is that of trials planned before.

    `strict` refuses pictures that can't be used instead of leaving them out.
    """

    name: str
    image_size: int
    seed: int
    options: dict[str, Any]
    root: str | None
    spec: DataSpec | None = None
    strict: bool = False

    @classmethod
    def of(cls, spec: DataSpec, root: str | None) -> "Wanted":
        """What trials of a spec need, which is the same for all flips."""
        spec = spec.prepared
        return cls(
            name=spec.name, image_size=spec.image_size, seed=spec.seed, options=spec.options, root=root, spec=spec
        )

    @property
    def image_bytes(self) -> int:
        """What each image takes where it is stored."""
        side = self.image_size if DATASETS[self.name].scan is None else stored_side(self.image_size)
        return 3 * side**2

    @property
    def stored_options(self) -> dict[str, Any]:
        """All options that change what is stored, with their defaults."""
        return without_flip(DATASETS[self.name].read_options(self.options).model_dump(mode="json"))

    def spec_of(self, source: Source) -> DataSpec:
        """The spec of a set with these pictures."""
        return self.spec or DataSpec(
            name=self.name,
            image_size=self.image_size,
            num_classes=source.num_classes,
            seed=self.seed,
            options=self.stored_options,
            fingerprint=source.fingerprint,
        )


def build(
    wanted: Wanted, target: Target, mapped: Mapper, report: Progress, check: Callable[[], None]
) -> tuple[SetIndex, Source]:
    """Make a set and write it, its index last; `check` may raise an error between shards.

    Raises:
        ValueError: the source holds no such data set, or other pictures than those that the spec was made from.
        OSError: the target can't be written.
    """
    if DATASETS[wanted.name].scan is None:
        index, source = _from_arrays(wanted, target, report, check)
        write_bytes(UPath(target.folder / INDEX), index.to_bytes())
        return index, source
    making = _Making(wanted, target, mapped, report, check, stored_side(wanted.image_size))
    index, source = _from_pictures(wanted, target, making)
    write_bytes(UPath(target.folder / INDEX), index.to_bytes())
    for number in range(len(making.shards)):
        remove_file(UPath(record_of(target.folder, number)))
    return index, source


def recalled(wanted: Wanted) -> Source | None:
    """What would be found at a source on this machine, unless pictures of class folders had to be read to say it.

    Raises:
        ValueError: it holds no such data set, or `wanted.strict` and a picture can't be used.
    """
    dataset = DATASETS[wanted.name]
    root = None if wanted.root is None else as_folder(wanted.root)
    options = dataset.read_options(wanted.options)
    if isinstance(root, UPath) and not isinstance(root, Path):
        return None
    if isinstance(options, FolderOptions):
        scan = _recalled_scan(wanted)
        source = None if scan is None else source_of(options, scan)
    else:
        source = dataset.inspect(options, root)
    if source is not None and wanted.strict:
        source.require_all_usable()
    return source


def _recalled_scan(wanted: Wanted) -> ClassFolders | None:
    scan = DATASETS[wanted.name].scan
    root = None if wanted.root is None else as_folder(wanted.root)
    if scan is None or not isinstance(root, Path):
        return None

    def recall(root: Path, names: Sequence[str]) -> Examination:
        seen = recall_all(root, names)
        if seen is None:
            raise _UnknownError
        return seen

    try:
        return scan(root, recall)
    except _UnknownError:
        return None


class _UnknownError(Exception):
    """Some picture must be read to be known."""


@dataclass
class _Making:
    """Makes the shards while the policy asks what their pictures hold."""

    wanted: Wanted
    target: Target
    mapped: Mapper
    report: Progress
    check: Callable[[], None]
    side: int
    shards: list[Shard] = field(default_factory=list)

    def examine(self, root: Pictures, names: Sequence[str]) -> Examination:
        ranges = shard_ranges(len(names), self.side)
        self.target.begin(len(names) * 3 * self.side**2)
        tasks = (self._task(number, root, names[part.start : part.stop]) for number, part in enumerate(ranges))
        done = 0
        self.check()
        for shard in self.mapped(make_shard, tasks):
            self.shards.append(shard)
            done += len(shard.pictures)
            self.report(done, len(names), "pictures")
            self._refuse_unusable(shard)
            self.check()
        known = {name: row for shard in self.shards for name, row in shard.pictures.items()}
        changed = remember(root, known) if isinstance(root, Path) else []
        return Examination({name: row.examined for name, row in known.items()}, changed)

    def _task(self, number: int, root: Pictures, names: Sequence[str]) -> ShardTask:
        stamps = [root.stamp(name) for name in names] if isinstance(root, RemoteFolder) else None
        return ShardTask(number, str(root), list(names), stamps, self.side, str(self.target.folder))

    def _refuse_unusable(self, shard: Shard) -> None:
        bad = {name: row.examined.unusable for name, row in shard.pictures.items() if row.examined.unusable}
        if self.wanted.strict and bad:
            Source(num_classes=0, left_out=bad).require_all_usable()


def _from_pictures(wanted: Wanted, target: Target, making: _Making) -> tuple[SetIndex, Source]:
    dataset = DATASETS[wanted.name]
    assert dataset.scan is not None
    options = dataset.read_options(wanted.options)
    assert isinstance(options, FolderOptions)
    if wanted.spec is not None and (known := _recalled_scan(wanted)) is not None:  # before anything is decoded
        _require_unchanged(wanted, (known.fingerprint, known.former_fingerprint), [])
    scan = dataset.scan(_pictures_at(wanted.root), making.examine)
    source = source_of(options, scan)
    if wanted.strict:
        source.require_all_usable()
    _require_unchanged(wanted, (scan.fingerprint, scan.former_fingerprint), scan.changed)
    train, val = scan.parts(options.val_share)
    files = {shard_name(number): shard.file for number, shard in enumerate(making.shards) if shard.file is not None}
    rows = _rows(making.shards)
    files |= {
        name: _write_part(target.folder / name, [rows[picture] for picture, _ in part], [label for _, label in part])
        for name, part in ((TRAIN, train), (VAL, val))
    }
    return _index(wanted, source, scan.split.classes, (len(train), len(val)), files), source


def _rows(shards: list[Shard]) -> dict[str, int]:
    """The number of each picture that can be decoded, counted through all shards."""
    decoded = (name for shard in shards for name, known in shard.pictures.items() if known.examined.unusable is None)
    return {name: row for row, name in enumerate(decoded)}


def _from_arrays(
    wanted: Wanted, target: Target, report: Progress, check: Callable[[], None]
) -> tuple[SetIndex, Source]:
    dataset = DATASETS[wanted.name]
    assert dataset.make is not None
    options = dataset.read_options(wanted.options)
    with _local(wanted.root) as root:
        source = dataset.inspect(options, root)
        if wanted.strict:
            source.require_all_usable()
        _require_unchanged(wanted, (source.fingerprint,), [])
        arrays = dataset.make(options, wanted.image_size, wanted.seed, root)
        if arrays.fingerprint is not None and arrays.fingerprint != source.fingerprint:
            raise _changed(wanted, [])
    train, val = len(arrays.train_images), len(arrays.val_images)
    target.begin(arrays.train_images.nbytes + arrays.val_images.nbytes)
    files = {}
    ranges = shard_ranges(train + val, arrays.train_images.shape[2])
    for number, part in enumerate(ranges):
        check()
        files[shard_name(number)] = write_images(target.folder / shard_name(number), _between(arrays, part))
        report(part.stop, train + val, "pictures")
    files[TRAIN] = _write_part(target.folder / TRAIN, range(train), arrays.train_labels)
    files[VAL] = _write_part(target.folder / VAL, range(train, train + val), arrays.val_labels)
    return _index(wanted, source, arrays.class_names, (train, val), files), source


def _between(arrays: Arrays, part: range) -> list[UInt8[np.ndarray, "_ 3 h w"]]:
    """Some of the images of both parts, counted through."""
    split = len(arrays.train_images)
    cuts = (
        arrays.train_images[part.start : min(part.stop, split)],
        arrays.val_images[max(0, part.start - split) : max(0, part.stop - split)],
    )
    return [cut for cut in cuts if len(cut)]


def _write_part(file: Folder, rows: Sequence[int], labels: Sequence[int] | Int64[np.ndarray, " n"]) -> File:
    content = np.array([np.asarray(rows, dtype=np.int64), np.asarray(labels, dtype=np.int64)])
    return write_npy(file, content.shape, content.dtype, [content])


def _index(
    wanted: Wanted, source: Source, class_names: list[str], images: tuple[int, int], files: dict[str, File]
) -> SetIndex:
    return SetIndex(
        spec=wanted.spec_of(source),
        class_names=list(class_names),
        train_images=images[0],
        val_images=images[1],
        understood=source.understood,
        left_out=dict(sorted(source.left_out.items())),
        files=files,
    )


def _pictures_at(root: str | None) -> Pictures:
    """Where class folders are read from.

    Raises:
        ValueError: no root is given, or its URL can't be read.
    """
    if root is None:
        raise ValueError("this data set is read from a folder: --set data.root=FOLDER")
    place = as_folder(root)
    if isinstance(place, Path):
        return place
    try:
        return list_pictures(place)
    except OSError as error:
        raise ValueError(str(error)) from error


@contextmanager
def _local(root: str | None) -> Iterator[Path | None]:
    """A source as a folder of this machine; what lies at a URL is copied for the while."""
    place = None if root is None else as_folder(root)
    if place is None or isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory() as copy:
        try:
            read(place, lambda: place.fs.get(place.path.rstrip("/") + "/", f"{copy}/", recursive=True))
        except OSError as error:
            raise ValueError(str(error)) from error
        yield Path(copy)


def _require_unchanged(wanted: Wanted, found: tuple[str | None, ...], changed: list[str]) -> None:
    if wanted.spec is not None and wanted.spec.fingerprint not in found:
        raise _changed(wanted, changed)


def _changed(wanted: Wanted, changed: list[str]) -> ChangedError:
    which = f" ({listed(changed)})" if changed else ""
    return ChangedError(
        f"{wanted.root} is not the folder this sweep was planned with: its pictures have changed{which}; launch again"
    )
