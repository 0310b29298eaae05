"""Prepare a set on purpose, as `sweep prepare` does: into this machine's cache, or into a folder or URL for others."""

import errno
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from sweep.data.build import Progress, Target, Wanted, build, recalled
from sweep.data.index import cache_folder
from sweep.data.parallel import Mapper
from sweep.data.place import Folder, UnreachableError, as_folder
from sweep.data.prepare import finish, is_whole, silent
from sweep.data.prepared import CacheError, full, reserve
from sweep.data.registry import Source, source_of_set
from sweep.data.room import make_room, unfinished_folder, working_alone
from sweep.data.set_index import INDEX, SetIndex, WrongIndexError, read_index
from sweep.store.files import remove_file, require_writable


@dataclass(frozen=True)
class Made:
    """A prepared set, what was found at its source, and where it lies."""

    index: SetIndex
    source: Source
    folder: Folder


def prepare_here(wanted: Wanted, mapped: Mapper, report: Progress = silent) -> Made:
    """Make a set in this machine's cache, unless it is there.

    Raises:
        ValueError: the source holds no such data set.
        CacheError: there is no space for it, or no permission to write it.
    """
    cache = cache_folder()
    known = recalled(wanted)
    if known is not None and is_whole(folder := cache / wanted.spec_of(known).key):
        return Made(read_index(folder), known, folder)
    unfinished = unfinished_folder(cache / _name(wanted))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with working_alone(cache / _name(wanted)):
            target = Target(folder=unfinished, begin=lambda size: make_room(unfinished, size))
            index, source = _built(wanted, target, mapped, report)
            folder = cache / index.spec.key
            with working_alone(folder):
                if is_whole(folder):
                    shutil.rmtree(unfinished)
                else:
                    finish(unfinished, folder, index)
            return Made(index, source, folder)
    except OSError as error:
        raise _in_words(error, cache) from error


def prepare_to(wanted: Wanted, to: str, mapped: Mapper, report: Progress = silent) -> Made:
    """Make a set in a folder of its own below a folder or URL, unless it is there.

    Raises:
        ValueError: the source holds no such data set, or the target can't be written.
        CacheError: there is no space for it.
    """
    top = as_folder(to)
    require_writable(UPath(top), "--to")
    folder = top / _name(wanted)
    known = recalled(wanted)
    index = _complete(folder)
    if known is not None and index is not None and index.spec == wanted.spec_of(known):
        return Made(index, source_of_set(index), folder)

    def begin(size: int) -> None:
        remove_file(UPath(folder / INDEX))  # what is being replaced is no set
        if isinstance(folder, Path):
            folder.mkdir(exist_ok=True)
            reserve(folder, max(0, size - sum(path.stat().st_size for path in folder.iterdir())))

    try:
        index, source = build(wanted, Target(folder=folder, begin=begin), mapped, report, lambda: None)
    except OSError as error:
        raise _in_words(error, folder) from error
    return Made(index, source, folder)


def _complete(folder: Folder) -> SetIndex | None:
    try:
        return read_index(folder)
    except (FileNotFoundError, WrongIndexError):
        return None
    except UnreachableError as error:
        raise ValueError(str(error)) from error


def _built(wanted: Wanted, target: Target, mapped: Mapper, report: Progress) -> tuple[SetIndex, Source]:
    """`build` in the cache: what is complete is kept for the next time only where the process is ended."""
    try:
        return build(wanted, target, mapped, report, lambda: None)
    except (UnreachableError, ChildProcessError):
        raise
    except (ValueError, OSError):
        shutil.rmtree(str(target.folder), ignore_errors=True)
        raise


def _in_words(error: OSError, folder: Folder) -> Exception:
    if isinstance(error, CacheError | UnreachableError | ChildProcessError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(Path(str(folder)), error.strerror or "no space")
    return CacheError(f"can't write to {folder}: {error.strerror or error}")


def _name(wanted: Wanted) -> str:
    """A name for a set before its pictures are known."""
    digest = hashlib.sha256(json.dumps([wanted.seed, wanted.stored_options], sort_keys=True).encode()).hexdigest()
    return f"{wanted.name}-{wanted.image_size}-{digest[:12]}"
