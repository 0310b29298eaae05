"""Pictures at a URL, listed once: a tree of folders and files that is walked like one on a disk."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from upath import UPath

from sweep.data.place import read

_STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


class _Info(NamedTuple):
    """The part of `os.stat_result` that tells one folder from another."""

    st_size: int
    st_dev: int
    st_ino: int


@dataclass(frozen=True)
class RemoteFolder:
    """A folder or file at a URL, as it was when its root was listed; `name` is empty for the root."""

    url: UPath
    path: str
    tree: "_Tree" = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def __truediv__(self, name: str) -> "RemoteFolder":
        return RemoteFolder(self.url, "/".join(part for part in (self.path, *name.split("/")) if part), self.tree)

    def __str__(self) -> str:
        return str(self.url / self.path) if self.path else str(self.url)

    def is_dir(self) -> bool:
        return self.path in self.tree.folders

    def is_file(self) -> bool:
        return self.path in self.tree.files

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> _Info:
        size = 0 if self.is_dir() else self.tree.files[self.path][0]
        return _Info(size, 0, hash(self.path))

    def entries(self) -> Iterator["RemoteFolder"]:
        for name in sorted(self.tree.folders[self.path]):
            yield self / name

    def stamp(self, name: str) -> str:
        """What changes when a file's content does, as far as the store tells."""
        return self.tree.files[(self / name).path][1]


@dataclass(frozen=True)
class _Tree:
    folders: dict[str, set[str]]
    files: dict[str, tuple[int, str]]


Pictures = Path | RemoteFolder
"""Where pictures are read from."""


def list_pictures(url: UPath) -> RemoteFolder:
    """All files below a URL.

    Raises:
        UnreachableError: it can't be read.
    """
    rows: dict[str, dict[str, Any]] = read(url, lambda: url.fs.find(url.path, detail=True))
    top = url.path.rstrip("/") + "/"
    tree = _Tree({"": set()} if rows else {}, {})
    for key, row in rows.items():
        path = key.removeprefix(top)
        if path and not path.endswith("/"):  # a key that ends so stands for an empty folder
            size = int(row.get("size") or 0)
            tree.files[path] = size, " ".join(str(value) for value in (size, *_stamps(row)))
            for folder, name in _ancestry(path):
                tree.folders.setdefault(folder, set()).add(name)
    return RemoteFolder(url, "", tree)


def _stamps(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in _STAMPS if row.get(name) is not None]


def _ancestry(path: str) -> Iterator[tuple[str, str]]:
    """Each folder above a file, with what it holds on the way to it."""
    while path:
        folder, _, name = path.rpartition("/")
        yield folder, name
        path = folder
