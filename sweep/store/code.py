"""Which code a trial is trained by: a hash over the project's files, and its commit where one is known.

A sweep directory keeps the hashes of the files of each code that has worked on it, `code/<hash>.json`, so that a
resume can tell what has changed since. Knows neither torch nor Ray.
"""

import hashlib
import os
import subprocess
import time
from functools import cache
from importlib.metadata import version

from pydantic import TypeAdapter
from typing_extensions import TypedDict
from upath import UPath

from sweep import ROOT
from sweep.store.files import read_json, write_json
from sweep.store.sweep_dir import SweepDir

SENT_VERSION = "SWEEP_CODE_VERSION"
"""The variable in which a job finds the `code_version` of the machine that sent it."""
PACKAGES = ("analysis", "models", "sweep")  # what trains and analyses


class _Used(TypedDict):
    """A code that has worked on a sweep: when it last began, in seconds since 1970, and the hash of each file."""

    used_at: float
    version: str
    files: dict[str, str]


_USED = TypeAdapter(_Used)


@cache
def code_version() -> str:
    """This code in a word or two: `05ad920abc+ code 3f2a9c41d0`.

    The first is its commit, followed by `+` if files differ from it, where git or the sender of a job knows it; else
    the version of the package. The last is `code_hash`.
    """
    here = f"code {code_hash()}"
    sent = os.environ.get(SENT_VERSION, "")
    if commit := _commit():
        return f"{commit} {here}"
    return sent if sent.endswith(here) else f"{version('weight-banding')} {here}"


def code_hash() -> str:
    """Ten digits that change with any of the project's source files."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in _files().items()).encode()).hexdigest()[:10]


def sent_from_other_code() -> str | None:
    """The code of the machine that sent this job, if it isn't this one."""
    sent = os.environ.get(SENT_VERSION)
    return None if sent is None or sent.endswith(f"code {code_hash()}") else sent


def record_code(sweep: SweepDir) -> None:
    """Note in a sweep that this code works on it now."""
    used: _Used = {"used_at": time.time(), "version": code_version(), "files": _files()}
    write_json(sweep.code / f"{code_hash()}.json", used)


def files_changed(sweep: SweepDir) -> list[str]:
    """The files in which this code differs from the one that worked on a sweep last; none if that isn't known."""
    known = [used for file in _recorded(sweep) if (used := _read(file)) is not None]
    if not known:
        return []
    before, now = max(known, key=lambda used: used["used_at"])["files"], _files()
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


@cache
def _files() -> dict[str, str]:
    """The sha256 of each source file, by its path from the folder of the packages."""
    found = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _commit() -> str | None:
    """The commit of the project's own repository, if it is in one; an environment may lie in somebody else's."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _recorded(sweep: SweepDir) -> list[UPath]:
    return [file for file in sweep.code.iterdir() if file.suffix == ".json"] if sweep.code.exists() else []


def _read(file: UPath) -> _Used | None:
    """A record, or None where it is damaged: the only loss is that no difference can be told."""
    try:
        return _USED.validate_python(read_json(file))
    except ValueError:
        return None
