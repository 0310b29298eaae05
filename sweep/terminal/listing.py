"""What `sweep list` prints: entries that read well at any width, and the sweeps of a storage."""

import time
from calendar import timegm
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from rich.text import Text
from upath import UPath

from sweep.results.tables import read_table
from sweep.results.words import duration, size_in_words
from sweep.store.files import sizes_below
from sweep.store.lease import Holder, holder
from sweep.store.sweep_dir import SweepDir, sweep_names

_LAUNCHED_AT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class ListedSweep:
    """A sweep of a storage: trials by state, its last launch, its driver, and the bytes it takes.

    What is damaged, or wasn't asked for, is None.
    """

    path: UPath
    counts: dict[str, int] | None
    launches: tuple[str, ...] | None
    driver: Holder | None
    size: int | None


def entries(header: list[str], rows: list[list[str]], width: int) -> Text:
    """Rows of text one below the other: the name at the left, beside it a line or more for each other column.

    Each has its column's name in front, unless that begins with `what`; empty ones are left out. No line is longer
    than `width`.
    """
    indent = 2 + max((len(row[0]) for row in rows), default=0)
    text = Text()
    for name, *values in rows:
        text.append(name.ljust(indent), style="bold cyan")
        facts = [_labelled(label, value) for label, value in zip(header[1:], values, strict=True) if value]
        lines = [line for fact in facts for line in wrap(fact, max(width - indent, 20), break_on_hyphens=False)]
        text.append(("\n" + " " * indent).join(lines) + "\n")
    text.rstrip()
    return text


def sweeps(storage: UPath, sizes: bool = False) -> list[ListedSweep]:
    """The sweeps of a storage by name, from compacted tables, leases and `sweep.yaml` alone unless for their sizes."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda name: _listed(storage / name, sizes), sweep_names(storage)))


def sweep_rows(found: list[ListedSweep]) -> tuple[list[str], list[list[str]]]:
    """Sweeps as `entries` takes them."""
    header = ["sweep", "what its trials are", "last launch", "driver", "size"]
    rows = [
        [
            sweep.path.name,
            _trials(sweep),
            _last_launch(sweep),
            "" if sweep.driver is None else f"process {sweep.driver.pid} on {sweep.driver.host}",
            "" if sweep.size is None else size_in_words(sweep.size),
        ]
        for sweep in found
    ]
    return header, rows


def sweep_json(sweep: ListedSweep) -> dict[str, Any]:
    """A sweep as `sweep list sweeps --json` prints it."""
    driver = sweep.driver
    return {
        "sweep": sweep.path.name,
        "path": str(sweep.path),
        "counts": sweep.counts,
        "launches": None if sweep.launches is None else len(sweep.launches),
        "launched_at": sweep.launches[-1] if sweep.launches else None,
        "driver": None if driver is None else {"host": driver.host, "pid": driver.pid, "age_s": round(driver.age_s, 1)},
        "size": sweep.size,
    }


def _labelled(label: str, value: str) -> str:
    return value if label.startswith("what") else f"{label}: {value}"


def _listed(path: UPath, sized: bool) -> ListedSweep:
    sweep = SweepDir(path)
    return ListedSweep(
        path=path,
        counts=_counts(path),
        launches=_launches(sweep),
        driver=holder(path),
        size=sum(sizes_below(path).values()) if sized else None,
    )


def _counts(sweep: UPath) -> dict[str, int] | None:
    try:
        return dict(sorted(Counter(read_table(sweep, "trials")["status"]).items()))
    except (OSError, ValueError):
        return None


def _launches(sweep: SweepDir) -> tuple[str, ...] | None:
    try:
        return tuple(str(launch.get("launched_at", "unknown")) for launch in sweep.launches())
    except (OSError, ValueError):
        return None


def _trials(sweep: ListedSweep) -> str:
    if sweep.counts is None:
        return f"its results are damaged; `sweep report {sweep.path.name}` rebuilds them"
    return ", ".join(f"{number} {state}" for state, number in sweep.counts.items()) or "no results yet"


def _last_launch(sweep: ListedSweep) -> str:
    if sweep.launches is None:
        return "unknown: sweep.yaml is damaged"
    if not sweep.launches:
        return "none"
    said = sweep.launches[-1]
    try:
        return f"{said}, {duration(max(0.0, time.time() - timegm(time.strptime(said, _LAUNCHED_AT))))} ago"
    except ValueError:
        return said
