"""An S3 that fails on order, served by a process of its own.

    python faulty_s3.py PORT SAFE_PORT

Both ports serve the same store, but requests at SAFE_PORT are always answered: they are those of who looks on. Orders
come on standard input, a line each; the answer to each is the number of requests struck since the one before. The
process ends with its input.
"""

import random
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal, get_args

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Order = Literal["answer", "unavailable", "expired", "lose answers"]
HOST = "127.0.0.1"
LOST = 0.3  # of the answers to PUTs

_Environ = dict[str, Any]
_Application = Callable[[_Environ, Any], Iterable[bytes]]
_Refusal = tuple[str, str, str]
"""HTTP's status, and S3's code and message."""
_REFUSALS: dict[Order, _Refusal] = {
    "unavailable": ("503 Service Unavailable", "ServiceUnavailable", "Please reduce your request rate."),
    "expired": ("403 Forbidden", "ExpiredToken", "The provided token has expired."),
}
_LOST: _Refusal = ("500 Internal Server Error", "InternalError", "We encountered an internal error.")


class FaultyS3:
    """A WSGI application that does as ordered and otherwise what another one does."""

    def __init__(self, application: _Application) -> None:
        self.order: Order = "answer"
        self.struck = 0
        self._application = application
        self._rng, self._lock = random.Random(0), threading.Lock()

    def __call__(self, environ: _Environ, start_response: Any) -> Iterable[bytes]:
        order = self.order
        if order in _REFUSALS:
            self._count()
            return _refuse(environ, start_response, _REFUSALS[order])
        if order == "lose answers" and environ["REQUEST_METHOD"] == "PUT" and self._drawn(LOST):
            self._count()
            return self._lose(environ, start_response)
        return self._application(environ, start_response)

    def _lose(self, environ: _Environ, start_response: Any) -> Iterable[bytes]:
        """Do what is asked, but say that it failed, or nothing at all."""
        for _ in self._application(environ, lambda *_: None):
            pass
        if self._drawn(0.5):
            return _refuse(environ, start_response, _LOST)
        with suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("200 OK", [])
        return [b""]

    def _drawn(self, share: float) -> bool:
        with self._lock:
            return self._rng.random() < share

    def _count(self) -> None:
        with self._lock:
            self.struck += 1


def _refuse(environ: _Environ, start_response: Any, refusal: _Refusal) -> Iterable[bytes]:
    status, code, message = refusal
    with suppress(OSError):  # a body left unread would keep the client from reading the answer
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(status, [("Content-Type", "application/xml")])
    said = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else said.encode()]


def main() -> None:
    store: _Application = DomainDispatcherApplication(create_backend_app)
    faulty = FaultyS3(store)
    applications: tuple[_Application, ...] = (faulty, store)
    for port, application in zip(map(int, sys.argv[1:]), applications, strict=True):
        server = make_server(HOST, port, application, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        order = line.strip()
        assert order in get_args(Order), order
        faulty.order = order  # type: ignore[assignment]  # one of them
        struck, faulty.struck = faulty.struck, 0
        print(struck, flush=True)


if __name__ == "__main__":
    main()
