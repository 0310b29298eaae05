"""Fetch a prepared set into a folder of this machine: several files at a time, each verified while it is written."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from sweep.data.build import Progress
from sweep.data.place import Folder, read
from sweep.data.prepared import sync_folder
from sweep.data.set_index import File, SetIndex

_FILES = 8  # fetched at a time
CHUNK = 8 * 2**20  # bytes of one request
_LOOK_EVERY_S = 0.1


class DamagedFileError(ValueError):
    """A file of a prepared set is not what its index says, though it was fetched twice."""


class _AbandonedError(Exception):
    """Another file's error, or a stop, has ended the whole fetch."""


def fetch_files(source: Folder, index: SetIndex, folder: Path, report: Progress, check: Callable[[], None]) -> None:
    """Fetch all files of a set but its index; those that lie complete in `folder` are only verified.

    `check` is called often and may raise an error, which ends the fetch.

    Raises:
        DamagedFileError: a file is not what the index says.
        UnreachableError: the source can't be read.
        OSError: the folder can't be written.
    """
    fetching = _Fetching(source, folder)
    with ThreadPoolExecutor(_FILES) as pool:
        running = {pool.submit(fetching.file, name, file) for name, file in index.files.items()}
        try:
            while running:
                done, running = wait(running, _LOOK_EVERY_S, FIRST_COMPLETED)
                _raise_first(done)
                report(fetching.done, index.size, "bytes")
                check()
        except BaseException:
            fetching.abandoned.set()
            pool.shutdown(cancel_futures=True)
            raise
    sync_folder(folder)


def _raise_first(done: "set[Future[None]]") -> None:
    for future in done:
        future.result()


class _Fetching:
    """One fetch: how many bytes are there, and whether it has been abandoned."""

    def __init__(self, source: Folder, folder: Path) -> None:
        self._source, self._folder = source, folder
        self._lock = threading.Lock()
        self.done = 0
        self.abandoned = threading.Event()

    def file(self, name: str, file: File) -> None:
        """Verify a file that is there; else fetch it, and once more if it is not what the index says."""
        if self._is_there(name, file):
            return
        for _ in range(2):
            if self._fetched(name, file):
                return
        raise DamagedFileError(
            f"{self._source / name} is not what its index says (another sha256); prepare the set again"
        )

    def _is_there(self, name: str, file: File) -> bool:
        try:
            with (self._folder / name).open("rb") as stream:
                same = hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
        except FileNotFoundError:
            return False
        if same:
            self._count(file.size)
        return same

    def _fetched(self, name: str, file: File) -> bool:
        digest = hashlib.sha256()
        unfinished = self._folder / f".{name}.part"
        with unfinished.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(stream.fileno(), 0, file.size)
            for start in range(0, file.size, CHUNK):
                content = self._chunk(self._source / name, start, min(start + CHUNK, file.size))
                digest.update(content)
                stream.write(content)
                self._count(len(content))
            stream.flush()
            os.fsync(stream.fileno())
            got = stream.tell()
        if digest.hexdigest() != file.sha256:
            self._count(-got)
            return False
        unfinished.replace(self._folder / name)
        return True

    def _chunk(self, path: Folder, start: int, stop: int) -> bytes:
        if self.abandoned.is_set():
            raise _AbandonedError
        try:
            return read(path, lambda: _range(path, start, stop))
        except FileNotFoundError as error:
            raise DamagedFileError(f"{path} is missing, though its index names it; prepare the set again") from error

    def _count(self, size: int) -> None:
        with self._lock:
            self.done += size


def _range(path: Folder, start: int, stop: int) -> bytes:
    if isinstance(path, Path):
        with path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)
    return bytes(path.fs.cat_file(path.path, start=start, end=stop))
