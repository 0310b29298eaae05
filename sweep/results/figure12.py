"""The clusters of a sweep for readers: the table of figure 12 beside the article's, and the centres for every k."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from upath import UPath

from analysis.banding import THRESHOLD
from analysis.clusters import LABELS
from analysis.figure12 import CLUSTERS, K, figure12
from sweep.results.statistics import CONDITION, condition_titles, finished
from sweep.results.tables import Row, read_centres

_FAINT = 0.5  # ours: random neurons' own scores average about 0, banded ones' at least 2/3


@dataclass(frozen=True, kw_only=True)
class Centre:
    """One cluster: its centre float[ky, kx, 3] with 1 as its largest value, or None where its file lacks it; what it
    shows, its scores, the mean of its neurons' own scores (vertical ones where it is vertical, else horizontal), and
    the percentage of all neurons in it."""

    kernel: np.ndarray | None
    label: str
    horizontal: float
    vertical: float
    neurons: float
    percent: float

    @property
    def faint(self) -> bool:
        """Whether a banded centre averages neurons that are hardly banded themselves."""
        return self.label != "unbanded" and self.neurons < _FAINT


@dataclass(frozen=True, kw_only=True)
class ClusterRow:
    """A layer's neurons over the clusters, in percent, as the mean over its finished seeds: by cluster; by what each
    neuron shows by itself (in the order of `LABELS`), or none; and the article's four for the same intervention and
    position, or none. `condition`: data set and recipe in words, where the sweep has several."""

    condition: str
    architecture: str
    intervention: str
    layer: str
    seeds: int
    percents: Sequence[float]
    own: Sequence[float]
    article: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ClusterSection:
    """The centres for each k, and the rows of the table for the k of the article."""

    kernel: str
    normalisation: str
    centres: dict[int, list[Centre]]
    rows: Sequence[ClusterRow]


def cluster_section(
    sweep: UPath,
    trials: pd.DataFrame,
    clusters: pd.DataFrame,
    neurons: pd.DataFrame | None = None,
    k: int | None = None,
) -> ClusterSection | None:
    """What the table `clusters` shows, and with `neurons` what each shows by itself; None where it is empty.

    All centres, and the rows for the article's k; with `k`, its centres and rows alone.
    """
    if clusters.empty:
        return None
    ks = sorted(map(int, clusters["k"].unique())) if k is None else [k]
    centres = {k: _centres(sweep, k, clusters[clusters["k"] == k]) for k in ks}
    facts = finished(trials)[["trial_id", "step", *CONDITION, "intervention"]]
    table = clusters[clusters["k"] == (K if k is None else k)].merge(facts, on=["trial_id", "step"])
    order = {trial_id: rank for rank, trial_id in enumerate(trials["trial_id"])}
    table = table.sort_values(
        ["trial_id", "position", "cluster"], key=lambda c: c.map(order) if c.name == "trial_id" else c
    )
    keys = [*CONDITION, "intervention", "layer", "position"]
    titles = condition_titles(trials)
    if neurons is not None:
        table = table.merge(_own_verdicts(neurons), on=["trial_id", "step", "layer"], how="left")
    return ClusterSection(
        kernel=str(clusters["kernel"].iloc[0]),
        normalisation=str(clusters["normalisation"].iloc[0]),
        centres=centres,
        rows=[
            _row(dict(zip(keys, key, strict=True)), part, titles[str(key[0]), str(key[1]), str(key[2])])
            for key, part in table.groupby(keys, sort=False, dropna=False)
        ],
    )


def _own_verdicts(neurons: pd.DataFrame) -> pd.DataFrame:
    """For each analysed layer the percentage of neurons that are vertical, horizontal or unbanded by themselves."""
    banded = neurons[["horizontal", "vertical"]].ge(THRESHOLD).astype(float)
    shown = neurons[["trial_id", "step", "layer"]].assign(**banded)
    shares = 100 * shown.groupby(["trial_id", "step", "layer"], sort=False)[["horizontal", "vertical"]].mean()
    return shares.assign(unbanded=100 - shares.sum(axis=1)).reset_index()


def published_percents(architecture: str, intervention: str, position: int) -> list[float]:
    """The article's four percentages, the mean over its models; none where it has no such layer.

    The article's table is about its simplified network; our miniature of it is compared with the same rows.
    """
    if not architecture.startswith("simplified"):
        return []
    table = figure12()
    rows = table[(table["intervention"] == intervention) & (table["position"] == position)]
    return [] if rows.empty else rows[list(CLUSTERS)].mean().round(1).tolist()


def _row(key: Row, part: pd.DataFrame, condition: str) -> ClusterRow:
    percents = part.groupby("cluster")["percent"].mean()
    trials = part.drop_duplicates("trial_id")
    return ClusterRow(
        condition=condition,
        architecture=key["architecture"],
        intervention=key["intervention"],
        layer=key["layer"],
        seeds=part["trial_id"].nunique(),
        percents=percents.tolist(),
        own=[float(trials[name].mean()) for name in LABELS if name in trials],
        article=published_percents(key["architecture"], key["intervention"], key["position"]),
    )


def _centres(sweep: UPath, k: int, part: pd.DataFrame) -> list[Centre]:
    arrays = read_centres(sweep, k)
    found = []
    for index in range(k):
        own = part[part["cluster"] == index]
        kernel = None if arrays is None else arrays[index] / max(float(arrays[index].max()), 1e-9)
        first = own.iloc[0]
        found.append(
            Centre(
                kernel=kernel,
                label=str(first["label"]),
                horizontal=float(first["centre_horizontal"]),
                vertical=float(first["centre_vertical"]),
                neurons=float(first["neurons_vertical" if first["label"] == "vertical" else "neurons_horizontal"]),
                percent=float((own["percent"] * own["neurons"]).sum() / own["neurons"].sum()),
            )
        )
    return found
