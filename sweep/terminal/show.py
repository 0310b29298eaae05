"""What the command line prints and draws of a sweep: tables, JSON, the picture of its weights."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from upath import UPath

from analysis.picture import FigureRow, figure
from analysis.write import write_bytes
from sweep.results.cells import counts, last_convs, newest, standing
from sweep.results.compact import look
from sweep.results.cost import Cost, cost_of, measured_speeds, read_prices, trial_costs
from sweep.results.tables import Row, plain_records, read_reduced, read_table, records
from sweep.results.words import decimal
from sweep.store.lease import Holder, holder
from sweep.store.sweep_dir import SweepDir
from sweep.terminal.cost import done_and_left

if TYPE_CHECKING:  # whose module loads torch
    from analysis.banding import BandScores
    from analysis.layers import LayerResult

_MOST = 100  # rows that a person still reads
_STYLES = {"horizontal": "cyan", "vertical": "magenta", "failed": "red", "excluded": "dim"}
_LARGE_FIGURE = 16  # rows; a figure with more is large enough at one pixel per weight


def sweep_table(sweep: SweepDir) -> Table:
    """The results so far: one row per trial and final layer, at the newest checkpoint.

    Of more than 100 trials, only those that need attention; the title counts all.
    """
    seen = _look(sweep)
    trials = seen.trials
    caption = None
    if len(trials) > _MOST:
        trials = [trial for trial in trials if trial["status"] not in ("finished", "excluded")][:_MOST]
        caption = f"{len(trials)} of {len(seen.trials)} trials; all: sweep status {sweep.path} --json, or the dashboard"
    table = Table(title=_title(sweep, seen), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption, table.caption_justify = caption, "left"
    for column in ("trial", "status", "accuracy", "layer", "horizontal", "vertical", "verdict", "expected"):
        table.add_column(column, justify="right" if column == "accuracy" else "left", overflow="fold")
    names = _readable([trial["trial_id"] for trial in seen.trials])
    for trial in trials:
        for index, row in enumerate(seen.layers.get(trial["trial_id"], [{}])):
            facts = _trial_cells(trial, names[trial["trial_id"]]) if index == 0 else ["", "", ""]
            table.add_row(*facts, *_layer_cells(row))
    return table


def sweep_json(sweep: SweepDir) -> dict[str, Any]:
    """The sweep as `sweep status --json` prints it."""
    seen = _look(sweep)
    return {
        "sweep": sweep.name,
        "counts": seen.counts,
        "cost": asdict(seen.cost),
        "trials": [_trial_json(trial, seen.layers.get(trial["trial_id"], [])) for trial in seen.trials],
    }


def layer_results_table(results: Sequence[LayerResult]) -> Table:
    """The layers of one file as `sweep analyze` prints them."""
    table = Table()
    for column in ("layer", "shape", "horizontal", "vertical", "verdict"):
        table.add_column(column, overflow="fold")
    for result in results:
        shape = "x".join(str(length) for length in result.shape)
        if (result.groups or 1) > 1:
            shape += f", {result.groups} groups"
        if result.scores is None:
            table.add_row(escape(result.layer), shape, "", "", f"skipped: {escape(str(result.skipped))}", style="dim")
            continue
        s = result.scores
        table.add_row(
            escape(result.layer),
            shape,
            _interval(s.horizontal, s.horizontal_low, s.horizontal_high),
            _interval(s.vertical, s.vertical_low, s.vertical_high),
            _coloured(result.verdict) + _dead(s),
        )
    return table


@contextmanager
def layer_progress(console: Console, layers: int) -> Iterator[Callable[[str], None]]:
    """A bar over the layers of a file, removed when they are done; yields what to call with each one's name."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=layers)
        yield lambda layer: progress.update(task, advance=1, description=escape(layer))


def draw_layers(results: Sequence[LayerResult], path: Path) -> None:
    """Write the weights of a file's scored layers as a PNG, one row per layer.

    Raises:
        ValueError: no layer was scored, or the file can't be written.
    """
    rows = [
        FigureRow(
            label=result.layer,
            note=f"{result.verdict}  {decimal(result.scores.horizontal)} / {decimal(result.scores.vertical)}",
            reduced=result.reduction.reduced,
            order=result.order,
        )
        for result in results
        if result.scores is not None and result.reduction is not None and result.order is not None
    ]
    if not rows:
        raise ValueError("no layer could be scored, so there is nothing to draw")
    try:
        figure(rows, zoom=2 if len(rows) <= _LARGE_FIGURE else 1).save(path, format="PNG")
    except OSError as error:
        raise ValueError(f"can't write {path}: {error}") from error


def _dead(scores: BandScores) -> str:
    return f" ({scores.dead} of {scores.neurons} neurons without variation)" if scores.dead else ""


def layer_results_json(results: Sequence[LayerResult]) -> list[dict[str, Any]]:
    """The layers of one file as `sweep analyze --json` prints them."""
    return [
        {
            "layer": result.layer,
            "shape": list(result.shape),
            "horizontal": None if result.scores is None else round(result.scores.horizontal, 4),
            "vertical": None if result.scores is None else round(result.scores.vertical, 4),
            "verdict": result.verdict,
            "skipped": result.skipped,
        }
        for result in results
    ]


def draw_sweep(sweep: SweepDir) -> UPath | None:
    """Write the picture of a sweep: the coloured weights of each trial's last conv, of 100 trials at most.

    Returns its path, or None if no trial is analysed.
    """
    last = last_convs(read_table(sweep.path, "trials"), read_table(sweep.path, "layers"))
    told_apart = [name for name in ("architecture", "data_key", "recipe_key") if len(set(last[name].dropna())) > 1]
    rows = []
    for row in records(last.dropna(subset="verdict").head(_MOST)):
        reduced = read_reduced(sweep.path, row["trial_id"], int(row["analysed_step"]), row["layer"])
        if reduced is not None:
            note = f"{row['verdict']}  {decimal(row['horizontal'])} / {decimal(row['vertical'])}"
            label = " ".join([*(str(row[name]) for name in told_apart), row["intervention"], f"s{row['seed']}"])
            rows.append(FigureRow(label=label, note=note, reduced=reduced.reduced, order=reduced.order))
    if not rows:
        return None
    buffer = BytesIO()
    figure(rows).save(buffer, format="PNG")
    write_bytes(sweep.picture, buffer.getvalue())
    return sweep.picture


@dataclass(frozen=True)
class _Seen:
    """A sweep as it is now: its driver, its trials, and the newest layers of each, the last conv first."""

    driver: Holder | None
    counts: dict[str, int]
    cost: Cost
    trials: list[Row]
    layers: dict[str, list[Row]]


def _look(sweep: SweepDir) -> _Seen:
    tables = look(sweep)
    driver = holder(sweep.path)
    trials = standing(tables["trials"], driver)
    layers: dict[str, list[Row]] = {}
    for row in plain_records(newest(tables["layers"])):
        layers.setdefault(row["trial_id"], []).append(row)
    cost = cost_of(trial_costs(trials, measured_speeds(trials, tables["epochs"]), read_prices()))
    return _Seen(driver, counts(trials), cost, plain_records(trials), layers)


def _title(sweep: SweepDir, seen: _Seen) -> str:
    counts = ", ".join(f"{number} {state}" for state, number in seen.counts.items() if number) or "no trials"
    driver = seen.driver
    works = f"; driver: process {driver.pid} on {driver.host}, heartbeat {driver.age_s:.0f} s ago" if driver else ""
    cost = done_and_left(seen.cost)
    return f"{sweep.name}: {counts}{works}" + (f"\n{cost}" if cost else "")


def _trial_cells(trial: Row, name: str) -> list[str]:
    accuracy = "" if trial["val_accuracy"] is None else f"{trial['val_accuracy']:.3f}"
    return [name, _status_cell(trial), accuracy]


def _status_cell(trial: Row) -> str:
    """A trial's status with what a reader needs to know about it."""
    said = [_coloured(trial["status"])]
    if trial["status"] == "running":
        beat = "" if trial["heartbeat_at"] is None else f", {time.time() - trial['heartbeat_at']:.0f} s ago"
        said.append(f"epoch {trial['epoch']} of {trial['epochs']} on {trial['host']}{beat}")
    if (trial["attempts"] or 0) > 1:
        said.append(f"attempt {trial['attempts']}")
    remark = trial["error"] or trial["reason"]
    return ", ".join(said) + (f": {escape(remark)}" if remark else "")


def _readable(trial_ids: Sequence[str]) -> dict[str, str]:
    """Each trial's id, without its hash if that is still unique."""
    short = {trial_id: trial_id.rpartition("-")[0] for trial_id in trial_ids}
    counts = Counter(short.values())
    return {trial_id: name if counts[name] == 1 else trial_id for trial_id, name in short.items()}


def _layer_cells(row: dict[str, Any]) -> list[str]:
    if not row:
        return [""] * 5
    if row["error"]:
        return [row["layer"], "", "", f"[red]{escape(row['error'])}[/red]", row["expected"] or ""]
    intervals = [_interval(row[axis], row[f"{axis}_low"], row[f"{axis}_high"]) for axis in ("horizontal", "vertical")]
    return [row["layer"], *intervals, _coloured(row["verdict"]), row["expected"] or ""]


def _trial_json(trial: Row, layers: list[Row]) -> Row:
    keys = ("layer", "step", "horizontal", "vertical", "verdict", "expected")
    own = ("trial_id", "architecture", "intervention", "seed", "status", "attempts")
    return {
        **{key: trial[key] for key in own},
        "error": trial["reason"] if trial["status"] == "excluded" else trial["error"],
        "val_accuracy": trial["val_accuracy"],
        "gpu_hours": trial["gpu_hours"],
        "layers": [{key: row[key] for key in keys} for row in layers],
    }


def _interval(value: float, low: float, high: float) -> str:
    return f"{decimal(value)} [{decimal(low)}, {decimal(high)}]".replace("[", r"\[")


def _coloured(word: str | None) -> str:
    style = _STYLES.get(word or "")
    return f"[{style}]{word}[/{style}]" if style else word or ""
