"""How old a file is, told by the clock of the store that holds it: hosts' clocks may be wrong by any amount."""

import os
import time
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from fsspec.asyn import sync
from upath import UPath

from analysis.write import is_local, read_bytes


@dataclass(frozen=True)
class Dated:
    """A file's content; `modified` and `now`, when it was written and read, are seconds of the store's clock."""

    content: bytes
    modified: float
    now: float

    @property
    def age_s(self) -> float:
        return self.now - self.modified


def read_dated(file: UPath) -> Dated:
    """Read a file with its age; changes nothing that anyone could see.

    An S3 dates its answers. A file system dates a nameless file; where none can be made, and on other object stores,
    this machine's clock has to do.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_local(file):
        with Path(file.path).open("rb") as stream:
            content, modified = stream.read(), os.fstat(stream.fileno()).st_mtime
        return Dated(content, modified, _time_in(Path(file.path).parent))
    if file.protocol in ("s3", "s3a"):
        dated: Dated = sync(file.fs.loop, _of_s3, file.fs, file.path)
        return dated
    modified_at: datetime = file.fs.modified(file.path)
    return Dated(read_bytes(file), modified_at.timestamp(), time.time())


def _time_in(folder: Path) -> float:
    try:
        with TemporaryFile(dir=folder) as nameless:
            return os.fstat(nameless.fileno()).st_mtime
    except OSError:  # it may not be written there
        return time.time()


async def _of_s3(store: Any, path: str) -> Dated:
    bucket, key, _ = store.split_path(path)
    answer = await store._call_s3("get_object", Bucket=bucket, Key=key)
    async with answer["Body"] as body:
        content = await body.read()
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = time.time() if said is None else parsedate_to_datetime(said).timestamp()
    return Dated(content, answer["LastModified"].timestamp(), now)
