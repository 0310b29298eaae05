"""The clusters of a sweep for the report: the table of figure 12 beside the article's, and the centres for every k."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from upath import UPath

from analysis.banding import THRESHOLD
from analysis.clusters import LABELS
from analysis.figure12 import CLUSTERS, K, figure12
from sweep.report.drawings import strip
from sweep.results.statistics import CONDITION, condition_titles, finished
from sweep.results.tables import Row, read_centres, read_table

_FAINT = 0.5  # ours: random neurons' own scores average about 0, banded ones' at least 2/3


@dataclass(frozen=True, kw_only=True)
class Centre:
    """One cluster: its centre as a picture, what it shows, its scores, the mean of its neurons' own scores
    (vertical ones where it is vertical, else horizontal), and the percentage of all neurons in it."""

    picture: str
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
    neuron shows by itself (in the order of `LABELS`); and the article's four for the same intervention and position,
    or none. `condition`: data set and recipe in words, where the sweep has several."""

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


def cluster_section(sweep: UPath, trials: pd.DataFrame, clusters: pd.DataFrame) -> ClusterSection | None:
    """What the report shows of the table `clusters`; None where it is empty."""
    if clusters.empty:
        return None
    centres = {k: _centres(sweep, k, clusters[clusters["k"] == k]) for k in sorted(map(int, clusters["k"].unique()))}
    facts = finished(trials)[["trial_id", "step", *CONDITION, "intervention"]]
    table = clusters[clusters["k"] == K].merge(facts, on=["trial_id", "step"])
    order = {trial_id: rank for rank, trial_id in enumerate(trials["trial_id"])}
    table = table.sort_values(
        ["trial_id", "position", "cluster"], key=lambda c: c.map(order) if c.name == "trial_id" else c
    )
    keys = [*CONDITION, "intervention", "layer", "position"]
    titles = condition_titles(trials)
    own = _own_verdicts(read_table(sweep, "neurons"))
    table = table.merge(own, on=["trial_id", "step", "layer"], how="left")
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
        own=[float(trials[name].mean()) for name in LABELS],
        article=published_percents(key["architecture"], key["intervention"], key["position"]),
    )


def _centres(sweep: UPath, k: int, part: pd.DataFrame) -> list[Centre]:
    arrays = read_centres(sweep, k)
    found = []
    for index in range(k):
        own = part[part["cluster"] == index]
        picture = ""
        if arrays is not None:
            centre = arrays[index][None]
            picture = strip(centre / max(float(centre.max()), 1e-9), np.array([0]))
        first = own.iloc[0]
        found.append(
            Centre(
                picture=picture,
                label=str(first["label"]),
                horizontal=float(first["centre_horizontal"]),
                vertical=float(first["centre_vertical"]),
                neurons=float(first["neurons_vertical" if first["label"] == "vertical" else "neurons_horizontal"]),
                percent=float((own["percent"] * own["neurons"]).sum() / own["neurons"].sum()),
            )
        )
    return found
