"""What `sweep status` prints: a sweep's state on a terminal of any width, down to 80 columns, or as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from sweep.results.state import Failures, Filters, State
from sweep.results.tables import Row, plain_records
from sweep.results.verdicts import told_verdict
from sweep.results.words import decimal, short_layer
from sweep.terminal.cost import done_and_left
from sweep.terminal.fit import readable, shortened

STYLES = {"horizontal": "cyan", "vertical": "magenta", "failed": "red", "excluded": "dim"}
_MOST = 100  # trials that a person still reads
_MOST_TROUBLED = 30  # of more trials, those that need attention
_GROUPS = 5  # of failures
_LINES = 3  # of an error
_GAP = 1  # between columns
_SHORT = {"horizontal": "horiz.", "vertical": "vert."}
_WORTH_CUTTING = 8  # characters of what is cut that still tell something


@dataclass(frozen=True)
class StateView:
    """A sweep's state at the width of whatever console prints it.

    It says how many trials are in each state and why some failed, and has a row for each trial's final layers. Of more
    than 100 trials, only the first 30 that need attention are shown, unless a filter chooses them.
    """

    state: State
    filters: Filters

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _view(self.state, self.filters, options.max_width)


def state_json(state: State, filters: Filters) -> dict[str, Any]:
    """A sweep's state as `sweep status --json` prints it, its trials in the order in which the grids name them.

    Counts and costs are those of all its trials.
    """
    trials = plain_records(state.chosen(filters).sort_index())
    chosen = {trial["trial_id"] for trial in trials}
    layers = _newest_layers(state, trials)
    groups = [failures for failures in state.failures if chosen & set(failures.trial_ids)]
    return {
        "sweep": state.sweep.name,
        "counts": state.counts,
        "cost": asdict(state.cost),
        "failures": [asdict(failures) | {"title": failures.title} for failures in groups],
        "trials": [_trial_json(trial, layers.get(trial["trial_id"], [])) for trial in trials],
    }


def _view(state: State, filters: Filters, width: int) -> RenderableType:
    chosen, most = state.chosen(filters), _MOST
    if len(chosen) > _MOST and filters == Filters():
        chosen, most = chosen[~chosen["status"].isin(["finished", "excluded"])], _MOST_TROUBLED
    shown = plain_records(chosen.head(most))
    parts: list[RenderableType] = [Text(_title(state)), *_failures(state, set(chosen["trial_id"]), width)]
    if shown:
        names = readable(list(state.trials["trial_id"]))
        parts += [Text(""), _table(shown, _newest_layers(state, shown), names, width)]
    if len(shown) < len(state.trials):
        said = f"{len(shown):,} of {len(state.trials):,} trials; all: sweep status {state.sweep.path} --json"
        parts.append(Text(said))
    return Group(*parts)


def _newest_layers(state: State, trials: Sequence[Row]) -> dict[str, list[Row]]:
    """The layers of some trials' newest analysed checkpoints, the last conv first."""
    ids = [trial["trial_id"] for trial in trials]
    layers: dict[str, list[Row]] = {}
    for row in plain_records(state.newest[state.newest["trial_id"].isin(ids)]):
        layers.setdefault(row["trial_id"], []).append(row)
    return layers


def _title(state: State) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in state.counts.items() if number) or "no trials"
    driver = state.driver
    works = f"; driver: process {driver.pid} on {driver.host}, heartbeat {driver.age_s:.0f} s ago" if driver else ""
    cost = done_and_left(state.cost)
    return f"{state.sweep.name}: {counts}{works}" + (f"\n{cost}" if cost else "")


def _failures(state: State, shown: set[str], width: int) -> Iterator[Text]:
    """A line or more for each way in which trials have failed, and what runs them again."""
    groups = [failures for failures in state.failures if shown & set(failures.trial_ids)]
    for failures in groups[:_GROUPS]:
        yield Text.assemble((failures.title, "red"), f": {_message(failures)}"[: _LINES * width])
    if len(groups) > _GROUPS:
        yield Text(f"and {len(groups) - _GROUPS} other errors")
    if groups:
        yield Text(f"to run them again: sweep resume {state.sweep.path} --only failed")


def _message(failures: Failures) -> str:
    """An error without its kind, which the title says."""
    name = failures.kind.partition(":")[0]
    return failures.error.removeprefix(f"{name}:").strip() or failures.error


@dataclass(frozen=True)
class _Column:
    """A column of texts. They may be cut where there are `brief` ones, which say the least that must be seen."""

    title: str
    texts: Sequence[Text]
    brief: Sequence[Text] = ()
    right: bool = False

    @property
    def wanted(self) -> int:
        return max(len(self.title), *(text.cell_len for text in self.texts))

    @property
    def needed(self) -> int:
        return max(len(self.title), *(text.cell_len for text in self.brief or self.texts))

    def within(self, width: int) -> list[Text]:
        """The texts at a width."""
        return [_cut(text, brief, width) for text, brief in zip(self.texts, self.brief or self.texts, strict=True)]


def _cut(text: Text, brief: Text, width: int) -> Text:
    """A text cut to a width; the brief one where little would be left of what the other says more."""
    if text.cell_len <= width:
        return text
    if width < brief.cell_len + _WORTH_CUTTING:
        return brief
    text.truncate(width, overflow="ellipsis")
    return text


@dataclass(frozen=True)
class _Line:
    """A row of the table: a layer of a trial that has `ended` or not, the first one with the trial's own facts."""

    trial: Row | None
    layer: Row | None
    ended: bool


def _table(trials: Sequence[Row], layers: Mapping[str, list[Row]], names: Mapping[str, str], width: int) -> Table:
    """The table with as much as the width allows: without intervals if it must be, then with names cut short."""
    lines = [
        _Line(trial if index == 0 else None, layer, trial["status"] == "finished")
        for trial in trials
        for index, layer in enumerate(layers.get(trial["trial_id"]) or [None])
    ]
    shown = [names[trial["trial_id"]] for trial in trials]
    for intervals, expected in ((True, True), (False, True), (False, False)):
        others = _others(lines, intervals, expected)
        room = width - sum(column.needed + _GAP for column in others) - _GAP
        if max(map(len, shown)) <= room:
            break
    cut = shortened(shown, room)
    first = [Text("" if line.trial is None else cut[names[line.trial["trial_id"]]]) for line in lines]
    return _fitted([_Column("trial", first), *others], width)


def _fitted(columns: Sequence[_Column], room: int) -> Table:
    """Columns side by side; what is left beyond what each needs goes to the first that want it."""
    spare = room - sum(column.needed + _GAP for column in columns)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    cells = []
    for column in columns:
        more = max(0, min(spare, column.wanted - column.needed))
        spare -= more
        width = column.needed + more
        cells.append(column.within(width))
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, min_width=width)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _others(lines: Sequence[_Line], intervals: bool, expected: bool) -> list[_Column]:
    """All columns but the trials' names."""
    columns = [
        _Column("status", [_status(line.trial) for line in lines], [_brief_status(line.trial) for line in lines]),
        _Column("acc.", [Text(_accuracy(line.trial)) for line in lines], right=True),
        _Column("layer", [Text(_layer(line.layer, intervals)) for line in lines]),
    ]
    for direction, short in _SHORT.items():
        scores = [Text(_score(line.layer, direction, intervals)) for line in lines]
        columns.append(_Column(direction if intervals else short, scores, right=not intervals))
    marked = [line.ended and not expected for line in lines]
    verdicts, brief = (
        [verdict(line.layer, mark) for line, mark in zip(lines, marked, strict=True)]
        for verdict in (_verdict, _brief_verdict)
    )
    columns.append(_Column("verdict", verdicts, brief))
    if expected:
        columns.append(_Column("expected", [Text((line.layer or {}).get("expected") or "") for line in lines]))
    return columns


def _brief_status(trial: Row | None) -> Text:
    if trial is None:
        return Text()
    running = trial["status"] == "running"
    said = f"running {trial['epoch']}/{trial['epochs']}" if running else str(trial["status"])
    return Text(said, style=STYLES.get(trial["status"], ""))


def _status(trial: Row | None) -> Text:
    """A trial's status with what a reader needs to know about it, the most important first."""
    text = _brief_status(trial)
    if trial is None:
        return text
    if trial["status"] == "running":
        beat = "" if trial["heartbeat_at"] is None else f", {time.time() - trial['heartbeat_at']:.0f} s ago"
        text.append(f" on {trial['host']}{beat}")
    if (trial["attempts"] or 0) > 1:
        text.append(f", attempt {trial['attempts']}")
    if remark := trial["error"] or trial["reason"]:
        text.append(f": {' '.join(remark.split())}")
    return text


def _accuracy(trial: Row | None) -> str:
    return "" if trial is None or trial["val_accuracy"] is None else f"{trial['val_accuracy']:.3f}"


def _layer(layer: Row | None, whole: bool) -> str:
    if layer is None:
        return ""
    return str(layer["layer"]) if whole else short_layer(layer["layer"])


def _score(layer: Row | None, direction: str, interval: bool) -> str:
    if layer is None or layer["error"] or layer[direction] is None:
        return ""
    score = decimal(layer[direction])
    low, high = layer[f"{direction}_low"], layer[f"{direction}_high"]
    return f"{score} [{decimal(low)}, {decimal(high)}]" if interval else score


def _verdict(layer: Row | None, marked: bool) -> Text:
    """A layer's verdict, or why there is none; `marked` if it isn't the expected one, which has no column then."""
    if layer is not None and layer["error"]:
        return Text(" ".join(layer["error"].split()), style="red")
    return _brief_verdict(layer, marked)


def _brief_verdict(layer: Row | None, marked: bool) -> Text:
    if layer is None:
        return Text()
    if layer["error"]:
        return Text("unscored", style="red")
    verdict = layer["verdict"] or ""
    surprising = marked and verdict and layer["expected"] not in (None, "unknown", verdict)
    told = told_verdict(verdict, layer["reliability"])
    return Text(f"{told} ≠" if surprising else told, style=STYLES.get(verdict, ""))


def _trial_json(trial: Row, layers: list[Row]) -> Row:
    keys = ("layer", "step", "horizontal", "vertical", "verdict", "expected", "reliability", "null_turned_high")
    own = ("trial_id", "architecture", "intervention", "data", "flip", "recipe_key", "seed", "status", "attempts")
    return {
        **{key: trial[key] for key in own},
        "error": trial["reason"] if trial["status"] == "excluded" else trial["error"],
        "val_accuracy": trial["val_accuracy"],
        "gpu_hours": trial["gpu_hours"],
        "layers": [{key: row[key] for key in keys} for row in layers],
    }
