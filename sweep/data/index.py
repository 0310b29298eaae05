"""What the picture files of a folder hold, cached per machine: each is read once, then only its stamp is checked.

The cache is a table under `$SWEEP_CACHE/pictures`, one for each folder. It only saves time: where it is missing,
damaged or written by another version, the files are read again.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import PIL
from upath import UPath

from analysis.write import write_bytes
from sweep.data.pictures import Examined, decoders, examine

_RULES = "1"  # raise it when the judgement of a file may change: old caches are then ignored
_CHUNK = 4096
_SAVE_EVERY_S = 60.0
_RACY_NS = 2 * 10**9  # the coarsest clock of a file system (FAT); a file may change twice within a tick


@dataclass(frozen=True)
class Known:
    """What a file held when it had a stamp."""

    stamp: str
    read_ns: int
    examined: Examined

    def holds(self, stamp: str) -> bool:
        return self.stamp == stamp and is_settled(stamp, self.read_ns)

    def to_row(self) -> list[Any]:
        seen = self.examined
        return [self.stamp, self.read_ns, seen.sha256, seen.unusable, seen.flat, seen.levels]

    @classmethod
    def from_row(cls, row: list[Any]) -> "Known":
        stamp, read_ns, *examined = row
        return cls(stamp, read_ns, Examined(*examined))


@dataclass(frozen=True)
class Examination:
    """What files hold, and which of them have changed since they were last read."""

    examined: dict[str, Examined]
    changed: list[str]


Watch = Callable[[int, int], None]
"""Called while files are read, with the number done and the number to read."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


# All data sets are inspected through one signature, so progress takes this side channel to the terminal.
_watch: ContextVar[Watch] = ContextVar("watch", default=silent)


def cache_folder() -> Path:
    """Where prepared data lies on this machine: `$SWEEP_CACHE`, by default `~/.cache/weight-banding`."""
    if said := os.environ.get("SWEEP_CACHE"):
        return Path(said)
    try:
        return Path.home() / ".cache" / "weight-banding"
    except RuntimeError as error:  # users in containers often have neither
        raise ValueError("this user has no home folder; set SWEEP_CACHE to a folder for prepared data") from error


def stamp_of(path: Path) -> str:
    """What changes when a file's content does: size, both times, and which file it is."""
    info = path.stat()
    return f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {info.st_ino}"


def is_settled(stamp: str, read_ns: int) -> bool:
    """Whether a file was old enough when it was read that any later change gets a new time."""
    _, modified, changed, _ = (int(part) for part in stamp.split())
    return read_ns - max(modified, changed) > _RACY_NS


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """Report the progress of reading pictures within this block to `watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def examine_all(root: Path, names: Sequence[str]) -> Examination:
    """What each file below `root` holds; cached ones are not read again."""
    file = _table(root)
    known = _read(file)
    before = {name: row.examined.sha256 for name, row in known.items()}
    stamps = {name: _stamp_or_reason(root / name) for name in names}
    stale = [name for name, stamp in stamps.items() if name not in known or not known[name].holds(stamp)]
    fleeting: dict[str, Examined] = {}
    saved = time.monotonic()
    with decoders() as pool:
        for start in range(0, len(stale), _CHUNK):
            chunk = stale[start : start + _CHUNK]
            for name, row in zip(chunk, pool.map(partial(_look, root), chunk), strict=True):
                if isinstance(row, Known):
                    known[name] = row
                else:
                    fleeting[name] = row
            _watch.get()(start + len(chunk), len(stale))
            if time.monotonic() - saved > _SAVE_EVERY_S:
                _write(file, known)
                saved = time.monotonic()
    examined = {name: fleeting.get(name) or known[name].examined for name in names}
    if stale:
        _save(file, known, names)
    changed = [name for name in stale if before.get(name, examined[name].sha256) != examined[name].sha256]
    return Examination(examined, changed)


def recall_all(root: Path, names: Sequence[str]) -> Examination | None:
    """What `examine_all` would say, where it would read no file; else None."""
    known = _read(_table(root))
    if all(name in known and known[name].holds(_stamp_or_reason(root / name)) for name in names):
        return Examination({name: known[name].examined for name in names}, [])
    return None


def remember(root: Path, seen: Mapping[str, Known]) -> list[str]:
    """Enter what files below `root` held when they were read; returns those that held something else before.

    What couldn't be read has no stamp and is not entered.
    """
    file = _table(root)
    known = _read(file)
    changed = [name for name, row in seen.items() if name in known and known[name].examined != row.examined]
    _save(file, known | {name: row for name, row in seen.items() if row.stamp}, list(seen))
    return changed


def _save(file: Path, known: dict[str, Known], names: Sequence[str]) -> None:
    forgotten = len(known) > 2 * len(names) + 1000  # mostly of files that are gone
    _write(file, {name: known[name] for name in names if name in known} if forgotten else known)


def _table(root: Path) -> Path:
    return cache_folder() / "pictures" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.json"


def _look(root: Path, name: str) -> Known | Examined:
    """What a file holds; not cached where it can't be read, which may work the next time."""
    try:
        stamp, read_ns = stamp_of(root / name), time.time_ns()
        known = Known(stamp, read_ns, examine(root / name))
        return known if stamp_of(root / name) == stamp else Examined("", "it changed while it was read")
    except OSError as error:
        return Examined("", f"it can't be read: {error.strerror}")


def _stamp_or_reason(path: Path) -> str:
    """A stamp, or an empty text, which matches none: reading the file will then give the reason."""
    try:
        return stamp_of(path)
    except OSError:
        return ""


def _read(file: Path) -> dict[str, Known]:
    try:
        head, body = file.read_bytes().split(b"\n", 1)
        if json.loads(head) != _head(body):
            return {}
        rows = json.loads(body)
    except (OSError, ValueError):
        return {}
    return {name: Known.from_row(row) for name, row in rows.items()}


def _write(file: Path, known: dict[str, Known]) -> None:
    body = json.dumps({name: row.to_row() for name, row in known.items()}, separators=(",", ":")).encode()
    with suppress(OSError):  # a full or unwritable cache only costs time at the next reading
        write_bytes(UPath(file), json.dumps(_head(body)).encode() + b"\n" + body)


def _head(body: bytes) -> dict[str, str]:
    """What must match for a cache to be used."""
    return {"rules": _RULES, "pillow": PIL.__version__, "sha256": hashlib.sha256(body).hexdigest()}
