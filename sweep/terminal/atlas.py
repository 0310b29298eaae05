"""What the command line shows of an atlas: a bar over its networks, what was found, what is missing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from sweep.results.atlas import failures, verdicts_by
from sweep.results.tables import plain_records
from sweep.results.words import count
from sweep.store.atlas_dir import AtlasDir, Record
from sweep.terminal.status import STYLES

Progress = Callable[[Record], None]
_LINE_EVERY_S = 20.0
_NAMED = 3  # networks of a kind of failures


@contextmanager
def networks_progress(console: Console, total: int, done: int) -> Iterator[Progress]:
    """A bar over networks on a terminal, else a line every 20 seconds; yields what to call with each one's record."""
    columns = (TextColumn("networks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn(), TextColumn("{task.description}", markup=False))  # fmt: skip
    said = time.monotonic()
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=total, completed=done)

        def show(record: Record) -> None:
            nonlocal said
            bars.update(task, advance=1, description=record.source)
            if not console.is_terminal and time.monotonic() - said >= _LINE_EVERY_S:
                said = time.monotonic()
                console.print(f"networks {bars.tasks[0].completed:.0f}/{total}", highlight=False)

        yield show


def summary(table: pd.DataFrame) -> Group:
    """Verdicts of the last scored layers by pooling, and a line for each kind of failure."""
    counts = verdicts_by(table, "pooling")
    shown = Table(title="Last scored layer of each network, by what gathers its map", title_justify="left")
    shown.add_column("pooling")
    for column in counts.columns[1:]:
        shown.add_column(column, justify="right", style=STYLES.get(column))
    for row in counts.itertuples(index=False):
        shown.add_row(*map(str, row))
    return Group(*([shown] if len(counts) else []), *_failure_lines(table))


def _failure_lines(table: pd.DataFrame) -> list[Text]:
    lines = []
    for number, error, sources in failures(table):
        others = ", ..." if number > _NAMED else ""
        said = f"{count(number, 'network')} without scores ({', '.join(sources[:_NAMED])}{others}): {error}"
        lines.append(Text(said, style="yellow"))
    return lines


def atlas_json(atlas: AtlasDir, table: pd.DataFrame) -> dict[str, Any]:
    """An atlas as `sweep atlas --json` prints it."""
    return {
        "atlas": atlas.name,
        "path": str(atlas.path),
        "networks": int(table["source"].nunique()),
        "by_pooling": plain_records(verdicts_by(table, "pooling")),
        "failures": [
            {"networks": number, "error": error, "sources": sources} for number, error, sources in failures(table)
        ],
        "layers": plain_records(table),
    }
