"""Folders of data: on this machine or a shared disk, or at a URL that fsspec knows."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from upath import UPath

from sweep.store.files import STORAGE_ERRORS

Folder = Path | UPath
T = TypeVar("T")
_UNREADABLE: tuple[type[Exception], ...] = (*STORAGE_ERRORS, ImportError, ValueError)


class UnreachableError(OSError):
    """What lies at a URL can't be read now; the message says why. It may work the next time."""


def as_folder(root: str | Path | UPath) -> Folder:
    """A local folder as an absolute path, a URL as a `UPath`.

    Raises:
        ValueError: no library is installed for the URL, or nobody knows its protocol.
    """
    try:
        path = UPath(root)
    except (ValueError, ImportError) as error:
        raise ValueError(f"can't read {root}: {error}") from error
    return Path(path.path).expanduser().absolute() if path.protocol in ("", "file", "local") else path


def is_url(root: str | Path | UPath) -> bool:
    return isinstance(as_folder(root), UPath)


def read(what: Folder, how: Callable[[], T]) -> T:
    """The result of reading something; where a URL can't be read, the error is one line.

    Raises:
        FileNotFoundError: it isn't there.
        UnreachableError: it can't be read.
    """
    try:
        return how()
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise UnreachableError(f"can't read {what}: {_why(error)}") from error


def read_bytes(file: Folder) -> bytes:
    """`read` for a whole file."""
    return read(file, lambda: bytes(file.read_bytes() if isinstance(file, Path) else file.fs.cat_file(file.path)))


def folders_below(folder: Folder) -> list[Folder]:
    """The folders right below one, in order of name; none where there is nothing."""
    if isinstance(folder, Path):
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    try:
        rows = read(folder, lambda: folder.fs.ls(folder.path, detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = sorted(row["name"].rstrip("/").rsplit("/", 1)[-1] for row in rows if row["type"] == "directory")
    return [folder / name for name in names]


def _why(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if type(error).__name__ in ("NoCredentialsError", "PermissionError", "ClientError"):
        return f"{said}; check the credentials, such as AWS_ACCESS_KEY_ID or the machine's role"
    return said
