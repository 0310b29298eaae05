"""The files of prepared data: space reserved before they are written, digests kept with them, checked on first use.

A folder of prepared data gets its name once it is complete and on disk, with a record of its files' digests. A node
checks the digests once after each boot and whenever a file's stamp has changed, and notes that beside the record.
"""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from upath import UPath

from analysis.write import write_bytes
from sweep.data.index import is_settled, stamp_of

RECORD = "prepared.json"
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


def full(cache: Path, why: str) -> CacheError:
    return CacheError(f"the disk of {cache} is full ({why}); free space, or set SWEEP_CACHE to a folder elsewhere")


def write_array(file: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[Shaped[np.ndarray, "..."]]) -> str:
    """Write an .npy file part by part and return its sha256. Its space is reserved first; at the end it is on disk.

    A memory map would not do: on a full disk it kills the process instead of raising an error.
    """
    header = BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, layout)
    digest = hashlib.sha256()
    with file.open("xb") as stream:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, len(header.getvalue()) + size_of(shape, dtype))
        for content in chain([header.getvalue()], (np.ascontiguousarray(part, dtype).tobytes() for part in parts)):
            digest.update(content)
            stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def size_of(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def write_record(folder: Path, digests: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Write the digests of a folder's files, last of all, and some facts for human readers."""
    text = json.dumps({"sha256": dict(digests), **facts}, indent=1) + "\n"
    write_bytes(UPath(folder / RECORD), text.encode())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable; syncing a file doesn't."""
    with suppress(OSError):  # not every file system supports it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_checked(folder: Path) -> bool:
    """Whether this node has checked the folder since its last boot, and nothing in it has changed since."""
    try:
        noted = json.loads(_note(folder).read_bytes())
        stamps = {str(name): str(stamp) for name, stamp in noted["stamps"].items()}
        return (
            noted["boot"] == _boot()
            and set(stamps) == {RECORD, *_digests(folder)}
            and all(stamp_of(folder / name) == stamp for name, stamp in stamps.items())
            and all(is_settled(stamp, noted["checked_ns"]) for stamp in stamps.values())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def flaw(folder: Path) -> str | None:
    """What is wrong with prepared data, after reading all of it. None if nothing is; that is noted for later."""
    try:
        digests = _digests(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD} is missing or damaged"
    checked_ns, stamps = time.time_ns(), {}
    for name, expected in digests.items():
        try:
            stamps[name] = stamp_of(folder / name)
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return f"{name} is not what was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    stamps[RECORD] = stamp_of(folder / RECORD)
    note = {"boot": _boot(), "checked_ns": checked_ns, "stamps": stamps}
    with suppress(OSError):  # on a read-only disk, each process checks for itself
        write_bytes(UPath(_note(folder)), json.dumps(note).encode())
    return None


def _digests(folder: Path) -> dict[str, str]:
    return {str(name): str(digest) for name, digest in json.loads((folder / RECORD).read_bytes())["sha256"].items()}


def _note(folder: Path) -> Path:
    node = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    return folder / f"checked-{node}.json"


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
