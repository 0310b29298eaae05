"""The dashboard's server, which `sweep dashboard` becomes: `python -m dashboard.serve SWEEP_OR_STORAGE [OPTIONS]`."""

import argparse
import errno
import inspect
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import streamlit as st
from starlette.middleware import Middleware
from streamlit.web import bootstrap

import sweep  # noqa: F401  # first of the project's: it makes sure that its packages are found, not others so named
from dashboard import access
from dashboard.theme import THEME
from dashboard.trouble import tell

_FIRST_PORT, _PORTS = 8501, 100
_WILDCARDS = ("0.0.0.0", "::")
_HEAVY = (
    "altair", "dashboard.atlases", "dashboard.charts", "dashboard.neuron", "dashboard.source", "pyarrow.parquet",
    "sweep.results.figure12",
)  # fmt: skip
"""What the pages import, loaded before the first reader comes."""
APP = Path(__file__).with_name("app.py")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to serve; of `port` and `base_path`, what was given."""

    host: str
    port: str | None
    base_path: str
    token: bool
    insecure: bool


def command(place: str, port: int | None = None, options: Sequence[str] = ("--no-token",)) -> list[str]:
    """The command line that serves a sweep or a storage in a process of its own, such as a test's or a benchmark's."""
    given = [] if port is None else ["--port", str(port)]
    return [sys.executable, "-P", __file__, place, *given, *options]


def main() -> None:
    """Serve until stopped; a wrong option gives one line on standard error and exit code 2."""
    place, options = _arguments(sys.argv[1:])
    try:
        _serve(place, options)
    except ValueError as error:
        sys.exit(_complain(str(error)))


def _complain(said: str) -> int:
    print(f"sweep: {said}", file=sys.stderr)
    return 2


def _arguments(given: Sequence[str]) -> tuple[str, Options]:
    parser = argparse.ArgumentParser(prog="python -m dashboard.serve", allow_abbrev=False)
    parser.add_argument("place", help="a sweep or a storage")  # first, where the pages look for it
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port")
    parser.add_argument("--base-path", default="")
    parser.add_argument("--no-token", dest="token", action="store_false")
    parser.add_argument("--insecure", action="store_true")
    options = vars(parser.parse_args(given))
    return options.pop("place"), Options(**options)


def _serve(place: str, options: Options) -> None:
    local = _is_loopback(options.host)
    port = _free_port(options.host, options.port)
    base = _base(options.base_path)
    config = _config(options.host, port, base)
    bootstrap.load_config_options(config)  # before the first question to Streamlit: it warns of what changes later
    login = access.needs_login()
    encrypted = bool(st.get_option("server.sslCertFile"))
    _require_private(options, local=local, login=login, encrypted=encrypted)
    given = access.given_token()
    token = None if login or not options.token else given or access.new_token()
    door = access.Door(
        token=token,
        cookie=f"sweep_dashboard_{port}",
        path=f"{base}/",
        hosts={"127.0.0.1", "::1", "localhost"} if local and token is None and not login else None,
        origins=st.get_option("server.corsAllowedOrigins"),
    )
    link = f"{'https' if encrypted else 'http'}://{_name(options.host)}:{port}{base}/"
    if token is not None:
        link += f"?token=${access.TOKEN_VARIABLE}" if given else f"?token={quote(token)}"

    @asynccontextmanager
    async def announced(_: st.App) -> AsyncIterator[None]:
        print(f"Dashboard of {place}: {link}", flush=True)
        if token is not None:
            print("Whoever has this link can look at it and ask for retries.", flush=True)
        yield

    for name in _HEAVY:
        import_module(name)
    inspect.stack()  # Streamlit does it before the first element, and only the first time looks at all modules' files
    app = st.App(APP, lifespan=announced, middleware=[Middleware(access.Gate, door=door)], on_script_error=tell)
    with suppress(KeyboardInterrupt):  # Ctrl-C, after which the server has shut down
        app.run(config=config)


def _config(host: str, port: int, base: str) -> dict[str, object]:
    return {
        "server.headless": True,
        "server.address": host,
        "server.port": port,
        "server.baseUrlPath": base.strip("/"),
        "server.fileWatcherType": "none",  # nobody edits the pages, and inotify watches may be scarce
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "logger.enableRich": False,  # it would colour the log, even one that is a file
        "logger.hideWelcomeMessage": True,
    } | THEME


def _require_private(options: Options, *, local: bool, login: bool, encrypted: bool) -> None:
    """Refuse to show results to everyone on a network, or to send them where all on the way can read them.

    Raises:
        ValueError: that was asked for.
    """
    if not local and not options.token and not login:
        raise ValueError(
            f"--host {options.host} --no-token would let in everyone who can reach this machine: leave --no-token out, "
            "or have Streamlit ask for a login (docs/dashboard.md)"
        )
    if not local and not encrypted and not options.insecure:
        raise ValueError(
            f"--host {options.host} would send the token and all results unencrypted, for all on the way to read: "
            "leave it out and use an ssh tunnel or a proxy with https, or give Streamlit a certificate "
            "(docs/dashboard.md), or say --insecure"
        )


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host; its name counts if all its addresses do.

    Raises:
        ValueError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host!r}: there is no such address ({error}); give one of this machine's") from error
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


def _free_port(host: str, given: str | None) -> int:
    """The port that was asked for, or the first free one from 8501.

    Raises:
        ValueError: it is no port, or is taken, or the host is not this machine's.
    """
    if given is not None:
        if not (given.isdecimal() and given.isascii() and 1 <= int(given) <= 65535):
            raise ValueError(f"--port {given}: a port is a number from 1 to 65535")
        _require_free(host, int(given))
        return int(given)
    for port in range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        try:
            _require_free(host, port)
        except _TakenError:
            continue
        return port
    raise ValueError(f"the ports {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} are all taken; name another by --port")


class _TakenError(ValueError):
    """Somebody else listens at a port."""


def _require_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _TakenError(f"port {port} is taken; name another by --port, or none for a free one") from error
            raise ValueError(f"can't listen at {host}, port {port}: {error.strerror}; choose others") from error


def _base(path: str) -> str:
    """A path with a slash in front and none behind, or nothing.

    Raises:
        ValueError: it is no path of plain names.
    """
    names = [name for name in path.split("/") if name]
    if any(name.strip(".") == "" or quote(name) != name for name in names):
        raise ValueError(f"--base-path {path!r}: give a path of letters, digits and -._~, such as /banding")
    return "".join(f"/{name}" for name in names)


def _name(host: str) -> str:
    """What a browser elsewhere calls this machine."""
    if host in _WILDCARDS:
        return socket.getfqdn()
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
