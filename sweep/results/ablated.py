"""What networks lose with simpler kernels, over seeds. Needs neither torch nor Ray."""

import pandas as pd

from sweep.results.statistics import CONDITION, finished

CHANGES = {
    "none": "as they are", "row_means": "row means", "column_means": "column means", "mean": "kernel means",
    "shuffled": "shuffled",
}  # fmt: skip
"""The changes of `analysis.ablation`, in the order and the words of a table's columns."""


def over_changes(trials: pd.DataFrame, layers: pd.DataFrame, ablations: pd.DataFrame) -> pd.DataFrame:
    """One row for each condition, intervention and layer: recalibrated accuracy over its finished seeds, by change.

    `n` seeds; `<change>_mean` and `<change>_std`, the latter missing with one seed.
    """
    positions = layers[["trial_id", "layer", "position"]].drop_duplicates()
    keys = [*CONDITION, "intervention", "position", "layer"]
    rows = ablations.merge(finished(trials)[["trial_id", "step", *CONDITION, "intervention"]], on=["trial_id", "step"])
    rows = rows.merge(positions, on=["trial_id", "layer"], how="left")
    order = {trial_id: rank for rank, trial_id in enumerate(trials["trial_id"])}
    rows = rows.assign(rank=rows["trial_id"].map(order)).sort_values(["rank", "position"])
    found = rows.groupby(keys, sort=False, dropna=False)["trial_id"].nunique().rename("n").to_frame()
    for change in CHANGES:
        alike = rows[rows["change"] == change].groupby(keys, sort=False, dropna=False)["recalibrated_accuracy"]
        found[f"{change}_mean"], found[f"{change}_std"] = alike.mean().astype(float), alike.std().astype(float)
    return found.reset_index()
