"""A trial's log: what happened to it, attempt after attempt, a line each, in `log.txt`."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock, Timer

from upath import UPath

from analysis.write import is_local
from sweep.store.files import STORAGE_ERRORS, read_text, write_text

logger = logging.getLogger("sweep")
logger.setLevel(logging.INFO)
WRITE_AFTER_S = 5.0
"""How long a line may wait for others before an object store gets them."""


@contextmanager
def logged_to(file: UPath) -> Iterator[None]:
    """Write what this process logs during the block to a trial's log file."""
    handler = _Appended(file) if is_local(file) else _Rewritten(file)
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


class _Appended(logging.Handler):
    """Appends each line to a local file. A line that can't be written is lost: the trial matters more than its log."""

    def __init__(self, file: UPath) -> None:
        super().__init__(logging.INFO)
        self._file = Path(file.path)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError), self._file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(self.format(record) + "\n")


class _Rewritten(logging.Handler):
    """Collects lines and rewrites the whole file with them now and then: an object store can't append.

    While the store is away, lines wait for the next one.
    """

    def __init__(self, file: UPath) -> None:
        super().__init__(logging.INFO)
        self._file = file
        self._waiting = ""
        self._timer: Timer | None = None
        self._access = RLock()

    def emit(self, record: logging.LogRecord) -> None:
        with self._access:
            self._waiting += self.format(record) + "\n"
            if self._timer is None:
                self._timer = Timer(WRITE_AFTER_S, self._write)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Write the lines that wait."""
        if self._timer is not None:
            self._timer.cancel()
        self._write()
        super().close()

    def _write(self) -> None:
        with self._access, suppress(*STORAGE_ERRORS):
            self._timer = None
            if self._waiting:
                write_text(self._file, _content(self._file) + self._waiting)
                self._waiting = ""


def _content(file: UPath) -> str:
    try:
        return read_text(file)
    except FileNotFoundError:
        return ""
