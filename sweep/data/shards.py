"""Make one shard of a prepared set from a fixed range of its source's pictures. Knows no torch: workers start fast.

A shard and the record of its pictures are the same wherever they are made. A shard that lies finished in the target is
verified and not made again.
Axis letters: `n` images, `s` side of the stored square.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from upath import UPath

from analysis.write import write_bytes
from sweep.data.index import Known, stamp_of
from sweep.data.pictures import Examined, examine_square
from sweep.data.place import Folder, as_folder, read_bytes
from sweep.data.prepared import npy_header, size_of, sync_folder, write_array
from sweep.data.set_index import File
from sweep.store.files import remove_file

SHARD_BYTES = 64 * 2**20
SHARD_IMAGES = 1024  # small images are spread over more shards, so that all cores get some
_HEADER = 128  # bytes of an .npy file before its data
_READERS = 16  # pictures read at a time from a URL, which mostly waits


@dataclass(frozen=True)
class ShardTask:
    """Which pictures go into a shard, and where it is written; `root` and `target` are paths or URLs.

    `stamps` are those of pictures at a URL, as it was listed.
    """

    number: int
    root: str
    names: list[str]
    stamps: list[str] | None
    side: int
    target: str

    @property
    def name(self) -> str:
        return shard_name(self.number)


@dataclass(frozen=True)
class Shard:
    """A shard's file (None: none of its pictures can be decoded) and what its pictures were."""

    file: File | None
    pictures: dict[str, Known]


def shard_name(number: int) -> str:
    return f"images-{number:05}.npy"


def shard_ranges(images: int, side: int) -> list[range]:
    """Which images or candidates go into which shard."""
    most = max(1, min(SHARD_IMAGES, (SHARD_BYTES - _HEADER) // (3 * side * side)))
    return [range(start, min(start + most, images)) for start in range(0, images, most)]


def make_shard(task: ShardTask) -> Shard:
    """Make a shard, or verify the one that is there.

    Raises:
        OSError: it can't be written, or the pictures' store is unavailable.
    """
    target = as_folder(task.target)
    found = _finished(task, target)
    if found is not None:
        return found
    pictures: dict[str, Known] = {}
    shape = (len(task.names), 3, task.side, task.side)
    file: File | None = write_npy(target / task.name, shape, np.dtype(np.uint8), _squares(task, pictures))
    if all(known.examined.unusable for known in pictures.values()):
        remove_file(UPath(target / task.name))
        file = None
    shard = Shard(file, pictures)
    record = {
        "side": task.side,
        "file": file and asdict(file),
        "pictures": {name: row.to_row() for name, row in pictures.items()},
    }
    write_bytes(UPath(record_of(target, task.number)), json.dumps(record).encode())
    return shard


def record_of(target: Folder, number: int) -> Folder:
    """The record of a shard's pictures; it is removed once the whole set is there."""
    return target / f"images-{number:05}.json"


def write_images(file: Folder, parts: Sequence[UInt8[np.ndarray, "_ 3 s s"]]) -> File:
    """Write images as an .npy file, whole or not at all."""
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    return write_npy(file, shape, np.dtype(np.uint8), parts)


def write_npy(file: Folder, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[np.ndarray]) -> File:
    """Write an array, given in parts, as an .npy file, whole or not at all; `shape` is what it has at most.

    Raises:
        OSError: it can't be written.
    """
    if isinstance(file, Path):
        unfinished = file.with_name(f".{file.name}.part")
        unfinished.unlink(missing_ok=True)
        digest = write_array(unfinished, shape, dtype, parts)
        unfinished.replace(file)
        sync_folder(file.parent)
        return File(file.stat().st_size, digest)
    content = [np.ascontiguousarray(part, dtype).tobytes() for part in parts]
    rows = sum(map(len, content)) // size_of((1, *shape[1:]), dtype)
    data = b"".join([npy_header((rows, *shape[1:]), dtype), *content])
    write_bytes(file, data)
    return File(len(data), hashlib.sha256(data).hexdigest())


def _squares(task: ShardTask, pictures: dict[str, Known]) -> Iterator[UInt8[np.ndarray, "1 3 s s"]]:
    """What is stored of each picture that can be used, in the same memory; all are entered in `pictures`."""
    square = np.empty((3, task.side, task.side), dtype=np.uint8)
    for name, stamp, read_ns, data in _contents(task):
        if isinstance(data, str):
            pictures[name] = Known("", read_ns, Examined("", data))
            continue
        seen = examine_square(data, name, square)
        pictures[name] = Known(stamp, read_ns, seen)
        if seen.unusable is None:
            yield square[np.newaxis]


def _finished(task: ShardTask, target: Folder) -> Shard | None:
    """The shard that is there already, if its pictures have not changed since and its file is whole."""
    try:
        record = json.loads(read_bytes(record_of(target, task.number)))
        pictures = {name: Known.from_row(row) for name, row in record["pictures"].items()}
        file = None if record["file"] is None else File(**record["file"])
        if record["side"] != task.side or not _are_unchanged(pictures, task):
            return None
        return Shard(file, pictures) if file is None or _is_whole(target / task.name, file) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _are_unchanged(pictures: dict[str, Known], task: ShardTask) -> bool:
    if list(pictures) != task.names or not all(known.stamp for known in pictures.values()):
        return False  # what couldn't be read may be readable now
    if task.stamps is not None:
        return [known.stamp for known in pictures.values()] == task.stamps
    return all(known.holds(stamp_of(Path(task.root) / name)) for name, known in pictures.items())


def _is_whole(path: Folder, file: File) -> bool:
    data = read_bytes(path)
    return len(data) == file.size and hashlib.sha256(data).hexdigest() == file.sha256


def _contents(task: ShardTask) -> Iterator[tuple[str, str, int, bytes | str]]:
    """Each picture's name, stamp, when it was read, and its bytes or why it can't be read."""
    root = as_folder(task.root)
    if isinstance(root, Path):
        yield from (_read_local(root, name) for name in task.names)
        return
    listed = list(zip(task.names, task.stamps or [], strict=True))
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(listed), 4 * _READERS):
            some = listed[start : start + 4 * _READERS]
            read_ns = time.time_ns()
            contents = pool.map(lambda item: read_bytes(root / item[0]), some)
            yield from ((name, stamp, read_ns, data) for (name, stamp), data in zip(some, contents, strict=True))


def _read_local(root: Path, name: str) -> tuple[str, str, int, bytes | str]:
    read_ns = time.time_ns()
    try:
        stamp = stamp_of(root / name)
        data = (root / name).read_bytes()
        same = stamp_of(root / name) == stamp
    except OSError as error:
        return name, "", read_ns, f"it can't be read: {error.strerror}"
    return name, stamp, read_ns, data if same else "it changed while it was read"
