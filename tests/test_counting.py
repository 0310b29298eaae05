"""The counted S3 counts every request, of this process and of others, and fails those it is told to."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from upath import UPath

from tests.counting import CountedS3, counted_s3, served

PUT = "import s3fs; s3fs.S3FileSystem().pipe_file('counted/of another', b'process')"


@pytest.fixture
def server(object_store: int) -> Iterator[CountedS3]:
    with counted_s3(object_store) as server:
        UPath("s3://counted").mkdir(exist_ok=True)
        server.requests.clear()
        yield server


def test_requests_of_all_processes_are_counted_with_their_keys(server: CountedS3) -> None:
    subprocess.run([sys.executable, "-c", PUT], check=True)
    store = UPath("s3://counted").fs
    store.pipe_file("counted/a [b]/é", b"")
    store.find("counted/a [b]")
    assert server.requests == [("PUT", "counted/of another"), ("PUT", "counted/a [b]/é"), ("LIST", "counted/a [b]/")]
    assert server.counts() == {"PUT": 2, "LIST": 1}


def test_requests_fail_as_ordered_and_no_longer(server: CountedS3) -> None:
    store = UPath("s3://counted").fs
    server.answer = lambda method, key: 403 if (method, key) == ("PUT", "counted/refused") else None
    store.pipe_file("counted/taken", b"")
    with pytest.raises(OSError, match="failed on order"):
        store.pipe_file("counted/refused", b"content" * 10_000)
    server.answer = served
    store.pipe_file("counted/refused", b"content")
    assert store.cat_file("counted/refused") == b"content"
