"""What `sweep diff` prints."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sweep.results.differences import ABSENT, Change, Differences, Shown
from sweep.results.words import count, decimal

_MOST = 20  # trials that a person still reads


def sweep_lines(before: str, after: str, found: Differences) -> Iterator[str]:
    """The differences of two sweeps, given what to call them."""
    if before == after:
        before, after = "the first", "the second"
    yield f"grid launched last: {_differ(len(found.grid), 'value')}"
    yield from change_lines(found.grid)
    for name, only in ((before, found.only_before), (after, found.only_after)):
        if only:
            yield f"only in {name}: {count(len(only), 'trial')}"
            yield from (f"  {trial_id}" for trial_id in only[:_MOST])
            if len(only) > _MOST:
                yield f"  and {len(only) - _MOST:,} more; --json names them all"
    yield f"in both: {count(found.shared_trials, 'trial')}"
    yield f"{count(found.shared_cells, 'cell')} in both: {_differ(len(found.cells), 'cell')}"
    width = max((len(f"{cell.architecture} {cell.intervention}") for cell in found.cells), default=0)
    for cell in found.cells:
        name = f"{cell.architecture} {cell.intervention}"
        yield f"  {name.ljust(width)}  {_cell(cell.before)} -> {_cell(cell.after)}"


def change_lines(found: Sequence[Change]) -> Iterator[str]:
    """A line for each value that differs: its key, then old -> new."""
    width = max((len(change.key) for change in found), default=0)
    for change in found:
        yield f"  {change.key.ljust(width)}  {_change(change.before, change.after)}"


def _differ(number: int, noun: str) -> str:
    if not number:
        return "no difference"
    return f"{count(number, noun)} {'differs' if number == 1 else 'differ'}"


def _change(before: Any, after: Any) -> str:
    """Old -> new; of two lists, what only the old and only the new one has, if that is all that differs."""
    if isinstance(before, list) and isinstance(after, list):
        said = [f"-{value}" for value in before if value not in after]
        said += [f"+{value}" for value in after if value not in before]
        if said:
            return " ".join(said)
    return f"{_value(before)} -> {_value(after)}"


def _value(value: Any) -> str:
    if value is ABSENT:
        return "(absent)"
    return value if isinstance(value, str) else json.dumps(value)


def _cell(shown: Shown) -> str:
    if shown.score is None:
        return shown.outcome
    spread = "" if shown.spread is None else f" ± {decimal(shown.spread)}"
    direction = f" ({shown.direction})" if shown.outcome == "none" else ""
    return f"{shown.outcome} {decimal(shown.score)}{spread}{direction}"
