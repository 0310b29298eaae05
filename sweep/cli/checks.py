"""Checks of what a user types that need nothing but the words: names, addresses, ports."""

from urllib.parse import urlsplit

_LONGEST = 255  # bytes that file systems allow for a name
_PORTS = range(1, 65536)


def require_name(said: str | None) -> str | None:
    """Refuse what can be neither a name nor a path.

    Raises:
        ValueError: it is empty, holds control characters, or is longer than a file's name may be.
    """
    if said is None:
        return None
    if not said.strip():
        raise ValueError("a name is empty; `sweep list sweeps` and `sweep list grids` show which there are")
    if not said.isprintable():
        raise ValueError(f"{said!r} is no name: it holds characters that can't be printed; leave them out")
    if any(len(part.encode()) > _LONGEST for part in said.split("/")):
        raise ValueError(f"{said[:40]!r}... is too long: a name has {_LONGEST} bytes at most")
    return said


def require_address(said: str | None) -> str | None:
    """Refuse what is no address of a Ray cluster.

    Raises:
        ValueError: it is neither `auto` nor HOST:PORT.
    """
    if said is None or said == "auto":
        return said
    host, _, port = said.rpartition(":")
    if not host.strip("[]") or "/" in said or any(letter.isspace() for letter in said) or not _is_port(port):
        raise ValueError(f"--address {said!r}: give auto, or the head's HOST:PORT, such as 10.0.0.1:6379")
    return said


def require_job_server(said: str | None) -> str | None:
    """Refuse what is no address of a job server.

    Raises:
        ValueError: it isn't a URL of http or https with a host and, if any, a port.
    """
    if said is None or _is_http(said):
        return said
    raise ValueError(
        f"--cluster {said!r}: a job server's address begins with http:// or https://, such as http://127.0.0.1:8265"
    )


def _is_port(said: str) -> bool:
    return said.isascii() and said.isdecimal() and len(said) <= 5 and int(said) in _PORTS


def _is_http(said: str) -> bool:
    try:
        parts = urlsplit(said)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or too large
        return False
