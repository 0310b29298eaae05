"""From results tables to what the page that compares trials shows. Pure functions of data frames; no drawing."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard import shape
from sweep.results.words import decimal


def telling_names(trials: pd.DataFrame) -> list[str]:
    """Names that tell a few trials apart: intervention and seed, and whatever else differs."""
    columns = [name for name in ("architecture", "data") if len(set(trials[name])) > 1]
    facts = trials[["intervention", "seed", *columns]].itertuples(index=False, name=None)
    names = [" · ".join([intervention, f"seed {seed}", *rest]) for intervention, seed, *rest in facts]
    if len(set(names)) == len(names):
        return names
    return [f"{name} · {key.rpartition('-')[2][:6]}" for name, key in zip(names, trials["trial_id"], strict=True)]


def trajectories(layers: Mapping[str, pd.DataFrame], names: Mapping[str, str], position: int) -> pd.DataFrame:
    """Scores over the checkpoints of each trial's conv at a position, long: trial, epoch, direction, score, low, high.

    `layers` are the rows of each trial by its id, `names` what it is called.
    """
    parts = [
        shape.trajectory(rows[rows["position"] == position], trial_id).assign(trial=names[trial_id])
        for trial_id, rows in layers.items()
    ]
    return pd.concat(parts, ignore_index=True)


def curves(epochs: Mapping[str, pd.DataFrame], names: Mapping[str, str], quantity: str) -> pd.DataFrame:
    """Training and validation curves of `loss` or `accuracy`, long: trial, epoch, images, value."""
    parts = [shape.curves(rows, trial_id, quantity).assign(trial=names[trial_id]) for trial_id, rows in epochs.items()]
    return pd.concat(parts, ignore_index=True)


def score_table(trials: pd.DataFrame, newest: pd.DataFrame, names: Sequence[str], position: int) -> pd.DataFrame:
    """What each trial's newest analysed checkpoint shows at a position, with 95% intervals, for the reader."""
    of_layer = newest[newest["position"] == position].drop_duplicates("trial_id").set_index("trial_id")
    rows = of_layer.reindex(trials["trial_id"])
    columns = {
        "Trial": list(names),
        "Status": trials["status"].tolist(),
        "Layer": rows["layer"].tolist(),
        "Epoch": rows["epoch"].tolist(),
        "Verdict": rows["verdict"].tolist(),
        "Expected": rows["expected"].tolist(),
        "Horizontal": _intervals(rows, "horizontal"),
        "Vertical": _intervals(rows, "vertical"),
        "Accuracy": [None if pd.isna(value) else decimal(value, 3) for value in trials["val_accuracy"]],
    }
    return pd.DataFrame(columns)


def _intervals(rows: pd.DataFrame, direction: str) -> list[str | None]:
    numbers = rows[[direction, f"{direction}_low", f"{direction}_high"]].itertuples(index=False, name=None)
    return [
        None if pd.isna(score) else f"{decimal(score)} [{decimal(low)}, {decimal(high)}]"
        for score, low, high in numbers
    ]
