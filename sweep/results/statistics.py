"""Over seeds and over training: means, spreads, and when a verdict is reached.

Pure functions of the results tables; needs neither torch nor Ray.
"""

import numpy as np
import pandas as pd

from analysis.banding import RELIABLE, THRESHOLD
from sweep.results.verdicts import TOO_NOISY
from sweep.spec import USUAL_FLIP

BASELINE = "baseline"
CONDITION = ("data", "data_key", "recipe_key", "architecture")
"""What two trials must share to be compared: the data set by name and content, the recipe, the architecture."""
DIRECTIONS = ("horizontal", "vertical")

_QUANTITIES = (*DIRECTIONS, "val_accuracy")
CHANCE = ("null_horizontal_high", "null_vertical_high", "null_turned_high", "reliability")
"""What a score is to be compared with."""


def scored(trials: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """One row for each finished trial and layer analysed at its last step: the trial's facts, the layer's scores.

    Unfinished trials are left out, and finished ones whose last checkpoint is not analysed: what half-trained networks
    show is not a result.
    """
    facts = ["trial_id", "step", *CONDITION, "intervention", "seed", "val_accuracy", "primary"]
    good = layers[layers["error"].isna() & layers["horizontal"].notna()].sort_values("position")
    return finished(trials)[facts].merge(good, on=["trial_id", "step"])


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The finished trials; `step` is the last one of each."""
    return trials[trials["status"] == "finished"]


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `scored`, one for each condition, intervention and layer: mean and spread over its seeds.

    `n` seeds; `<quantity>_mean` and `<quantity>_std` of the scores and of the validation accuracy, the standard
    deviation with n - 1, missing with one seed; the means of `CHANCE`; `verdict` the one that most seeds share, in a
    tie that of the mean scores, `agreeing` how many seeds have it; `surprising` if it is not the one expected; `told`
    the verdict in words: too noisy to judge where it is none and most seeds are.
    """
    keys = [*CONDITION, "intervention", "layer", "position"]
    rows = rows.assign(_group=rows.groupby(keys, sort=False, dropna=False).ngroup())
    groups = rows.groupby("_group", sort=False)
    found = groups[keys].first(skipna=False).assign(n=groups.size())
    for quantity in _QUANTITIES:
        found[f"{quantity}_mean"] = groups[quantity].mean().astype(float)
        found[f"{quantity}_std"] = groups[quantity].std(ddof=1).astype(float)
    for quantity in CHANCE:
        found[quantity] = groups[quantity].mean().astype(float)
    found["verdict"] = shared_verdicts(rows, ["_group"]).astype(object)
    shared = rows["_group"].map(found["verdict"])
    found["agreeing"] = (rows["verdict"] == shared).groupby(rows["_group"], sort=False).sum().astype(int)
    found["expected"] = groups["expected"].first().fillna("unknown")
    surprising = (found["expected"] != "unknown") & (found["expected"] != found["verdict"])
    found["surprising"] = surprising.astype(bool)
    noisy = (rows["verdict"] == "none") & (rows["reliability"] < RELIABLE).fillna(False)
    most = noisy.groupby(rows["_group"], sort=False).mean() > 0.5
    found["told"] = found["verdict"].mask((found["verdict"] == "none") & most, TOO_NOISY)
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
