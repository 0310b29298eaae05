"""Clusters on neurons whose kind is known, and on the article's own layers beside its figure 12."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from analysis.clusters import (
    KS,
    LABELS,
    NORMALISATIONS,
    Label,
    Normalisation,
    cluster,
    member_means,
    normalised,
    own_scores,
    possible_ks,
    shares,
)
from analysis.figure12 import CLUSTERS, K, figure12
from analysis.reduce import align_colours


def matched(found: np.ndarray, published: np.ndarray) -> np.ndarray:
    """The cluster found that stands for each published one: the assignment with the least absolute difference."""
    cost = np.abs(found[:, None, :] - published[:, :, None]).sum(axis=0)
    return linear_sum_assignment(cost)[1]


def overlap(found: np.ndarray, published: np.ndarray) -> np.ndarray:
    """For each layer the percentage of neurons that two tables agree on: the sum of the smaller of each two shares."""
    return np.minimum(found, published).sum(axis=1)


def by_label(table: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """A table's clusters of one label added up, in the order of `LABELS`."""
    found = np.array(labels)
    return np.stack([table[:, found == name].sum(axis=1) for name in LABELS], axis=1)


def kinds(each: int = 40) -> np.ndarray:
    """Horizontal, vertical and unbanded neurons, `each` of each, with a little noise."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 5)[:, None, None] * np.array([1.0, 0.5, 0.0]) + np.array([0.0, 0.2, 0.4])
    horizontal = np.broadcast_to(ramp, (5, 5, 3))
    board = np.indices((5, 5)).sum(axis=0)[:, :, None] % 2 * np.array([1.0, 0.1, 0.4]) + 0.1
    patterns = np.stack([horizontal, horizontal.transpose(1, 0, 2), board])
    return patterns.repeat(each, axis=0) + rng.uniform(0, 0.02, size=(3 * each, 5, 5, 3))


@pytest.mark.parametrize("normalisation", list(NORMALISATIONS))
def test_three_kinds_are_found_and_labelled_by_their_centres(normalisation: Normalisation) -> None:
    found = cluster(normalised(kinds(), normalisation), 3)
    assert found.labels == ("vertical", "horizontal", "unbanded")
    assert found.assigned.tolist() == [1] * 40 + [0] * 40 + [2] * 40
    assert found.horizontal[1] > 0.95
    assert found.vertical[0] > 0.95


def test_the_same_input_gives_the_same_clusters() -> None:
    points = normalised(np.random.default_rng(1).uniform(size=(300, 5, 5, 3)), "position")
    first, second = cluster(points, 6), cluster(points, 6)
    assert np.array_equal(first.centres, second.centres)
    assert np.array_equal(first.assigned, second.assigned)


def test_normalisations_by_hand() -> None:
    neuron = np.array([[1.0, 3.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)  # two rows, one column, two factors
    assert normalised(neuron, "position").ravel().tolist() == [0.25, 0.75, 0, 0]
    assert normalised(neuron, "maximum").ravel().tolist() == [1 / 3, 1, 0, 0]
    assert normalised(neuron, "norm").ravel() == pytest.approx(np.array([1, 3, 0, 0]) / 10**0.5)
    assert normalised(neuron, "none").ravel().tolist() == [1, 3, 0, 0]


def test_shares_overlap_and_matching_by_hand() -> None:
    table = shares(np.array([0, 0, 1, 1, 1, 1, 2, 2]), [4, 4], 3)
    assert table.tolist() == [[50, 50, 0], [0, 50, 50]]
    published = np.array([[50.0, 0.0, 50.0], [40.0, 60.0, 0.0]])  # its clusters are ours in the order 1, 2, 0
    assert matched(table, published).tolist() == [1, 2, 0]
    assert overlap(table[:, [1, 2, 0]], published).tolist() == [100, 90]
    assert by_label(table, ["vertical", "unbanded", "unbanded"]).tolist() == [[50, 0, 50], [0, 0, 100]]


def test_a_banded_centre_of_neurons_that_are_not_is_told_apart_by_their_own_scores() -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 1, size=(2000, 5, 5, 3)) + 0.1 * np.arange(5)[:, None, None]  # a faint ramp under noise
    found = cluster(noise[:, :, :, :1], 1)
    assert found.labels == ("horizontal",)
    horizontal, vertical = own_scores(noise[:, :, :, :1])
    assert member_means(found.assigned, horizontal, 1)[0] < 0.3
    assert abs(member_means(found.assigned, vertical, 1)[0]) < 0.1


def test_member_means_by_hand() -> None:
    assert member_means(np.array([1, 0, 1]), np.array([1.0, 5.0, 2.0]), 2).tolist() == [5, 1.5]


def test_large_sets_are_fitted_to_a_part_and_assigned_whole() -> None:
    points = normalised(kinds(each=7000), "position")
    assert np.bincount(cluster(points, 3).assigned).tolist() == [7000] * 3


def test_mistakes_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="2 distinct neurons can't make 4 clusters"):
        cluster(np.repeat(kinds(1)[:2], 50, axis=0), 4)
    assert possible_ks(np.repeat(kinds(2), 50, axis=0)) == [4, 5, 6]
    with pytest.raises(ValueError, match="3 neurons in all, but 2"):
        shares(np.zeros(2, dtype=int), [3], 1)


def test_figure_12_is_whole() -> None:
    table = figure12()
    assert len(table) == 34
    assert table["model"].nunique() == 17
    assert table[list(CLUSTERS)].sum(axis=1).to_numpy() == pytest.approx(np.full(34, 100), abs=0.15)
    assert set(table["position"]) == {1, 2}


def _published(reference: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """The published layers, coloured as ours are, and their rows of figure 12."""
    table = figure12().set_index(["model", "layer"])
    layers, rows = [], []
    with np.load(reference / "published_simplified.npz") as arrays:
        for key in arrays.files:
            model, layer = key.replace("_", "-").split("--")
            layers.append(align_colours(arrays[key].astype(np.float64) / 255))
            rows.append(table.loc[(model, layer), list(CLUSTERS)].to_numpy(dtype=np.float64))
    return layers, np.array(rows)


@pytest.mark.parametrize("normalisation", list(NORMALISATIONS))
@pytest.mark.parametrize("k", [KS[0], 8, KS[-1]])
def test_the_published_layers_give_figure_12_by_label(reference: Path, normalisation: Normalisation, k: int) -> None:
    # Only 5 of the figure's 34 layers are published as data, so centres differ. By label (both horizontal clusters
    # added up) 91% of neurons agree on average whatever k and the normalisation. x_avgpool 5b is the exception:
    # 98% unbanded in the article, 55 to 65% here.
    layers, published = _published(reference)
    found = cluster(normalised(np.concatenate(layers), normalisation), k)
    table = by_label(shares(found.assigned, [len(layer) for layer in layers], k), found.labels)
    expected = by_label(published, ["vertical", "horizontal", "horizontal", "unbanded"])
    agreement = overlap(table, expected)
    assert agreement.mean() > 88
    assert sorted(agreement)[1] > 80


def test_four_clusters_matched_to_the_four_of_the_article(reference: Path) -> None:
    # 77% of neurons on average: the article's centre-weighted cluster needs the 29 layers that are not published.
    layers, published = _published(reference)
    found = cluster(normalised(np.concatenate(layers), "position"), K)
    table = shares(found.assigned, [len(layer) for layer in layers], K)
    agreement = overlap(table[:, matched(table, published)], published)
    assert agreement.mean() > 70
