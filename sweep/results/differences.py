"""What differs between two sweeps, or between the specs of two trials. Needs neither torch nor Ray."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sweep.results.cells import cells, last_convs
from sweep.results.tables import Row, TableName, records
from sweep.results.words import decimal

ABSENT = object()
"""Stands for a value where only the other side has the key."""
_TELLING = ("data_key", "recipe_key")  # which of several cells of an architecture and an intervention


@dataclass(frozen=True)
class Change:
    """A value that differs, by its dotted key; `ABSENT` on the side that lacks the key."""

    key: str
    before: Any
    after: Any

    def to_json(self) -> Row:
        sides = {"before": self.before, "after": self.after}
        return {"key": self.key} | {side: value for side, value in sides.items() if value is not ABSENT}


@dataclass(frozen=True)
class Shown:
    """What a cell shows: its outcome and, where its finished trials have scores, their mean and spread over seeds."""

    outcome: str
    direction: str | None
    score: float | None
    spread: float | None
    seeds: int


@dataclass(frozen=True)
class CellChange:
    """A cell that both sweeps have, and that does not show the same in both."""

    architecture: str
    intervention: str
    before: Shown
    after: Shown


@dataclass(frozen=True)
class Differences:
    """From one sweep to another: their last grids, the trials of one of them alone, the cells of both that differ."""

    grid: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    shared_trials: int
    cells: tuple[CellChange, ...]
    shared_cells: int


Tables = Mapping[TableName, pd.DataFrame]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The values that differ between two documents, by their dotted keys."""
    old, new = _flat(before), _flat(after)
    keys = [*old, *(key for key in new if key not in old)]
    found = (Change(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in keys)
    return tuple(change for change in found if change.before != change.after)


def differences(
    before: Tables, after: Tables, grid_before: Mapping[str, Any], grid_after: Mapping[str, Any]
) -> Differences:
    """From one sweep to another, by their tables and the grids launched last.

    Cells are the same that have the same architecture and intervention. Where a sweep has several of those, data set
    and recipe decide too.
    """
    trials_before, trials_after = list(before["trials"]["trial_id"]), list(after["trials"]["trial_id"])
    pairs = _shared_cells(before, after)
    return Differences(
        grid=changes(grid_before, grid_after),
        only_before=_only(trials_before, trials_after),
        only_after=_only(trials_after, trials_before),
        shared_trials=len(set(trials_before) & set(trials_after)),
        cells=tuple(change for change in (_cell_change(*pair) for pair in pairs) if change is not None),
        shared_cells=len(pairs),
    )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Values by their dotted keys; a list of plain values is one value."""
    if isinstance(value, Mapping) and value:
        items = {str(name): part for name, part in value.items()}
    elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        items = {str(index): part for index, part in enumerate(value)}
    else:
        return {key: list(value) if isinstance(value, tuple) else value}
    flat: dict[str, Any] = {}
    for name, part in items.items():
        flat |= _flat(part, f"{key}.{name}" if key else name)
    return flat


def _only(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    known = set(others)
    return tuple(trial_id for trial_id in some if trial_id not in known)


def _shared_cells(before: Tables, after: Tables) -> list[tuple[Row, Row]]:
    old, new = _by_name(before), _by_name(after)
    return [pair for name, group in old.items() if name in new for pair in _pairs(group, new[name])]


def _by_name(tables: Tables) -> dict[tuple[Hashable, Hashable], list[Row]]:
    """The cells of a sweep by architecture and intervention."""
    named: dict[tuple[Hashable, Hashable], list[Row]] = {}
    if len(tables["trials"]):
        for cell in records(cells(last_convs(tables["trials"], tables["layers"]))):
            named.setdefault((cell["architecture"], cell["intervention"]), []).append(cell)
    return named


def _pairs(old: list[Row], new: list[Row]) -> list[tuple[Row, Row]]:
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    known = {tuple(cell[name] for name in _TELLING): cell for cell in new}
    keyed = [(cell, known.get(tuple(cell[name] for name in _TELLING))) for cell in old]
    return [(cell, other) for cell, other in keyed if other is not None]


def _cell_change(before: Row, after: Row) -> CellChange | None:
    """None where the cells read the same: scores are compared as they are printed, with two decimals."""
    old, new = _shown(before), _shown(after)
    if (old.outcome, old.direction, _rounded(old.score)) == (new.outcome, new.direction, _rounded(new.score)):
        return None
    return CellChange(before["architecture"], before["intervention"], old, new)


def _shown(cell: Row) -> Shown:
    score = _number(cell["score"])
    direction = None if score is None else str(cell["direction"])
    return Shown(str(cell["outcome"]), direction, score, _number(cell["spread"]), int(cell["scored"]))


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _rounded(score: float | None) -> str | None:
    return None if score is None else decimal(score)
