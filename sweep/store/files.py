"""Files of a sweep: JSON and text written whole or not at all, on a local disk or an object store.

fsspec's `rm`, `mv` and `glob`, and with them `UPath.unlink` and `UPath.glob`, read `[`, `*` and `?` in a key as a
pattern. A sweep's path may contain them, so files are removed and moved here, key by key and exactly.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from fsspec.asyn import sync
from upath import UPath

from analysis.write import STORAGE_ERRORS as STORAGE_ERRORS
from analysis.write import is_local, read_bytes, write_bytes
from analysis.write import is_outage as is_outage
from analysis.write import remove_unfinished as remove_unfinished

_AT_ONCE = 1000  # keys that S3 removes in one request
_NO_STORAGE: tuple[type[Exception], ...] = (*STORAGE_ERRORS, ImportError)


def absolute(name: str | UPath) -> UPath:
    """A storage or sweep as the user names it: a URL unchanged, a local path made absolute, with `~` expanded."""
    path = UPath(name)
    return UPath(Path(path.path).expanduser().absolute()) if is_local(path) else path


def write_text(path: UPath, text: str) -> None:
    """`write_bytes` for UTF-8 text; what UTF-8 can't hold (names of files that aren't UTF-8) is written as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def read_text(path: UPath) -> str:
    """The content of a text file, with the replacement character for bytes that aren't UTF-8."""
    return read_bytes(path).decode(errors="replace")


def write_json(path: UPath, value: Any) -> None:
    """`write_bytes` for JSON; not-a-number and infinity are errors."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def create_json(path: UPath, value: Any) -> None:
    """Create a JSON file that must not exist yet: if several try at once, one succeeds.

    Raises:
        FileExistsError: it exists.
    """
    data = (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    if not is_local(path):
        path.fs.pipe_file(path.path, data, mode="create")
        return
    target = Path(path.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    written.write_bytes(data)
    try:
        target.hardlink_to(written)  # the name appears with its whole content, or not at all
    finally:
        written.unlink()


def read_json(path: UPath) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: the file is not JSON; the message names it.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and run `sweep resume`") from error


def remove_file(path: UPath) -> None:
    """Remove one file; it need not exist."""
    remove_files([path])


def remove_files(paths: Sequence[UPath]) -> None:
    """Remove files in any order, on S3 a thousand at a time; they need not exist."""
    if not paths:
        return
    if is_local(paths[0]):
        for path in paths:
            Path(path.path).unlink(missing_ok=True)
        return
    _remove_keys(paths[0].fs, [path.path for path in paths])


def remove_folder(folder: UPath) -> None:
    """Remove a folder and all in it; it need not exist."""
    if is_local(folder):
        with suppress(FileNotFoundError):
            shutil.rmtree(folder.path)
        return
    _remove_keys(folder.fs, _keys(folder))


def move(source: UPath, target: UPath) -> None:
    """Move a file, or a folder with all in it; in one step on a local disk, key by key on an object store."""
    if is_local(source):
        Path(target.path).parent.mkdir(parents=True, exist_ok=True)
        Path(source.path).rename(target.path)
        return
    for key in _keys(source):
        source.fs.cp_file(key, target.path + key.removeprefix(source.path))
        source.fs.rm_file(key)


def files_below(folder: UPath) -> set[str]:
    """Names of all files below a folder, relative to it; one request to S3 for each thousand. It need not exist."""
    if is_local(folder):
        top = Path(folder.path)
        return {Path(place, name).relative_to(top).as_posix() for place, _, names in os.walk(top) for name in names}
    if folder.protocol in ("s3", "s3a"):  # else s3fs asks twice more whether an empty folder is a file
        keys = folder.fs.find(folder.parent.path, prefix=f"{folder.name}/")
    else:
        keys = folder.fs.find(folder.path)
    return {key.removeprefix(folder.path).lstrip("/") for key in keys}


def sizes_below(folder: UPath) -> dict[str, int]:
    """The size in bytes of each file below a folder, by its name relative to it, sorted. It need not exist."""
    if is_local(folder):
        top = Path(folder.path)
        files = [Path(place, name) for place, _, names in os.walk(top) for name in names]
        sizes = {file.relative_to(top).as_posix(): _size(file) for file in files}
    else:
        found = folder.fs.find(folder.path, detail=True)
        sizes = {key.removeprefix(folder.path).lstrip("/"): int(entry["size"] or 0) for key, entry in found.items()}
    return {name: size for name, size in sorted(sizes.items()) if size is not None}


def _size(file: Path) -> int | None:
    """None if the file is gone meanwhile."""
    with suppress(FileNotFoundError):
        return file.lstat().st_size
    return None


def version_of(file: UPath) -> str | None:
    """What changes when a file is written, None if there is none; one request to the storage."""
    try:
        return entry_version(file.fs.info(file.path))
    except FileNotFoundError:
        return None


def entry_version(entry: Mapping[str, Any]) -> str:
    """What changes when the file of an entry of fsspec's is written.

    A file that is replaced as a whole gets a new inode on a disk, and an ETag of its content on an object store.
    """
    told = [entry.get(key) for key in ("ETag", "etag", "ino", "mtime", "LastModified", "updated", "created", "size")]
    return "-".join(str(fact) for fact in told if fact is not None)


def children(folder: UPath) -> list[str]:
    """Names of what lies directly in a folder, sorted; it need not exist."""
    try:
        if is_local(folder):
            return sorted(path.name for path in Path(folder.path).iterdir())
        found = folder.fs.ls(folder.path, detail=False, refresh=True)  # others write there too
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = {key.removeprefix(folder.path).strip("/") for key in found}
    return sorted(names - {""})  # the folder itself, where a tool has made a key for it


def _keys(path: UPath) -> list[str]:
    """The keys of an object store at and below a path."""
    return list(path.fs.find(path.path))


def _remove_keys(store: Any, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        if len(part) > 1 and hasattr(store, "_bulk_delete"):  # s3fs: its public `rm` would read patterns in keys
            with suppress(*STORAGE_ERRORS):
                sync(store.loop, store._bulk_delete, part)
                continue  # else key by key: not every store that speaks S3 removes many at once
        for key in part:
            with suppress(FileNotFoundError):
                store.rm_file(key)


def require_writable(folder: UPath, option: str = "--storage") -> None:
    """Create a folder and prove that files can be written there; `option` is where the user gave it.

    Raises:
        ValueError: it can't be written; the message says why.
    """
    try:
        if is_local(folder):
            folder.mkdir(parents=True, exist_ok=True)  # on an object store this would create a bucket
        prove_writable(folder)
    except _NO_STORAGE as error:
        raise ValueError(f"can't write to {folder}: {error}; give a writable {option}") from error


def prove_writable(folder: UPath) -> None:
    """Write a file and remove it again; what the storage raises is not caught."""
    probe = folder / f".probe-{uuid4().hex[:8]}"
    write_bytes(probe, b"probe")
    remove_file(probe)
