"""What `sweep list` prints: entries that read well at any width, and the sweeps of a storage."""

from collections import Counter
from textwrap import wrap

from rich.text import Text
from upath import UPath

from sweep.results.tables import read_table
from sweep.store.sweep_dir import SweepDir, sweep_names


def entries(header: list[str], rows: list[list[str]], width: int) -> Text:
    """Rows of text one below the other: the name at the left, beside it a line or more for each other column.

    Each has its column's name in front, unless that begins with `what`. No line is longer than `width`.
    """
    indent = 2 + max((len(row[0]) for row in rows), default=0)
    text = Text()
    for name, *values in rows:
        text.append(name.ljust(indent), style="bold cyan")
        facts = [_labelled(label, value) for label, value in zip(header[1:], values, strict=True)]
        lines = [line for fact in facts for line in wrap(fact, max(width - indent, 20), break_on_hyphens=False)]
        text.append(("\n" + " " * indent).join(lines) + "\n")
    text.rstrip()
    return text


def sweeps(storage: UPath) -> tuple[list[str], list[list[str]]]:
    """The sweeps of a storage: trials by state, and the last launch, from compacted tables and `sweep.yaml` alone."""
    rows = [[name, _trials(storage / name), _last_launch(storage / name)] for name in sweep_names(storage)]
    return ["sweep", "what its trials are", "last launch"], rows


def _labelled(label: str, value: str) -> str:
    return value if label.startswith("what") else f"{label}: {value}"


def _trials(sweep: UPath) -> str:
    try:
        counts = Counter(read_table(sweep, "trials")["status"])
    except (OSError, ValueError):
        return f"its results are damaged; `sweep report {sweep.name}` rebuilds them"
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "no results yet"


def _last_launch(sweep: UPath) -> str:
    try:
        launches = SweepDir(sweep).launches()
    except (OSError, ValueError):
        return "unknown: sweep.yaml is damaged"
    return str(launches[-1].get("launched_at", "unknown")) if launches else "none"
