"""An S3 on this machine that counts what is asked of it, by any process, and fails where it is told to."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
Answer = Callable[[str, str], int | None]
"""From a request's method and key to the status with which it fails, or None to serve it."""


class Request(NamedTuple):
    """One request; `key` begins with the bucket, as a UPath's `path` does.

    `method` is HTTP's, and LIST for a listing, whose key is the prefix. POST on a bucket removes many keys at once.
    """

    method: str
    key: str


def served(method: str, key: str) -> int | None:
    """An Answer that lets every request through."""
    return None


class CountedS3:
    """The requests so far, in order; `answer` decides about each one that comes, from any thread."""

    def __init__(self, application: Application) -> None:
        self.requests: list[Request] = []
        self.answer: Answer = served
        self._application = application
        self._lock = threading.Lock()

    def counts(self) -> Counter[str]:
        """The number of requests of each method."""
        return Counter(request.method for request in self.requests)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = _request(environ)
        with self._lock:
            self.requests.append(request)
            status = self.answer(*request)
        if status is None:
            return self._application(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # else the client can't read the answer
        start_response(f"{status} Ordered", [("Content-Type", "application/xml")])
        return [f"<Error><Code>Ordered{status}</Code><Message>failed on order</Message></Error>".encode()]


@contextmanager
def counted_s3(port: int) -> Iterator[CountedS3]:
    """Serve an S3 at a port; the fixture `object_store` gives the one that this process and its children ask."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is a development extra")
    pytest.importorskip("s3fs", reason="s3fs comes with the extra `cluster`")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    counting = CountedS3(server._server.app)
    server._server.app = counting
    try:
        yield counting
    finally:
        server.stop()


def _request(environ: dict[str, Any]) -> Request:
    key = environ["PATH_INFO"].encode("latin-1").decode().strip("/")
    asked = parse_qs(environ["QUERY_STRING"])
    if "list-type" in asked:
        return Request("LIST", "/".join([key, *asked.get("prefix", [])]))
    return Request(environ["REQUEST_METHOD"], key)
