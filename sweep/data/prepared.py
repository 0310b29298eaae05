"""Prepared sets in a node's cache: space reserved before they are written, digests checked on first use.

A set gets its name in the cache once it is complete and on disk. A node checks the digests in its index once after each
boot and whenever a file's stamp has changed, and notes that beside the index.
"""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from upath import UPath

from analysis.write import write_bytes
from sweep.data.index import cache_folder, is_settled, stamp_of
from sweep.data.set_index import INDEX, SetIndex, read_index

FORMER_RECORD = "prepared.json"
"""The file that a set of the earlier format has instead of an index."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class CacheError(OSError):
    """Prepared data can't be written; the message says why and what to do."""


def reserve(folder: Path, size: int) -> None:
    """Fail before anything is decoded if this many bytes don't fit into a folder of the cache.

    Raises:
        CacheError: they don't.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise full(folder.parent, f"{size / 2**20:,.1f} MiB needed, {free / 2**20:,.1f} MiB free")


def full(folder: Path, why: str) -> CacheError:
    """The error where a disk is full: that of the cache, or of another folder that a set is written to."""
    cure = "set SWEEP_CACHE to a folder elsewhere" if folder == cache_folder() else "choose another --to"
    return CacheError(f"the disk of {folder} is full ({why}); free space, or {cure}")


def write_array(file: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[Shaped[np.ndarray, "..."]]) -> str:
    """Write an .npy file part by part and return its sha256. Its space is reserved first; at the end it is on disk.

    The parts may have fewer rows than `shape` says, not more; the array then has as many as they have.
    A memory map would not do: on a full disk it kills the process instead of raising an error.
    """
    rows, header = 0, npy_header(shape, dtype)
    digest = hashlib.sha256(header)
    with file.open("xb+") as stream:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, len(header) + size_of(shape, dtype))
        stream.write(header)
        for part in parts:
            content = _bytes_of(np.ascontiguousarray(part, dtype))
            digest.update(content)
            stream.write(content)
            rows += len(part)
        if rows < shape[0]:
            stream.truncate()
            stream.seek(0)
            stream.write(npy_header((rows, *shape[1:]), dtype))
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256")
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What stands before an array's bytes in an .npy file; NumPy pads it, so that the number of rows may change."""
    header = BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, layout)
    return header.getvalue()


def _bytes_of(array: Shaped[np.ndarray, "..."]) -> memoryview:
    """A contiguous array's bytes, not copied."""
    return array.reshape(-1).view(np.uint8).data.cast("B")


def size_of(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable; syncing a file doesn't."""
    with suppress(OSError):  # not every file system supports it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_checked(folder: Path) -> bool:
    """Whether this node has checked the set since its last boot, and nothing in it has changed since."""
    try:
        return not _unchecked(folder, read_index(folder))
    except (OSError, ValueError):
        return False


def flaw(folder: Path) -> str | None:
    """What is wrong with a set, after reading all that isn't checked. None if nothing is; that is noted for later."""
    try:
        index = read_index(folder)
    except (OSError, ValueError):
        return f"{INDEX} is missing or damaged"
    if index.spec.key != folder.name:
        return f"{INDEX} is that of another set"
    try:
        note = _noted_now(folder, index)
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        wrong = next(filter(None, pool.map(partial(_flaw_of, folder, index), _unchecked(folder, index))), None)
    if wrong is None:
        _write_note(folder, note)
    return wrong


def note_checked(folder: Path, index: SetIndex) -> None:
    """Note that a set is what its index says, where this process has just written it so."""
    with suppress(OSError):
        _write_note(folder, _noted_now(folder, index))


def _noted_now(folder: Path, index: SetIndex) -> dict[str, Any]:
    stamps = {name: stamp_of(folder / name) for name in index.files}
    return {"boot": _boot(), "checked_ns": time.time_ns(), "index": stamp_of(folder / INDEX), "stamps": stamps}


def _write_note(folder: Path, note: dict[str, Any]) -> None:
    with suppress(OSError):  # on a read-only disk, each process checks for itself
        write_bytes(UPath(_note(folder)), json.dumps(note).encode())


def note_use(folder: Path) -> None:
    """Note that a set is used now."""
    with suppress(OSError):
        os.utime(_note(folder))


def last_use(folder: Path) -> float:
    """When any node last used a set, in seconds since 1970; 0 for one of an earlier format."""
    times = [path.stat().st_mtime for path in (folder / INDEX, *folder.glob("checked-*.json")) if path.exists()]
    return max(times, default=0.0)


def _unchecked(folder: Path, index: SetIndex) -> list[str]:
    """The files of a set that this node must read to know that they are what the index says."""
    try:
        noted = json.loads(_note(folder).read_bytes())
        if noted["boot"] != _boot() or noted["index"] != stamp_of(folder / INDEX):
            return list(index.files)
        return [name for name in index.files if not _is_noted(folder / name, noted)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return list(index.files)


def _is_noted(file: Path, noted: dict[str, Any]) -> bool:
    stamp = stamp_of(file)
    return noted["stamps"].get(file.name) == stamp and is_settled(stamp, noted["checked_ns"])


def _flaw_of(folder: Path, index: SetIndex, name: str) -> str | None:
    try:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{name}: {error.strerror}"
    return None if digest == index.files[name].sha256 else f"{name} is not what was written"


def _note(folder: Path) -> Path:
    node = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    return folder / f"checked-{node}.json"


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
