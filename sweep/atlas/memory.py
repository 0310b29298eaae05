"""How much memory a process could still take: of its machine, and of the control groups that it is in."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_ROOT = Path("/")


class _Groups(NamedTuple):
    """Where control groups are, their files of the limit and the usage, and what of it `memory.stat` calls cache."""

    top: str
    limit: str
    usage: str
    cache: tuple[str, ...]


_V1 = _Groups(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2 = _Groups("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file"))


def free_bytes(root: Path = _ROOT) -> int | None:
    """The memory in bytes that this process could still take; None where the system doesn't say.

    The least of what the machine and each limited control group (a container, a job of a batch system) have left, where
    page cache counts as free. `root` is where the system's `proc` and `sys` are.
    """
    machine = _numbers(root / "proc/meminfo").get("MemAvailable:")
    left = [*_left_in_groups(root), *([] if machine is None else [machine * 1024])]
    return max(0, min(left)) if left else None


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each limited control group has left: the process's own and those around it, whose limits count too."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _V1 if controllers else _V2
        path = PurePosixPath(own.lstrip("/"))
        for group in (path, *path.parents):  # a container may see its own group as the top one, whatever its path
            folder = root / files.top / group
            limit, usage = _number(folder / files.limit), _number(folder / files.usage)
            if limit is not None and usage is not None:
                stat = _numbers(folder / "memory.stat")
                yield limit - usage + sum(stat.get(name, 0) for name in files.cache)


def _number(file: Path) -> int | None:
    """None where there is no file, or no limit: `max`."""
    text = "".join(_lines(file))
    return int(text) if text.isdecimal() else None


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line by the word before it."""
    words = [line.split() for line in _lines(file)]
    return {parts[0]: int(parts[1]) for parts in words if len(parts) > 1 and parts[1].isdecimal()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):
        return []
