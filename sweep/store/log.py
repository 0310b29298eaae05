"""A trial's log: what happened to it, attempt after attempt, a line each, in `log.txt`."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath

from sweep.store.files import STORAGE_ERRORS, read_text, write_text

logger = logging.getLogger("sweep")
logger.setLevel(logging.INFO)


@contextmanager
def logged_to(file: UPath) -> Iterator[None]:
    """Write what this process logs during the block to a trial's log file."""
    handler = _Lines(file)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    """Appends lines to a file; an object store can't append, so there the whole file is rewritten.

    A line that can't be written is lost: the trial matters more than its log.
    """

    def __init__(self, file: UPath) -> None:
        super().__init__(logging.INFO)
        self._file = file
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ"))
        self.formatter.converter = time.gmtime  # type: ignore[union-attr]  # set a line above

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        with suppress(*STORAGE_ERRORS):
            if self._file.protocol in ("", "file"):
                with Path(self._file.path).open("a", encoding="utf-8", errors="backslashreplace") as stream:
                    stream.write(line)
            else:
                before = read_text(self._file) if self._file.exists() else ""
                write_text(self._file, before + line)
