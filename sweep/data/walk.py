"""Find the picture files below a folder: one rule for all data sets of what is a picture and what is skipped.

Links are followed, those to a folder too. Hidden files and folders and those of tools and trash are skipped.
Names are relative to the data set's root, with slashes.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from sweep.data.pictures import shown, suffixes
from sweep.data.remote import Pictures, RemoteFolder

_Entry = os.DirEntry[str] | RemoteFolder

_TOOLS = frozenset({
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@tmp", "__macosx", "__pycache__", "lost+found",
    "recycler", "system volume information", "thumbs",
})  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Picture files in order of name; `left_out` should be pictures but can't be used; `skipped` are ignored by rule.

    `others` are files that don't look like pictures.
    """

    names: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        self.names.extend(other.names)
        self.left_out.update(other.left_out)
        self.skipped.extend(other.skipped)
        self.others.extend(other.others)


def is_skipped(name: str) -> bool:
    """Whether a name is hidden, or that of a folder created by a system or a tool."""
    return name.startswith(".") or name.lower() in _TOOLS


def folders_in(folder: Pictures) -> tuple[list[str], Found]:
    """The folders right below one, links to folders among them, in order of name; and what else lies there.

    Raises:
        ValueError: the folder can't be read.
    """
    found, folders = Found(), []
    try:
        entries = _entries(folder)
    except OSError as error:
        raise ValueError(f"can't read the folder {shown(folder)}: {error.strerror}") from error
    for entry in entries:
        if _is_folder(entry) and _is_utf8(entry.name) and not is_skipped(entry.name):
            folders.append(entry.name)
        else:
            _sort_in(entry, entry.name, found)
    return sorted(folders), found


def pictures_below(root: Pictures, below: str) -> Found:
    """The pictures in the folder `below` (relative to the root, empty for the root itself) and all folders in it."""
    found = Found()
    parents = [] if below == "" else [root, *(root / str(parent) for parent in Path(below).parents if parent.name)]
    todo = [(below, frozenset(_identity(parent) for parent in parents))]
    while todo:
        name, above = todo.pop()
        try:
            identity = _identity(root / name)
            if identity in above:
                found.left_out[name] = "a link to a folder that contains it"
                continue
            entries = _entries(root / name)
        except OSError as error:
            found.left_out[name or "."] = f"a folder that can't be read: {error.strerror}"
            continue
        for entry in entries:
            inner = f"{name}/{entry.name}" if name else entry.name
            if _sort_in(entry, inner, found):
                todo.append((inner, above | {identity}))
    found.names.sort(key=_components)
    return found


def _identity(folder: Pictures) -> tuple[int, int]:
    info = folder.stat()
    return info.st_dev, info.st_ino


def _components(name: str) -> list[str]:
    """Sorts names as `Path` does: folder by folder."""
    return name.split("/")


def _entries(folder: Pictures) -> list[_Entry]:
    if isinstance(folder, RemoteFolder):
        return list(folder.entries())
    with os.scandir(folder) as entries:
        return list(entries)


def _is_folder(entry: _Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _sort_in(entry: _Entry, name: str, found: Found) -> bool:
    """Put an entry where it belongs; True for a folder to look into."""
    folder = _is_folder(entry)
    pictured = Path(entry.name).suffix.lower() in suffixes()
    if is_skipped(entry.name):
        found.skipped.append(name)
    elif not _is_utf8(entry.name) and (folder or pictured):
        found.left_out[name] = "its name is not UTF-8"
    elif folder and not pictured:
        return True
    elif folder:
        found.left_out[name] = "a folder, not a picture"
    elif _is_file(entry):
        (found.names if pictured else found.others).append(name)
    else:
        found.left_out[name] = "a broken link" if entry.is_symlink() else "not a regular file"
    return False


def _is_file(entry: _Entry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
