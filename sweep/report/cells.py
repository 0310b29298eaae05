"""The cells of a sweep's grid for the report: verdict, scores over seeds, pictures, trajectories."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup
from upath import UPath

from sweep.report.drawings import Line, strip, trajectory_svg
from sweep.results.statistics import CONDITION, DIRECTIONS, finished
from sweep.results.tables import Row, read_reduced, records

SEEDS_DRAWN = 3
"""At most this many seeds per cell are drawn; the others are in the export."""


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One layer of a cell: its row of `statistics.over_seeds`, pictures (seed, data URI), trajectory, first epochs."""

    summary: Row
    pictures: Sequence[tuple[int, str]]
    trajectory: Markup
    first_epochs: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An architecture under an intervention: its row of `results.cells.cells`, and its layers drawn."""

    row: Row
    anchor: str
    layers: Sequence[LayerSummary]

    @property
    def remark(self) -> str:
        """How many of its trials are not finished, and how many are finished but have no scores."""
        states = [state for state in self.row["state"].split(", ") if state and not state.endswith(" finished")]
        return ", ".join([*states, *([f"{self.row['unscored']} unscored"] if self.row["unscored"] else [])])


@dataclass(frozen=True, kw_only=True)
class CellGrid:
    """The cells of one condition: `rows` has for each intervention a cell or None for each architecture."""

    title: str
    architectures: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


def cell_grids(
    sweep: UPath,
    cells: pd.DataFrame,
    trials: pd.DataFrame,
    layers: pd.DataFrame,
    summary: pd.DataFrame,
    firsts: pd.DataFrame,
) -> list[CellGrid]:
    """One grid for each data set and recipe of a sweep, in the order of the trials; `cells` gives all cells."""
    trajectories = layers[layers["error"].isna() & layers["epoch"].notna() & layers["horizontal"].notna()]
    by_trial = {str(key): part for key, part in trajectories.groupby("trial_id", sort=False)}
    keys = [*CONDITION, "intervention"]
    summaries = dict(iter(summary.groupby(keys, sort=False, dropna=False)))
    trials_of = dict(iter(trials.groupby(keys, sort=False, dropna=False)))
    first_of = {(row["trial_id"], row["position"]): row["first_epoch"] for row in records(firsts)}
    found = []
    for number, (title, group) in enumerate(cells.groupby("title", sort=False)):
        made: dict[tuple[str, str], Cell] = {}
        for row in records(group):
            key = tuple(row[name] for name in keys)
            scored = records(summaries[key].sort_values("position")) if key in summaries else []
            drawn = _layers(sweep, trials_of[key], scored, by_trial, first_of)
            made[row["architecture"], row["intervention"]] = Cell(
                row=row, anchor=f"cell-{number}-{len(made)}", layers=drawn
            )
        architectures = list(dict.fromkeys(architecture for architecture, _ in made))
        interventions = list(dict.fromkeys(intervention for _, intervention in made))
        rows = [(name, [made.get((architecture, name)) for architecture in architectures]) for name in interventions]
        found.append(CellGrid(title=str(title), architectures=architectures, rows=rows))
    return found


def _layers(
    sweep: UPath, part: pd.DataFrame, scored: Sequence[Row], by_trial: dict[str, pd.DataFrame], first_of: dict[Any, Any]
) -> list[LayerSummary]:
    trials = records(finished(part)[["trial_id", "seed", "step"]].sort_values("seed"))
    found = []
    for summary in scored:
        position = summary["position"]
        of_layer = [
            (trial, trajectory[trajectory["position"] == position].sort_values("step"))
            for trial in trials
            if (trajectory := by_trial.get(trial["trial_id"])) is not None
        ]
        of_layer = [(trial, trajectory) for trial, trajectory in of_layer if trial["step"] in set(trajectory["step"])]
        epochs = [first_of.get((trial["trial_id"], position)) for trial, _ in of_layer]
        found.append(
            LayerSummary(
                summary=summary,
                pictures=_pictures(sweep, of_layer[:SEEDS_DRAWN]),
                trajectory=trajectory_svg(trajectory_lines([trajectory for _, trajectory in of_layer])),
                first_epochs=_epochs(epochs),
            )
        )
    return found


def _epochs(epochs: Sequence[Any]) -> str:
    """The first epoch of each seed, `never` for a seed that ends without banding; empty where all do."""
    if all(pd.isna(epoch) for epoch in epochs):
        return ""
    return ", ".join("never" if pd.isna(epoch) else f"{epoch:g}" for epoch in epochs)


def _pictures(sweep: UPath, of_layer: Sequence[tuple[Row, pd.DataFrame]]) -> list[tuple[int, str]]:
    def draw(pair: tuple[Row, pd.DataFrame]) -> tuple[int, str] | None:
        trial, trajectory = pair
        newest = trajectory.iloc[-1]
        reduced = read_reduced(sweep, trial["trial_id"], int(newest["step"]), newest["layer"])
        return None if reduced is None else (int(trial["seed"]), strip(reduced.reduced, reduced.order))

    with ThreadPoolExecutor(SEEDS_DRAWN) as pool:
        return [drawn for drawn in pool.map(draw, of_layer) if drawn is not None]


def trajectory_lines(trajectories: Sequence[pd.DataFrame]) -> list[Line]:
    """For each direction, a thin line per seed and, where there are several, a thick one for their mean.

    The mean is taken at the epochs that all seeds have.
    """
    lines = []
    for direction in DIRECTIONS:
        seeds = [trajectory.set_index("epoch")[direction].astype(float) for trajectory in trajectories]
        lines += [
            Line(direction=direction, epochs=list(seed.index), scores=list(seed), thick=len(seeds) == 1)
            for seed in seeds
        ]
        if len(seeds) > 1:
            mean = pd.concat(seeds, axis=1).dropna().mean(axis=1).sort_index()
            if len(mean):
                lines.append(Line(direction=direction, epochs=list(mean.index), scores=list(mean), thick=True))
    return lines
