"""The clusters of a sweep: all analysed layers with one kernel size together, each trial at its newest checkpoint.

Writes `results/clusters.parquet` and `results/centres.npz`; needs neither torch nor Ray.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pandas as pd
from upath import UPath

from analysis.clusters import (
    Clusters,
    Normalisation,
    cluster,
    member_means,
    normalised,
    own_scores,
    possible_ks,
    shares,
)
from analysis.write import write_bytes
from sweep.results.cells import newest
from sweep.results.tables import (
    DamagedTableError,
    Row,
    read_clusters_array,
    read_reduced,
    read_table,
    records,
    table_of,
    write_table,
)
from sweep.store.sweep_dir import SweepDir

_FINGERPRINT = "fingerprint"


def update_clusters(sweep: UPath, kernel: tuple[int, int] = (5, 5), normalisation: Normalisation = "position") -> bool:
    """Rewrite the table `clusters` unless it already has the newest layers, this kernel size and this normalisation.

    k goes from 4 to 19, as far as there are enough distinct neurons. Returns whether it was rewritten.
    """
    layers = read_table(sweep, "layers")
    latest = newest(layers)
    analysed = latest[latest["error"].isna()].sort_values(["trial_id", "position"])
    fingerprint = _fingerprint(analysed, kernel, normalisation)
    if _known_fingerprint(sweep) == fingerprint:
        return False
    rows, reduced = _of_kernel(sweep, analysed, kernel)
    arrays: dict[str, np.ndarray] = {_FINGERPRINT: np.array(fingerprint)}
    table: list[Row] = []
    points = normalised(np.concatenate(reduced), normalisation) if reduced else np.empty((0, *kernel, 3))
    scores = own_scores(points)
    for k in possible_ks(points):
        found = cluster(points, k)
        arrays[str(k)] = found.centres.astype(np.float32)
        table += _cluster_rows(
            rows, found, scores, {"kernel": f"{kernel[0]}x{kernel[1]}", "normalisation": normalisation}
        )
    write_table(sweep, "clusters", table_of("clusters", table))
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its allow_pickle is not an array
    write_bytes(SweepDir(sweep).centres, buffer.getvalue())
    return True


def _of_kernel(sweep: UPath, newest: pd.DataFrame, kernel: tuple[int, int]) -> tuple[list[Row], list[np.ndarray]]:
    """The layers whose kernel has this size, and their reduced weights."""
    rows = records(newest[["trial_id", "step", "layer", "position"]])

    def read(row: Row) -> np.ndarray | None:
        found = read_reduced(sweep, row["trial_id"], row["step"], row["layer"])
        return None if found is None or found.reduced.shape[1:3] != kernel else found.reduced

    with ThreadPoolExecutor(16) as pool:
        arrays = list(pool.map(read, rows))
    chosen = [(row, array) for row, array in zip(rows, arrays, strict=True) if array is not None]
    return [row | {"neurons": len(array)} for row, array in chosen], [array for _, array in chosen]


def _cluster_rows(rows: list[Row], found: Clusters, scores: np.ndarray, facts: Row) -> list[Row]:
    k = len(found.centres)
    horizontal, vertical = (member_means(found.assigned, values, k) for values in scores)
    percents = shares(found.assigned, [row["neurons"] for row in rows], k)
    return [
        row
        | facts
        | {
            "k": k,
            "cluster": index,
            "label": found.labels[index],
            "centre_horizontal": found.horizontal[index],
            "centre_vertical": found.vertical[index],
            "neurons_horizontal": horizontal[index],
            "neurons_vertical": vertical[index],
            "inertia": found.inertia,
            "percent": percents[position, index],
        }
        for position, row in enumerate(rows)
        for index in range(k)
    ]


def _fingerprint(newest: pd.DataFrame, kernel: tuple[int, int], normalisation: str) -> str:
    facts = newest[["trial_id", "step", "layer", "horizontal", "vertical"]].to_csv(index=False)
    return hashlib.sha256(f"{kernel} {normalisation} {facts}".encode()).hexdigest()


def _known_fingerprint(sweep: UPath) -> str | None:
    """What the clusters were made from; None where their table or their centres are missing or damaged."""
    try:
        known = read_clusters_array(sweep, _FINGERPRINT)
        read_table(sweep, "clusters")
    except DamagedTableError:
        return None
    return str(known) if known is not None and SweepDir(sweep).table("clusters").exists() else None
