"""What each intervention changes: one primary endpoint, tested, and everything else as exploration.

An intervention's primary endpoint is the last conv's score in one direction, which its plan names before it runs. Only
these are tested, and corrected for their number. Other layers, the other direction and the accuracy have intervals,
each for itself.

Trials are not paired by seed: a seed moves the scores of a baseline and of an intervention hardly more alike than two
seeds do, and pairing would leave 2 degrees of freedom of 50. benchmarks/power.py measures both.

Pure functions of the results tables; needs neither torch nor Ray.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sweep.results.statistics import BASELINE, CONDITION, DIRECTIONS

QUANTITIES = {**{name: name for name in DIRECTIONS}, "accuracy": "val_accuracy"}
"""The columns of `statistics.scored` that are compared, by what the tables call them."""

_CONFIDENCE = 0.95
_COLUMNS = (
    *CONDITION, "intervention", "layer", "position", "quantity", "n", "n_baseline", "difference", "std", "df", "low",
    "high", "primary", "p", "p_holm",
)  # fmt: skip
_STRATUM = [*CONDITION, "position", "quantity"]
"""What cells must share for their variances to be pooled."""


def contrasts(rows: pd.DataFrame, baseline: str = BASELINE) -> pd.DataFrame:
    """Rows of `statistics.scored`, one for each condition, intervention, layer position and quantity.

    `difference`: mean over the intervention's `n` seeds minus mean over the baseline's `n_baseline`. `std`: standard
    deviation between seeds, pooled over all cells of the condition, with `df` = sum(n - 1) degrees of freedom; trials
    without training are left out of it, since no seed moves them. `low`, `high`: 95% interval, Student's t. `primary`:
    whether the row is its intervention's primary endpoint; only those have `p`, the two-sided probability of a
    difference this large by chance, and `p_holm`, the same corrected for all primary endpoints of the table. Without a
    cell of several seeds, nothing is known about the spread, and the last five are missing.

    Source: one-way analysis of variance with a common error term (Dunnett 1955 compares with a control so); the
    correction is Holm's (1979).
    """
    cells = _with_pooled_spread(_cells(_values(rows)))
    of_baseline = cells.loc[cells["intervention"] == baseline, [*_STRATUM, "n", "mean"]]
    table = cells[cells["intervention"] != baseline].merge(of_baseline, on=_STRATUM, suffixes=("", "_baseline"))
    difference = table["mean"] - table["mean_baseline"]
    error = table["std"] * np.sqrt(1 / table["n"] + 1 / table["n_baseline"])
    half = half_width(error, table["df"])
    p = pd.Series(p_value(difference, error, table["df"]), table.index).where(table["primary"])
    table = table.assign(difference=difference, low=difference - half, high=difference + half, p=p, p_holm=holm(p))
    return table[list(_COLUMNS)]


def half_width(error: ArrayLike, df: ArrayLike) -> np.ndarray:
    """Half the 95% interval of an estimate with this standard error: t(0.975, df) error; missing where df is 0."""
    from scipy.special import stdtrit  # takes a quarter of a second of each command that needs no interval

    freedom = np.asarray(df, float)
    quantile = stdtrit(np.where(freedom > 0, freedom, np.nan), (1 + _CONFIDENCE) / 2)
    return np.asarray(quantile * np.asarray(error, float))


def p_value(difference: ArrayLike, error: ArrayLike, df: ArrayLike) -> np.ndarray:
    """Two-sided probability of an estimate this far from 0 by chance: 2 t(-|difference| / error, df)."""
    from scipy.special import stdtr

    value, deviation, freedom = (np.asarray(values, float) for values in (difference, error, df))
    with np.errstate(divide="ignore", invalid="ignore"):  # where no seed differs from another
        chance = 2 * stdtr(np.where(freedom > 0, freedom, np.nan), -np.abs(value) / deviation)
    return np.where((deviation == 0) & (value == 0), 1.0, chance)


def holm(p: pd.Series) -> pd.Series:
    """Probabilities corrected for their number: of m, the i-th smallest times m - i + 1, non-decreasing, at most 1.

    Missing ones stay missing and are not counted.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    ordered = p.dropna().sort_values()
    return (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1).reindex(p.index)


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    """Long: a row for each trial, layer and quantity; the accuracy, a network's own, stands beside its last conv."""
    facts = rows[[*CONDITION, "intervention", "layer", "position"]].assign(trained=rows["step"] > 0)
    endpoint = _endpoints(rows)
    last = rows["position"] == 1
    parts = [
        facts.assign(quantity=name, value=rows[column].astype(float), primary=last & (endpoint == name))
        for name, column in QUANTITIES.items()
    ]
    parts[-1] = parts[-1][last]
    return pd.concat(parts).dropna(subset="value").sort_index(kind="stable")


def _endpoints(rows: pd.DataFrame) -> pd.Series:
    """The direction of each row's primary endpoint; of older plans, which name none, the one that was expected."""
    expected = rows["expected"].where(rows["expected"].isin(DIRECTIONS), DIRECTIONS[0])
    return rows["primary"].fillna(expected)


def _cells(values: pd.DataFrame) -> pd.DataFrame:
    """Over seeds: `n`, `mean` and `variance` (with n - 1; missing for one seed) of each cell's quantities."""
    keys = [*_STRATUM, "intervention"]
    groups = values.groupby(keys, sort=False, dropna=False)
    found = groups.agg(
        layer=("layer", "first"), primary=("primary", "first"), trained=("trained", "any"),
        n=("value", "size"), mean=("value", "mean"), variance=("value", "var"),
    )  # fmt: skip
    return found.reset_index()


def _with_pooled_spread(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with the `std` and `df` of their stratum."""
    freedom = (cells["n"] - 1).where(cells["trained"], 0)
    parts = cells.assign(df=freedom, squares=cells["variance"].fillna(0) * freedom)
    pooled = parts.groupby(_STRATUM, sort=False, dropna=False)[["df", "squares"]].transform("sum")
    return cells.assign(df=pooled["df"], std=np.sqrt(pooled["squares"] / pooled["df"].where(pooled["df"] > 0)))
