"""Room in a node's cache: sets in use are held open, the least recently used others are removed to make room.

`SWEEP_CACHE_LIMIT` (bytes, or such as 300GB) limits the size of all prepared sets together; without it none is removed.
"""

import fcntl
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sweep.data.prepared import FORMER_RECORD, CacheError, last_use, reserve
from sweep.data.set_index import INDEX

RESERVED = "reserved"
"""The file in an unfinished set that says how many bytes the finished one will take."""
_UNFINISHED = "-unfinished"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def cache_limit() -> int | None:
    """`SWEEP_CACHE_LIMIT` in bytes; None where it is not set.

    Raises:
        ValueError: it is no size.
    """
    said = os.environ.get("SWEEP_CACHE_LIMIT", "").strip()
    if not said:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", said.upper())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"SWEEP_CACHE_LIMIT={said!r} is no size; give bytes, or such as 300GB")
    return int(float(match[1]) * _UNITS[match[2]])


class Hold:
    """Keeps a set from being removed, by a shared lock on its index, until it is collected as garbage."""

    def __init__(self, descriptor: int) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """End it now."""
        self._close()


def hold(folder: Path) -> Hold | None:
    """Hold a set; None where it is gone."""
    try:
        descriptor = os.open(folder / INDEX, os.O_RDONLY)
    except FileNotFoundError:
        return None
    held = Hold(descriptor)
    with suppress(OSError):  # a file system without such locks: then nothing can be removed either
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), (folder / INDEX).stat()):
            return held
    held.release()
    return None


@contextmanager
def working_alone(folder: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only process that makes a folder of the cache; `check` is called while another is at it."""
    lock = FileLock(_lock_of(folder))
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            check()
    try:
        yield
    finally:
        lock.release()


def unfinished_folder(folder: Path) -> Path:
    """Where a folder of the cache lies until it is complete."""
    return folder.with_name(f".{folder.name}{_UNFINISHED}")


def make_room(unfinished: Path, size: int) -> None:
    """Create the folder of an unfinished set of so many bytes, after removing other sets as far as the limit demands.

    Raises:
        CacheError: it doesn't fit within the limit, or on the disk.
        ValueError: the limit is no size.
    """
    cache, limit = unfinished.parent, cache_limit()
    if limit is None:
        _begin(unfinished, size)
        return
    with FileLock(cache / "room.lock"):
        if size <= limit:
            _remove_left_behind(cache, unfinished)
        excess = size + _used(cache, unfinished) - limit
        for folder in sorted(_finished(cache), key=last_use) if size <= limit else ():
            if excess <= 0:
                break
            excess -= _removed(folder)
        if excess > 0:
            raise CacheError(
                f"a set of {_gb(size)} doesn't fit into {cache}: SWEEP_CACHE_LIMIT is {_gb(limit)}, and what is in use "
                f"leaves {_gb(max(0, size - excess))}; raise the limit, or wait until other trials end"
            )
        _begin(unfinished, size)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_left_behind(cache: Path, but: Path) -> None:
    """Remove what killed processes left unfinished, unless somebody has taken it up again."""
    for left in cache.glob(f".*{_UNFINISHED}"):
        if left != but:
            with suppress(Timeout), FileLock(_lock_of(cache / left.name[1:].removesuffix(_UNFINISHED)), timeout=0):
                shutil.rmtree(left, ignore_errors=True)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2g} GB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _begin(unfinished: Path, size: int) -> None:
    unfinished.mkdir(exist_ok=True)
    there = _bytes_in(unfinished)
    try:
        reserve(unfinished, max(0, size - there))
        (unfinished / RESERVED).write_text(str(size))
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _finished(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if not path.name.startswith(".") and _record_of(path).exists()]


def _record_of(folder: Path) -> Path:
    """The file that makes a folder a set: its index, or that of an earlier format."""
    return folder / INDEX if (folder / INDEX).exists() else folder / FORMER_RECORD


def _used(cache: Path, but: Path) -> int:
    """Bytes of all sets, and those that unfinished ones will take."""
    unfinished = [path for path in cache.glob(".*") if path.is_dir() and path != but]
    return sum(map(_bytes_in, _finished(cache))) + sum(max(_bytes_in(path), _reserved(path)) for path in unfinished)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _reserved(folder: Path) -> int:
    try:
        return int((folder / RESERVED).read_text())
    except (OSError, ValueError):
        return 0


def _removed(folder: Path) -> int:
    """Remove a set unless somebody has it open; returns the bytes that this freed."""
    try:
        with _record_of(folder).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = _bytes_in(folder)
            gone = folder.with_name(f".{folder.name}-removed")
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            return size
    except OSError:  # it is in use, or gone already
        return 0
