"""What the command line prints and draws of a sweep: tables, JSON, the picture of its weights."""

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import Any, get_args

import pandas as pd
from rich import box
from rich.table import Table
from upath import UPath

from analysis.layers import LayerResult
from analysis.picture import FigureRow, figure
from sweep.compact import layer_rows
from sweep.files import write_bytes
from sweep.results import final_layers, read_reduced, read_table
from sweep.store import Plan, State, Status, SweepDir

_STYLES = {"horizontal": "cyan", "vertical": "magenta", "failed": "red", "excluded": "dim"}


def sweep_table(sweep: SweepDir) -> Table:
    """The results so far: one row a trial and final layer, newest checkpoint."""
    table = Table(title=sweep.name, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("trial", "status", "accuracy", "layer", "horizontal", "vertical", "verdict", "expected"):
        table.add_column(column, justify="right" if column == "accuracy" else "left", overflow="fold")
    for plan, status in sweep.read_all():
        layers = _newest_layers(sweep, plan) or [{}]
        for index, row in enumerate(layers):
            facts = _trial_cells(plan, status) if index == 0 else ["", "", ""]
            table.add_row(*facts, *_layer_cells(row))
    return table


def sweep_json(sweep: SweepDir) -> dict[str, Any]:
    """The sweep as `sweep status --json` prints it."""
    trials = sweep.read_all()
    counts = Counter(status.status for _, status in trials)
    return {
        "sweep": sweep.name,
        "counts": {state: counts[state] for state in get_args(State)},
        "trials": [_trial_json(sweep, plan, status) for plan, status in trials],
    }


def layer_results_table(results: Sequence[LayerResult]) -> Table:
    """The layers of one file as `sweep analyze` prints them."""
    table = Table()
    for column in ("layer", "shape", "horizontal", "vertical", "verdict"):
        table.add_column(column, overflow="fold")
    for result in results:
        shape = "x".join(str(length) for length in result.shape)
        if result.scores is None:
            table.add_row(result.layer, shape, "", "", f"skipped: {result.skipped}", style="dim")
            continue
        s = result.scores
        table.add_row(
            result.layer,
            shape,
            _interval(s.horizontal, s.horizontal_low, s.horizontal_high),
            _interval(s.vertical, s.vertical_low, s.vertical_high),
            _coloured(result.verdict),
        )
    return table


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
    """Write `results/weights.png`: a row of coloured weights for each trial's last conv; None if none is analysed."""
    layers = final_layers(read_table(sweep.path, "layers"))
    last = layers[(layers["position"] == 1) & layers["error"].isna()]
    trials = read_table(sweep.path, "trials")[["trial_id", "intervention", "seed"]]
    rows = []
    for row in trials.merge(last, on="trial_id").to_dict("records"):
        reduced = read_reduced(sweep.path, row["trial_id"], row["step"], row["layer"])
        if reduced is not None:
            note = f"{row['verdict']}  {row['horizontal']:.2f} / {row['vertical']:.2f}"
            label = f"{row['intervention']} s{row['seed']}"
            rows.append(FigureRow(label=label, note=note, reduced=reduced.reduced, order=reduced.order))
    if not rows:
        return None
    buffer = BytesIO()
    figure(rows).save(buffer, format="PNG")
    path = sweep.path / "results" / "weights.png"
    write_bytes(path, buffer.getvalue())
    return path


def _newest_layers(sweep: SweepDir, plan: Plan) -> list[dict[str, Any]]:
    rows = layer_rows(sweep.trial(plan.trial_id), plan)
    if not rows:
        return []
    newest = final_layers(pd.DataFrame(rows)).sort_values("position")
    return list(newest.to_dict("records"))  # type: ignore[arg-type]  # the keys are column names


def _trial_cells(plan: Plan, status: Status) -> list[str]:
    accuracy = "" if status.val_accuracy is None else f"{status.val_accuracy:.3f}"
    remark = status.error or status.reason
    return [_readable(plan), _coloured(status.status) + (f": {remark}" if remark else ""), accuracy]


def _readable(plan: Plan) -> str:
    """A trial's id without its hash."""
    return plan.trial_id.rpartition("-")[0]


def _layer_cells(row: dict[str, Any]) -> list[str]:
    if not row:
        return [""] * 5
    if row["error"]:
        return [row["layer"], "", "", f"[red]{row['error']}[/red]", row["expected"]]
    intervals = [_interval(row[axis], row[f"{axis}_low"], row[f"{axis}_high"]) for axis in ("horizontal", "vertical")]
    return [row["layer"], *intervals, _coloured(row["verdict"]), row["expected"] or ""]


def _trial_json(sweep: SweepDir, plan: Plan, status: Status) -> dict[str, Any]:
    keys = ("layer", "step", "horizontal", "vertical", "verdict", "expected")
    return {
        "trial_id": plan.trial_id,
        "architecture": plan.spec.architecture,
        "intervention": plan.spec.intervention,
        "seed": plan.spec.init_seed,
        "status": status.status,
        "attempts": status.attempts,
        "error": status.error or status.reason,
        "val_accuracy": status.val_accuracy,
        "layers": [{key: row[key] for key in keys} for row in _newest_layers(sweep, plan)],
    }


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]".replace("[", r"\[")


def _coloured(word: str | None) -> str:
    style = _STYLES.get(word or "")
    return f"[{style}]{word}[/{style}]" if style else word or ""
