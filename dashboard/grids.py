"""The grid of cells for the reader: in parts that fit a screen, as a table, in words; what a click on it names."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dashboard import links, shape
from sweep.results import cells
from sweep.results.state import State
from sweep.results.tables import COLUMNS
from sweep.results.words import count, decimal

MOST_ARCHITECTURES = 26  # beside each other in one chart


def position_name(position: int) -> str:
    """`last conv`, `last conv - 1` and so on."""
    return "last conv" if position == 1 else f"last conv - {position - 1}"


def parts(grid: pd.DataFrame) -> list[pd.DataFrame]:
    """A grid cut into as many as fit beside each other, by architecture."""
    names = grid["architecture"].unique()
    chunks = [names[first : first + MOST_ARCHITECTURES] for first in range(0, len(names), MOST_ARCHITECTURES)]
    return [grid[grid["architecture"].isin(chunk)] for chunk in chunks]


def shown(row: Mapping[Any, Any]) -> str:
    """The address of a cell's or trial's layer on the page Weights."""
    layer = row.get("layer")
    return f"{row['trial_id']}/{layer}" if isinstance(layer, str) and layer else str(row["trial_id"])


def clicked_cell(part: pd.DataFrame, points: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """The cell that a click on the chart has chosen."""
    if not points:
        return None
    point = points[-1]
    found = part[(part["architecture"] == point["architecture"]) & (part["intervention"] == point["intervention"])]
    return None if found.empty else {str(name): value for name, value in found.iloc[0].items()}


def cell_table(part: pd.DataFrame, sweep: str, position: int) -> pd.DataFrame:
    """A row for each cell, with a link to its weights."""
    to_weights = [links.to("weights", sweep, show=shown(row)) for row in part.to_dict("records")]
    table = pd.DataFrame(
        {
            "Architecture": part["architecture"],
            "Intervention": part["intervention"],
            position_name(position).capitalize(): part["outcome"],
            "Score": part["score"],
            "Spread": part["spread"],
            "Seeds": part["scored"],
            "Expected": part["expected"],
            "Agreement": part["agreement"],
            "Trials": part["state"],
            "Weights": to_weights,
        }
    )
    return table.round(3)


def in_words(part: pd.DataFrame, position: int) -> str:
    """The chart's text alternative."""
    found = part["outcome"].value_counts()
    told = ", ".join(f"{number} {outcome}" for outcome, number in found.items())
    surprising = int(part["surprising"].sum())
    name, number = position_name(position), count(len(part), "cell")
    return f"Banding in the {name} of {number}: {told}; {surprising} not as expected"


def pictured(seen: State, wanted: dict[str, list[str]], position: int) -> pd.DataFrame:
    """One analysed trial for each cell, in the order of the grid, with what the conv at this position shows."""
    trials = shape.chosen(seen.trials, wanted)
    if position != 1:
        trials = cells.with_layer(trials[list(COLUMNS["trials"])], seen.newest, position)
    return trials.dropna(subset="verdict").drop_duplicates(["title", "architecture", "intervention"])


def scores(row: Mapping[Any, Any]) -> str:
    """Both scores, the horizontal one first."""
    return f"{decimal(row['horizontal'])} / {decimal(row['vertical'])}"
