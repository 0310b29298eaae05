"""What readers note on a sweep and its trials: a line of text and a star, in `notes/sweep.json` and
`notes/<trial_id>.json`. Of two who write the same note at once, the later one wins. Knows neither torch nor Ray.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from upath import UPath

from analysis.write import is_local, read_bytes
from sweep.store.files import children, remove_file, write_json
from sweep.store.sweep_dir import SweepDir, is_sweep

SWEEP = "sweep"
"""The name of the sweep's own note; no trial is called so."""
TEXT_LIMIT, WHO_LIMIT = 1000, 200  # characters
_FILE_LIMIT = 16 * 1024  # bytes, more than a note of that many characters takes
_LAST = 32503680000  # the year 3000; what lies far beyond is no date
_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Note:
    """A reader's note; `noted_at` is seconds since 1970, and `who` is empty where it isn't known."""

    text: str = ""
    star: bool = False
    who: str = ""
    noted_at: Annotated[float, Field(ge=0, le=_LAST)] = 0.0


_NOTE = TypeAdapter(Note)


class Notes(dict[str, Note]):
    """Notes by trial id, and the sweep's own as `SWEEP`; `damaged` has a message for each file that isn't one."""

    def __init__(self) -> None:
        super().__init__()
        self.damaged: list[str] = []


class _Listed(NamedTuple):
    """A note's file; `version` changes when it is written."""

    file: UPath
    size: int
    version: str


_read: dict[str, dict[_Listed, Note | str]] = {}
"""By sweep, what this process found in each version of a file: a note, or what is wrong with it."""


def read_notes(sweep: UPath) -> Notes:
    """All notes of a sweep: lists them, and reads those that have changed since this process last did.

    A listing is one request to S3 for each thousand notes. Texts may contain anything.
    """
    known = _read.get(str(sweep), {})
    listed = _files(SweepDir(sweep).notes)
    new = [entry for entry in listed if entry not in known]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = known | {entry: content for entry, content in zip(new, pool.map(_content, new), strict=True) if content}
    _read[str(sweep)] = {entry: found[entry] for entry in listed if entry in found}
    notes = Notes()
    for entry, content in _read[str(sweep)].items():
        if isinstance(content, Note):
            notes[entry.file.stem] = content
        else:
            notes.damaged.append(content)
    return notes


def write_note(sweep: UPath, about: str, text: str, *, star: bool = False, who: str = "") -> None:
    """Leave a note on a trial, or on the sweep (`about` is a trial id or `SWEEP`), in place of an earlier one.

    The text is put on one line. Without a text or a star, the note is removed.

    Raises:
        ValueError: there is no such sweep or trial, or the text is too long.
    """
    line, writer = _one_line(text), _one_line(who)
    if len(line) > TEXT_LIMIT or len(writer) > WHO_LIMIT:
        raise ValueError(
            f"a note has at most {TEXT_LIMIT} characters and its writer's name {WHO_LIMIT}, not {len(line)} and "
            f"{len(writer)}; shorten it"
        )
    if not is_sweep(sweep):
        raise ValueError(f"there is no sweep at {sweep}; it may have been removed or renamed")
    if about != SWEEP and not SweepDir(sweep).has_trial(about):
        raise ValueError(f"{sweep.name} has no trial {about!r}; see `sweep status {sweep}`")
    file = SweepDir(sweep).notes / f"{about}.json"
    if line or star:
        write_json(file, asdict(Note(text=line, star=star, who=writer, noted_at=time.time())))
    else:
        remove_file(file)


def _one_line(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())


def _files(folder: UPath) -> list[_Listed]:
    """The notes in a folder, which need not exist, by name."""
    files = _local_files(folder) if is_local(folder) else _remote_files(folder)
    return sorted(files, key=lambda listed: listed.file.name)


def _is_note(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _local_files(folder: UPath) -> Iterator[_Listed]:
    for name in filter(_is_note, children(folder)):
        with suppress(FileNotFoundError):
            stat = (Path(folder.path) / name).stat()
            yield _Listed(folder / name, stat.st_size, f"{stat.st_mtime_ns} {stat.st_ino}")


def _remote_files(folder: UPath) -> Iterator[_Listed]:
    try:
        found: list[dict[str, Any]] = folder.fs.ls(folder.path, detail=True, refresh=True)  # others write there too
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        name = entry["name"].rsplit("/", 1)[-1]
        if _is_note(name):
            said = [entry.get(key) for key in ("ETag", "LastModified", "created")]  # as the kind of store has them
            yield _Listed(folder / name, int(entry["size"] or 0), str(said))


def _content(listed: _Listed) -> Note | str | None:
    """A note, what is wrong with it, or None if it was removed meanwhile."""
    if listed.size > _FILE_LIMIT:
        return _damaged(listed.file, f"{listed.size} bytes")
    try:
        return _NOTE.validate_json(read_bytes(listed.file))
    except (FileNotFoundError, IsADirectoryError):
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        return _damaged(listed.file, " ".join(str(error).split()))


def _damaged(file: UPath, said: str) -> str:
    return f"{file} is not a note ({said}); remove it, or write the note again"
