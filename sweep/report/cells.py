"""The cells of a sweep's grid for the report: verdict, scores over seeds, pictures, trajectories."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from upath import UPath

from sweep.report.drawings import Line, strip, trajectory_svg
from sweep.results.statistics import CONDITION, DIRECTIONS, condition_titles, finished, told_direction
from sweep.results.tables import read_reduced, records

SEEDS_DRAWN = 3
"""Pictures of so many seeds a cell; the others are in the export."""

_CELL = [*CONDITION, "intervention"]
_STATES = ("running", "pending", "failed", "excluded")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a cell: its row of `statistics.over_seeds`, pictures (seed, data URI), trajectory, first epochs."""

    summary: Row
    pictures: Sequence[tuple[int, str]]
    course: Markup
    first_epochs: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An architecture under an intervention: `outcome` is the last conv's verdict, or excluded, failed, waiting;
    `remark` says how many trials are not finished, `reason` why."""

    architecture: str
    intervention: str
    anchor: str
    outcome: str
    surprising: bool
    remark: str
    reason: str
    layers: Sequence[Layer]

    @property
    def score(self) -> Row | None:
        """Direction, mean, deviation and seeds of the score that the outcome is about; of none, the larger one."""
        if not self.layers:
            return None
        summary = self.layers[0].summary
        told = told_direction(summary["verdict"], *(summary[f"{name}_mean"] for name in DIRECTIONS))
        spread = {"mean": summary[f"{told}_mean"], "std": summary[f"{told}_std"]}
        return spread | {"direction": told, "n": summary["n"]}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The cells of one condition: `rows` has for each intervention a cell or None for each architecture."""

    title: str
    architectures: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


def grids(
    sweep: UPath, trials: pd.DataFrame, layers: pd.DataFrame, summary: pd.DataFrame, firsts: pd.DataFrame
) -> list[Grid]:
    """One grid for each data set and recipe of a sweep, in the order in which trials stand."""
    titles = condition_titles(trials)
    title_of = [titles[key] for key in trials[list(CONDITION[:3])].itertuples(index=False, name=None)]
    courses = layers[layers["error"].isna() & layers["epoch"].notna() & layers["horizontal"].notna()]
    by_trial = {str(key): part for key, part in courses.groupby("trial_id", sort=False)}
    summaries = dict(iter(summary.groupby(_CELL, sort=False, dropna=False)))
    first_of = {(row["trial_id"], row["position"]): row["first_epoch"] for row in records(firsts)}
    found = []
    for number, (title, group) in enumerate(trials.groupby(np.array(title_of, dtype=object), sort=False)):
        cells: dict[tuple[str, str], Cell] = {}
        for (architecture, intervention), part in group.groupby(["architecture", "intervention"], sort=False):
            key = (str(architecture), str(intervention))
            condition = part[list(CONDITION[:3])].iloc[0]
            own = summaries.get((*condition, *key))
            scored = [] if own is None else records(own.sort_values("position"))
            drawn = _layers(sweep, part, scored, by_trial, first_of)
            cells[key] = _cell(f"cell-{number}-{len(cells)}", key, part, drawn)
        architectures = list(dict.fromkeys(architecture for architecture, _ in cells))
        interventions = list(dict.fromkeys(intervention for _, intervention in cells))
        rows = [(name, [cells.get((architecture, name)) for architecture in architectures]) for name in interventions]
        found.append(Grid(title=str(title), architectures=architectures, rows=rows))
    return found


def _cell(anchor: str, key: tuple[str, str], part: pd.DataFrame, layers: Sequence[Layer]) -> Cell:
    counts = part["status"].value_counts()
    unfinished = [f"{counts[state]} {state}" for state in _STATES if state in counts]
    reasons = pd.concat([part["reason"], part["error"]]).dropna().unique()
    if layers:
        outcome = str(layers[0].summary["verdict"])
    elif "excluded" in counts and len(counts) == 1:
        outcome = "excluded"
    else:
        outcome = "failed" if "failed" in counts else "waiting"
    surprising = bool(layers) and bool(layers[0].summary["surprising"])
    return Cell(
        architecture=key[0], intervention=key[1], anchor=anchor, outcome=outcome, surprising=surprising,
        remark=", ".join(unfinished), reason="; ".join(map(str, reasons)), layers=layers,
    )  # fmt: skip


def _layers(
    sweep: UPath, part: pd.DataFrame, scored: Sequence[Row], by_trial: dict[str, pd.DataFrame], first_of: dict[Any, Any]
) -> list[Layer]:
    trials = records(finished(part)[["trial_id", "seed", "step"]].sort_values("seed"))
    found = []
    for summary in scored:
        position = summary["position"]
        of_layer = [
            (trial, course[course["position"] == position].sort_values("step"))
            for trial in trials
            if (course := by_trial.get(trial["trial_id"])) is not None
        ]
        of_layer = [(trial, course) for trial, course in of_layer if trial["step"] in set(course["step"])]
        epochs = [first_of.get((trial["trial_id"], position)) for trial, _ in of_layer]
        found.append(
            Layer(
                summary=summary,
                pictures=_pictures(sweep, of_layer[:SEEDS_DRAWN]),
                course=trajectory_svg(course_lines([course for _, course in of_layer])),
                first_epochs=_epochs(epochs),
            )
        )
    return found


def _epochs(epochs: Sequence[Any]) -> str:
    """The first epoch of each seed, `never` for a seed that ends without banding; nothing where all do."""
    if all(pd.isna(epoch) for epoch in epochs):
        return ""
    return ", ".join("never" if pd.isna(epoch) else f"{epoch:g}" for epoch in epochs)


def _pictures(sweep: UPath, of_layer: Sequence[tuple[Row, pd.DataFrame]]) -> list[tuple[int, str]]:
    def draw(pair: tuple[Row, pd.DataFrame]) -> tuple[int, str] | None:
        trial, course = pair
        newest = course.iloc[-1]
        reduced = read_reduced(sweep, trial["trial_id"], int(newest["step"]), newest["layer"])
        return None if reduced is None else (int(trial["seed"]), strip(reduced.reduced, reduced.order))

    with ThreadPoolExecutor(SEEDS_DRAWN) as pool:
        return [drawn for drawn in pool.map(draw, of_layer) if drawn is not None]


def course_lines(courses: Sequence[pd.DataFrame]) -> list[Line]:
    """For each direction a thin line for each seed and, where there are several, a thick one for their mean.

    The mean is taken at the epochs that all seeds have.
    """
    lines = []
    for direction in DIRECTIONS:
        seeds = [course.set_index("epoch")[direction].astype(float) for course in courses]
        lines += [
            Line(direction=direction, epochs=list(seed.index), scores=list(seed), thick=len(seeds) == 1)
            for seed in seeds
        ]
        if len(seeds) > 1:
            mean = pd.concat(seeds, axis=1).dropna().mean(axis=1).sort_index()
            lines += [Line(direction=direction, epochs=list(mean.index), scores=list(mean), thick=True)] * bool(
                len(mean)
            )
    return lines
