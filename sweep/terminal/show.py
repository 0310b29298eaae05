"""What the command line prints and draws of a sweep: tables, JSON, the picture of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from upath import UPath

from analysis.picture import FigureRow, figure, png
from analysis.write import write_bytes
from sweep.results.cells import last_convs
from sweep.results.state import Filters, read_state
from sweep.results.tables import read_reduced, read_table, records
from sweep.results.verdicts import told_verdict
from sweep.results.words import decimal, remarkable
from sweep.store.sweep_dir import SweepDir
from sweep.terminal.status import STYLES, StateView, state_json

if TYPE_CHECKING:  # whose module loads torch
    from analysis.layers import LayerResult

_MOST = 100  # rows of a picture that a person still reads
_LARGE_FIGURE = 16  # rows; a figure with more is large enough at one pixel per weight


def sweep_table(sweep: SweepDir) -> StateView:
    """The results so far: one row per trial and final layer, at the newest checkpoint."""
    return StateView(read_state(sweep, surveyed=True), Filters())


def sweep_json(sweep: SweepDir) -> dict[str, Any]:
    """The whole sweep as `sweep status --json` prints it."""
    return state_json(read_state(sweep, surveyed=True), Filters())


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
            _coloured(result.verdict, told_verdict(result.verdict, result.reliability)) + _remark(result),
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


def _remark(result: LayerResult) -> str:
    """What a reader of the scores should know of some neurons."""
    scores, reduction = result.scores, result.reduction
    assert scores is not None
    assert reduction is not None
    said = remarkable(scores.neurons, scores.dead, reduction.single_tap)
    return f" ({said})" if said else ""


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
            "null_turned_high": None if result.turned is None else _rounded(result.turned.null_turned_high),
            "reliability": _rounded(result.reliability),
        }
        for result in results
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


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
    write_bytes(sweep.picture, png(figure(rows)))
    return sweep.picture


def _interval(value: float, low: float, high: float) -> str:
    return f"{decimal(value)} [{decimal(low)}, {decimal(high)}]".replace("[", r"\[")


def _coloured(verdict: str | None, told: str) -> str:
    style = STYLES.get(verdict or "")
    return f"[{style}]{told}[/{style}]" if style else told
