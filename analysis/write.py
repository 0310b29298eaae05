"""Write files whole or not at all and read them in one request, on a local disk or an object store. Knows no torch."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from upath import UPath


def _storage_errors() -> tuple[type[Exception], ...]:
    try:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # e.g. no connection: not an OSError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)


STORAGE_ERRORS: tuple[type[Exception], ...] = _storage_errors()
"""What a storage raises while it is unavailable."""
RESULTS = "layers.json"
"""Name of the file that holds a checkpoint's layer results; written last, so it shows that everything is there."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_#-][A-Za-z0-9_.#-]*", re.ASCII)
_NAME_LIMIT = 220  # bytes: file systems allow 255, and an unfinished file's name takes some more


def arrays_file(folder: UPath, layer: str) -> UPath:
    """Where a layer's arrays are, whatever its name: always a file directly in that folder.

    A plain name (letters, digits, dots and `_ - #`) is used as it is; any other is shortened and gets a hash.
    """
    hashed = folder / _hashed(layer)
    if not _is_plain(layer) or (layer != layer.lower() and hashed.exists()):
        return hashed
    return folder / f"{layer}.npz"


def arrays_names(layers: Iterable[str]) -> dict[str, str]:
    """The file names of layers that are written together.

    On some systems, names that differ only in case are one file: of these, only one without capitals keeps its name,
    which `arrays_file` can tell without knowing the others.
    """
    names = list(dict.fromkeys(layers))
    same = Counter(name.lower() for name in names)
    return {
        name: f"{name}.npz" if _is_plain(name) and (same[name.lower()] == 1 or name == name.lower()) else _hashed(name)
        for name in names
    }


def _is_plain(layer: str) -> bool:
    return len(layer) <= _NAME_LIMIT and _PLAIN_NAME.fullmatch(layer) is not None


def _hashed(layer: str) -> str:
    shown = re.sub(r"[^A-Za-z0-9_.-]+", "_", layer)[:60].lstrip(".")
    return f"{shown}~{hashlib.sha256(layer.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.npz"


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the storage can't be used now, rather than that a file is not as it should be."""
    wrong = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
    return isinstance(error, STORAGE_ERRORS) and not isinstance(error, wrong)


def is_local(path: UPath) -> bool:
    """Whether a path is one of this machine's file system, not an object store's."""
    return path.protocol in ("", "file")


def read_bytes(path: UPath, first: int | None = None) -> bytes:
    """A file's content, or its `first` bytes; one request to an object store, which opening it would ask for its size.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_local(path):
        with Path(path.path).open("rb") as file:
            return file.read(first)
    if first is not None:
        return bytes(path.fs.cat_file(path.path, start=0, end=first))
    at_once = {"max_concurrency": 1} if path.protocol in ("s3", "s3a") else {}
    return bytes(path.fs.cat_file(path.path, **at_once))


def write_bytes(path: UPath, data: bytes) -> None:
    """Replace a file's content atomically: readers see the old bytes or the new ones, never a mixture.

    A local file is written beside its place, synced and renamed; on an object store a put is atomic by itself.
    """
    if not is_local(path):
        path.fs.pipe_file(path.path, data)
        return
    target = Path(path.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):  # the write's own error is the one to report
            unfinished.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: UPath) -> None:
    """Remove what killed writers have left behind in this folder."""
    if is_local(folder):
        for path in Path(folder.path).glob(".*.part"):
            path.unlink(missing_ok=True)
