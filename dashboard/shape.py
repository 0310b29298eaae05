"""From results tables to what the pages show. Pure functions of data frames; no drawing."""

from collections.abc import Sequence

import pandas as pd

from sweep.results.words import decimal


def chosen(trials: pd.DataFrame, wanted: dict[str, list[str]]) -> pd.DataFrame:
    """The trials whose columns have one of the wanted values; an empty list means all."""
    for column, values in wanted.items():
        if values:
            trials = trials[trials[column].isin(values)]
    return trials


def ago(seconds: float) -> str:
    """A time that has passed, in the unit one would say it in."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def trial_names(trials: pd.DataFrame) -> list[str]:
    """What tells trials apart, in the order in which they differ: intervention, seed, architecture, the id's hash."""
    facts = trials[["intervention", "seed", "architecture", "trial_id"]].itertuples(index=False, name=None)
    return [f"{name} · s{seed} · {net} · {key.rpartition('-')[2][:6]}" for name, seed, net, key in facts]


def may_be_retried(trial: pd.Series) -> bool:
    """Whether a trial as it stands (`sweep.results.cells.standing`) failed, was interrupted or was stopped."""
    begun = trial["attempts"] > 0 or pd.notna(trial["reason"])
    return bool(trial["status"] == "failed" or (trial["status"] == "pending" and begun))


def seed_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of `sweep.results.statistics.over_seeds` for the reader, the last conv first."""
    ordered = summary.sort_values("position", kind="stable")
    columns = {
        "Architecture": ordered["architecture"],
        "Intervention": ordered["intervention"],
        "Layer": ordered["layer"],
        "Seeds": ordered["n"],
        "Horizontal": _spreads(ordered, "horizontal"),
        "Vertical": _spreads(ordered, "vertical"),
        "Verdict": [
            f"{told} ({agreeing} of {n})" if agreeing < n else told
            for told, agreeing, n in ordered[["told", "agreeing", "n"]].itertuples(index=False, name=None)
        ],
        "Expected": ordered["expected"],
        "Accuracy": _spreads(ordered, "val_accuracy"),
    }
    if ordered["title"].any():
        columns["Data set, recipe"] = ordered["title"]
    return pd.DataFrame(columns).reset_index(drop=True)


def difference_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Rows of `sweep.results.contrasts.contrasts` for the reader, with p where they are primary endpoints."""
    numbers = differences[["difference", "low", "high"]].itertuples(index=False, name=None)
    seeds = differences[["n", "n_baseline"]].itertuples(index=False, name=None)
    columns = {
        "Intervention": differences["intervention"].tolist(),
        "Of": differences["quantity"].tolist(),
        "Seeds": [f"{own} / {baseline}" for own, baseline in seeds],
        "Difference": [f"{difference:+.2f}" for difference in differences["difference"]],
        "95% interval": ["" if pd.isna(low) else f"{low:+.2f} to {high:+.2f}" for _, low, high in numbers],
    }
    if differences["primary"].all():
        columns["p, corrected"] = ["" if pd.isna(p) else f"{p:.3f}" for p in differences["p_holm"]]
    return pd.DataFrame(columns)


def trajectory(layers: pd.DataFrame, trial_id: str) -> pd.DataFrame:
    """Scores of a trial's layers over its checkpoints, long: layer, epoch, direction, score, low, high."""
    own = layers[(layers["trial_id"] == trial_id) & layers["error"].isna()]
    parts = [
        own[["layer", "epoch", "step"]].assign(
            direction=direction, score=own[direction], low=own[f"{direction}_low"], high=own[f"{direction}_high"]
        )
        for direction in ("horizontal", "vertical")
    ]
    return pd.concat(parts, ignore_index=True)


def curves(epochs: pd.DataFrame, trial_id: str, quantity: str) -> pd.DataFrame:
    """A trial's training and validation curve of `loss` or `accuracy`, long: epoch, images, value."""
    own = epochs[epochs["trial_id"] == trial_id]
    parts = [
        own[["epoch"]].assign(images=images, value=own[f"{prefix}_{quantity}"])
        for images, prefix in (("training", "train"), ("validation", "val"))
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def _spreads(summary: pd.DataFrame, quantity: str) -> list[str]:
    """Mean ± standard deviation in words; the mean alone where there is one seed."""
    pairs = summary[[f"{quantity}_mean", f"{quantity}_std"]].itertuples(index=False, name=None)
    return [decimal(mean) + ("" if pd.isna(std) else f" ± {std:.2f}") for mean, std in pairs]


def narrowed(names: Sequence[str], part: str, most: int, keep: str | None) -> list[str]:
    """The first `most` names that contain `part`, or the first of all names where none does.

    `keep`, if it is one of the names, is always included, so that the trial on screen stays chosen.
    """
    fitting = [name for name in names if part.lower() in name.lower()] or list(names)
    shown = fitting[:most]
    return shown if keep is None or keep in shown or keep not in names else [*shown, keep]
