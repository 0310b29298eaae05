"""What the article lets one expect of each cell and layer, beside what was found; differences first."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sweep.results.state import State
from sweep.results.statistics import CONDITION, condition_titles, told_direction
from sweep.results.words import decimal


def findings(seen: State) -> pd.DataFrame:
    """The rows of `statistics.over_seeds` of which something was expected, those that differ first.

    `trial_id`, `step`: of the seed whose weights are shown; `title` tells data set and recipe.
    """
    known = seen.over_seeds[seen.over_seeds["expected"] != "unknown"]
    keys = [*CONDITION, "intervention", "layer"]
    first = seen.scored.sort_values("seed").drop_duplicates(keys)[[*keys, "trial_id", "step"]]
    found = known.merge(first, on=keys).sort_values("surprising", ascending=False, kind="stable", ignore_index=True)
    titles = condition_titles(seen.trials)
    named = found[list(CONDITION[:3])].itertuples(index=False, name=None)
    return found.assign(title=[titles[key] for key in named])


def unfinished(seen: State) -> int:
    """How many cells have no finding yet, those left out aside."""
    outcomes = seen.cells()["outcome"]
    return int(outcomes.isin(["running", "waiting", "failed", "unscored"]).sum())


def score_in_words(row: Mapping[Any, Any]) -> str:
    """The score that a finding's verdict is about, with its spread over seeds."""
    direction = told_direction(row["verdict"], row["horizontal_mean"], row["vertical_mean"])
    spread = row[f"{direction}_std"]
    return f"{direction} {decimal(row[f'{direction}_mean'])}" + ("" if pd.isna(spread) else f" ± {spread:.2f}")
