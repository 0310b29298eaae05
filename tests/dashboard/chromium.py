"""A real browser, a server to look at, and a proxy between them."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from dashboard.serve import command
from tests.conftest import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WAIT_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Server:
    """A server that runs; `log` is a file that gets all its output."""

    address: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def output(self) -> str:
        return self.log.read_text()


@contextmanager
def _running(line: Sequence[str], port: int, log: Path, environment: Mapping[str, str], sign: str) -> Iterator[Server]:
    with (
        log.open("wb") as output,
        subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment) as process,
    ):
        try:
            server = Server(f"http://127.0.0.1:{port}", port, log, process)
            while sign not in server.output:
                assert process.poll() is None, server.output
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            yield server
        finally:
            process.terminate()


@contextmanager
def served(place: Path, log: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The dashboard of a sweep or a storage."""
    port = free_port()
    with _running(command(str(place), port, options), port, log, environment or {}, "Dashboard of ") as server:
        yield server


@contextmanager
def served_script(script: str, folder: Path) -> Iterator[Server]:
    """A script, served as the dashboard's own is."""
    (folder / "script.py").write_text(script)
    start = f"from dashboard import serve; serve.APP = {str(folder / 'script.py')!r}; serve.main()"
    port = free_port()
    line = [sys.executable, "-c", start, "a test", "--port", str(port), "--no-token"]
    with _running(line, port, folder / "log", {}, "Dashboard of ") as server:
        yield server


@contextmanager
def proxied(port: int) -> Iterator[int]:
    """The port of a proxy that hands on what it gets, as it is, sockets too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int) -> None:
    with suppress(OSError):  # the listener is shut down
        while True:
            near, _ = listener.accept()
            threading.Thread(target=_connect, args=(near, port), daemon=True).start()


def _connect(near: socket.socket, port: int) -> None:
    with near, socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=_copy, args=(far, near), daemon=True)
        back.start()
        _copy(near, far)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
