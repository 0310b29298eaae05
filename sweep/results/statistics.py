"""Over seeds and over training: means, spreads, paired differences, and when a verdict is reached.

Pure functions of the results tables; needs neither torch nor Ray.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis.banding import THRESHOLD
from sweep.spec import USUAL_FLIP

BASELINE = "baseline"
CONDITION = ("data", "data_key", "recipe_key", "architecture")
"""What two trials must share to be compared: the data set by name and content, the recipe, the architecture."""
DIRECTIONS = ("horizontal", "vertical")

_CONFIDENCE = 0.95
_QUANTITIES = (*DIRECTIONS, "val_accuracy")


def scored(trials: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """One row for each finished trial and layer analysed at its last step: the trial's facts, the layer's scores.

    Unfinished trials are left out, and finished ones whose last checkpoint is not analysed: what half-trained networks
    show is not a result.
    """
    facts = ["trial_id", "step", *CONDITION, "intervention", "seed", "val_accuracy"]
    good = layers[layers["error"].isna() & layers["horizontal"].notna()].sort_values("position")
    return finished(trials)[facts].merge(good, on=["trial_id", "step"])


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The finished trials; `step` is the last one of each."""
    return trials[trials["status"] == "finished"]


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `scored`, one for each condition, intervention and layer: mean and spread over its seeds.

    `n` seeds; `<quantity>_mean` and `<quantity>_std` of the scores and of the validation accuracy, the standard
    deviation with n - 1, missing with one seed; `verdict` the one that most seeds share, in a tie that of the mean
    scores, `agreeing` how many seeds have it; `surprising` if it is not the one expected.
    """
    keys = [*CONDITION, "intervention", "layer", "position"]
    rows = rows.assign(_group=rows.groupby(keys, sort=False, dropna=False).ngroup())
    groups = rows.groupby("_group", sort=False)
    found = groups[keys].first(skipna=False).assign(n=groups.size())
    for quantity in _QUANTITIES:
        found[f"{quantity}_mean"] = groups[quantity].mean().astype(float)
        found[f"{quantity}_std"] = groups[quantity].std(ddof=1).astype(float)
    found["verdict"] = shared_verdicts(rows, ["_group"]).astype(object)
    shared = rows["_group"].map(found["verdict"])
    found["agreeing"] = (rows["verdict"] == shared).groupby(rows["_group"], sort=False).sum().astype(int)
    found["expected"] = groups["expected"].first().fillna("unknown")
    surprising = (found["expected"] != "unknown") & (found["expected"] != found["verdict"])
    found["surprising"] = surprising.astype(bool)
    return found.reset_index(drop=True)


def condition_titles(trials: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """For each data set (its name, the key of its content) and recipe, the words that tell it from a sweep's others.

    All are empty where there is nothing to tell apart. Contents are named only where one architecture has several that
    are flipped alike: networks with other image sizes have data of their own.
    """
    kinds = trials[[*CONDITION, "flip"]].fillna({"flip": USUAL_FLIP}).drop_duplicates()
    contents = kinds.groupby(["data", "recipe_key", "architecture", "flip"])["data_key"].nunique()
    told = {
        "data": len(set(kinds["data"])) > 1,
        "flip": len(set(kinds["flip"])) > 1,
        "content": bool((contents > 1).any()),
        "recipe": len(set(kinds["recipe_key"])) > 1,
    }
    titles = {}
    for data, content, recipe, _, flip in kinds.itertuples(index=False, name=None):
        words = [data]
        if told["flip"]:
            words.append(f"flip {flip.replace('_', ' ')}")
        if told["content"]:
            words.append(f"content {content.rpartition('-')[2]}")
        if told["recipe"]:
            words.append(f"recipe {recipe}")
        titles[data, content, recipe] = ", ".join(words) if any(told.values()) else ""
    return titles


def shared_verdicts(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """The verdict that most rows of each group have; where several are as frequent, that of the mean scores."""
    groups = rows.groupby(keys, sort=False)
    if rows.empty:
        return pd.Series(index=groups.size().index, dtype=object, name="verdict")
    means = groups[list(DIRECTIONS)].mean()
    larger = np.where(means["vertical"] > means["horizontal"], "vertical", "horizontal")
    of_means = pd.Series(np.where(means.max(axis=1) >= THRESHOLD, larger, "none"), means.index, name="verdict")
    votes = rows.groupby([*keys, "verdict"], sort=False).size()
    most = votes[votes == votes.groupby(level=keys).transform("max")].reset_index("verdict")["verdict"]
    alone = most[~most.index.duplicated(keep=False)]
    return alone.reindex(of_means.index).fillna(of_means)


def told_direction(verdict: str, horizontal: float, vertical: float) -> str:
    """The direction whose score a verdict is about: its own; for `none`, the larger of the two."""
    if verdict in DIRECTIONS:
        return verdict
    return "vertical" if vertical > horizontal else "horizontal"


def paired_differences(rows: pd.DataFrame, baseline: str = BASELINE) -> pd.DataFrame:
    """Rows of `scored`, one for each condition, intervention, layer position and direction: intervention - baseline.

    Trials are paired by seed under the same condition at the same layer position. `n` pairs; `mean` and `std` of their
    differences; `low`, `high`: 95% interval of the mean, Student's t with n - 1 degrees of freedom; `p`: probability of
    a mean this far from 0 by chance (two-sided, the same t); `p_holm`: the same, corrected for all differences of the
    table (Holm 1979). With one pair, nothing is known about the spread, and the last four are missing. Interventions
    without a pair are left out.
    """
    keys = [*CONDITION, "position", "seed"]
    base = rows.loc[rows["intervention"] == baseline, [*keys, *DIRECTIONS]]
    others = rows[rows["intervention"] != baseline]
    pairs = others.merge(base, on=keys, suffixes=("", "_baseline"))
    group_keys = [*CONDITION, "intervention", "layer", "position"]
    groups = pairs.groupby(group_keys, sort=False, dropna=False).ngroup()
    first = pairs[~groups.duplicated()][group_keys].reset_index(drop=True)
    of_directions = []
    for direction in DIRECTIONS:
        differences = (pairs[direction] - pairs[f"{direction}_baseline"]).astype(float).groupby(groups, sort=False)
        spread = pd.DataFrame({"n": differences.size(), "mean": differences.mean(), "std": differences.std(ddof=1)})
        of_directions.append(first.assign(direction=direction).join(spread.reset_index(drop=True)))
    table = pd.concat(of_directions).sort_index(kind="stable").reset_index(drop=True)
    half = half_width(table["std"], table["n"])
    table = table.assign(
        low=table["mean"] - half, high=table["mean"] + half, p=p_value(table["mean"], table["std"], table["n"])
    ).astype(dict.fromkeys(["mean", "std", "low", "high", "p"], "Float64"))
    return table.assign(p_holm=holm(table["p"]))


def half_width(std: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Half the 95% interval of a mean of n values with this standard deviation: t(0.975, n - 1) std / sqrt(n)."""
    from scipy.special import stdtrit  # takes a quarter of a second of each command that needs no interval

    deviation, number = np.asarray(std, float), np.asarray(n, float)
    return np.asarray(stdtrit(number - 1, (1 + _CONFIDENCE) / 2) * deviation / np.sqrt(number))


def p_value(mean: ArrayLike, std: ArrayLike, n: ArrayLike) -> np.ndarray:
    """Two-sided probability of a mean of n values this far from 0 by chance: 2 t(-|mean| sqrt(n) / std, n - 1)."""
    from scipy.special import stdtr

    middle, deviation, number = (np.asarray(values, float) for values in (mean, std, n))
    with np.errstate(divide="ignore", invalid="ignore"):  # where the values are equal
        chance = 2 * stdtr(number - 1, -np.abs(middle) * np.sqrt(number) / deviation)
    return np.where((deviation == 0) & (middle == 0), 1.0, chance)


def holm(p: pd.Series) -> pd.Series:
    """Probabilities corrected for their number: of m, the i-th smallest times m - i + 1, non-decreasing, at most 1.

    Missing ones stay missing and are not counted.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    ordered = p.dropna().sort_values()
    return (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1).reindex(p.index)


def first_epoch(trajectory: pd.DataFrame) -> float | None:
    """The first epoch of one layer's analysed checkpoints from which on all have the final verdict.

    `trajectory` has `step`, `epoch` and `verdict`. None where the final verdict is none, nothing is analysed, or the
    epoch is not known.
    """
    ordered = trajectory.dropna(subset="verdict").sort_values("step")
    if ordered.empty or ordered["verdict"].iloc[-1] == "none":
        return None
    differs = (ordered["verdict"] != ordered["verdict"].iloc[-1]).to_numpy()
    after = int(differs.nonzero()[0].max()) + 1 if differs.any() else 0
    epoch = ordered["epoch"].iloc[after]
    return None if pd.isna(epoch) else float(epoch)


def first_epochs(layers: pd.DataFrame) -> pd.DataFrame:
    """For each trial and layer its final `verdict`, and the `first_epoch` at which it holds (missing for none)."""
    good = layers[layers["error"].isna() & layers["verdict"].notna()]
    keys = ["trial_id", "layer", "position"]
    found = [
        dict(zip(keys, key, strict=True))
        | {"verdict": trajectory.sort_values("step")["verdict"].iloc[-1], "first_epoch": first_epoch(trajectory)}
        for key, trajectory in good.groupby(keys, sort=False)
    ]
    return pd.DataFrame(found, columns=[*keys, "verdict", "first_epoch"]).astype({"first_epoch": "Float64"})
