"""The score on cases small enough to know, on published layers, and its invariances."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from analysis.banding import _null, band_scores, neuron_scores, share_with_interval, sort_neurons, variation, verdict


def bands(n: int = 4) -> np.ndarray:
    """Every row of a kernel has one value: a perfect horizontal band."""
    return np.broadcast_to(np.arange(5.0)[None, :, None, None], (n, 5, 5, 3)).copy()


def test_a_perfect_band_scores_one_and_its_other_direction_the_negative_of_chance() -> None:
    scores = band_scores(bands())
    assert scores.horizontal == pytest.approx(1)
    assert scores.vertical == pytest.approx(-(4 / 24) / (20 / 24))  # share 0, expected 4/24
    assert verdict(scores) == "horizontal"


def test_a_turned_band_swaps_the_scores() -> None:
    scores = band_scores(np.rot90(bands(), axes=(1, 2)))
    assert scores.vertical == pytest.approx(1)
    assert verdict(scores) == "vertical"


def test_a_checkerboard_has_no_bands() -> None:
    # 2x2 checkerboard: row and column means are equal everywhere, both shares 0, expected 1/3, score -1/2.
    board = np.array([[0.0, 1.0], [1.0, 0.0]])[None, :, :, None].repeat(3, axis=3)
    scores = band_scores(board)
    assert (scores.horizontal, scores.vertical) == pytest.approx((-0.5, -0.5))
    assert verdict(scores) == "none"


def test_a_hand_computed_mixture() -> None:
    # One factor [[0, 1], [2, 5]]: mean 2, T = 4 + 1 + 0 + 9 = 14; row means -1.5, 1.5: R = 2 * 4.5 = 9; column
    # means -1, 1: C = 4. Expected share 1/3.
    scores = band_scores(np.array([[0.0, 1.0], [2.0, 5.0]]).reshape(1, 2, 2, 1))
    assert scores.horizontal == pytest.approx((9 / 14 - 1 / 3) / (2 / 3))
    assert scores.vertical == pytest.approx((4 / 14 - 1 / 3) / (2 / 3))


def test_a_hand_computed_kernel_that_is_no_square() -> None:
    # One factor [[0, 1, 2], [3, 4, 8]]: mean 3, T = 9 + 4 + 1 + 0 + 1 + 25 = 40; row means -2, 2 and three columns:
    # R = 3 * 8 = 24, of which chance is 1/5; column means -1.5, -0.5, 2 and two rows: C = 2 * 6.5 = 13, chance 2/5.
    scores = band_scores(np.array([[0.0, 1, 2], [3, 4, 8]]).reshape(1, 2, 3, 1))
    assert scores.horizontal == pytest.approx((24 / 40 - 1 / 5) / (4 / 5))
    assert scores.vertical == pytest.approx((13 / 40 - 2 / 5) / (3 / 5))


def test_each_directions_interval_and_null_are_its_own() -> None:
    rng = np.random.default_rng(2)
    reduced = bands(40)[:, :, :2] + rng.random((40, 5, 2, 3))
    turned = band_scores(np.swapaxes(reduced, 1, 2))
    scores = band_scores(reduced)
    assert scores.vertical_low < scores.vertical < scores.vertical_high < scores.horizontal_low
    assert turned.vertical == pytest.approx(scores.horizontal)
    assert turned.vertical_low == pytest.approx(scores.horizontal_low, abs=0.01)
    assert turned.horizontal_high == pytest.approx(scores.vertical_high, abs=0.03)
    # Chance makes more of five rows than of two columns, relative to what is expected of them.
    assert scores.null_horizontal_high != pytest.approx(scores.null_vertical_high, rel=0.05)
    assert turned.null_vertical_high == pytest.approx(scores.null_horizontal_high, abs=0.02)
    assert abs(scores.null_vertical_mean) < 0.02


def test_an_interval_by_hand() -> None:
    # Two neurons of 2x2 and one factor. [[0, 0], [1, 1]] is a band: T = R = 1. [[0, 1], [2, 5]]: T = 14, R = 9. The
    # share is 10/15; without the first neuron it is 9/14, without the second 1, which counts as 1 - 1e-12.
    reduced = np.array([[[0.0, 0], [1, 1]], [[0, 1], [2, 5]]])[..., None]
    scores = band_scores(reduced)
    logits = np.log(9 / 5), np.log(1e12)
    half = 12.706205 * abs(logits[1] - logits[0]) / 2  # t(0.975, 1); the jackknife's error of two is half the distance
    ends = [1 / (1 + np.exp(-np.log(2) - sign * half)) for sign in (-1, 1)]
    assert scores.horizontal == pytest.approx((10 / 15 - 1 / 3) / (2 / 3))
    assert scores.horizontal_low == pytest.approx((ends[0] - 1 / 3) / (2 / 3))
    assert scores.horizontal_high == pytest.approx((ends[1] - 1 / 3) / (2 / 3))


def test_one_neuron_leaves_everything_possible() -> None:
    scores = band_scores(np.concatenate([np.random.default_rng(0).random((1, 5, 5, 3)), np.zeros((3, 5, 5, 3))]))
    assert (scores.horizontal_low, scores.horizontal_high) == pytest.approx((-0.2, 1))


def test_the_interval_of_perfect_bands_is_a_point() -> None:
    scores = band_scores(bands() * np.arange(1.0, 5)[:, None, None, None])
    assert scores.horizontal_low == pytest.approx(1)
    assert scores.horizontal <= scores.horizontal_high <= 1 + 1e-12


def test_a_neuron_beside_which_the_others_vanish_leaves_the_interval_finite() -> None:
    reduced = bands() + np.random.default_rng(0).random((4, 5, 5, 3))
    reduced[0] *= 1e12
    scores = band_scores(reduced)
    assert -0.2 <= scores.horizontal_low <= scores.horizontal <= scores.horizontal_high <= 1


@pytest.mark.parametrize(("n", "least"), [(8, 0.9), (16, 0.92), (64, 0.92)])
def test_the_interval_holds_the_score_of_what_the_neurons_were_drawn_from(n: int, least: float) -> None:
    """In the long run 93% of intervals of 8 neurons, 95% of larger ones (benchmarks/coverage.py)."""
    draw = np.random.default_rng(n)
    population = bands(4000) / 4 + draw.random((4000, 1, 1, 1)) * draw.random((4000, 5, 5, 3))
    sums = variation(population)
    truth = sums.rows.sum() / sums.total.sum()
    held = 0
    for _ in range(400):
        drawn = draw.integers(4000, size=n)
        _, low, high = share_with_interval(sums.rows[drawn], sums.total[drawn])
        held += low <= truth <= high
    assert held / 400 >= least


def test_constant_weights_score_zero_and_are_counted() -> None:
    scores = band_scores(np.full((3, 5, 5, 3), 0.7))
    assert (scores.horizontal, scores.vertical, scores.dead) == (0, 0, 3)
    assert verdict(scores) == "none"


def test_dead_neurons_do_not_dilute_the_score() -> None:
    reduced = np.concatenate([bands(), np.zeros((4, 5, 5, 3))])
    assert band_scores(reduced).horizontal == pytest.approx(1)
    assert neuron_scores(reduced)[0] == pytest.approx([1] * 4 + [0] * 4)


@pytest.mark.parametrize(
    ("reduced", "complaint"),
    [
        (np.full((1, 5, 5, 3), np.nan), "finite"),
        (np.zeros((1, 1, 5, 3)), "1x5"),
        (np.zeros((0, 5, 5, 3)), "shape"),
    ],
)
def test_what_cannot_be_scored_is_refused(reduced: np.ndarray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        band_scores(reduced)


def test_a_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises((ValueError, TypeCheckError)):
        band_scores(np.zeros((5, 5, 3)))


def test_random_weights_score_about_zero_within_the_null() -> None:
    scores = band_scores(np.random.default_rng(0).random((256, 5, 5, 3)))
    assert abs(scores.horizontal) < 0.03
    assert abs(scores.null_horizontal_mean) < 0.005
    assert scores.null_horizontal_high < 0.05
    assert verdict(scores) == "none"


def test_the_interval_holds_the_score_and_narrows_with_neurons() -> None:
    rng = np.random.default_rng(1)

    def width(n: int) -> float:
        scores = band_scores(bands(n) + rng.random((n, 5, 5, 3)) * 3)
        assert scores.horizontal_low < scores.horizontal < scores.horizontal_high
        return scores.horizontal_high - scores.horizontal_low

    assert width(400) < width(25) / 2


@given(st.integers(0, 2**32 - 1), st.permutations(range(3)), st.floats(0.01, 100))
def test_neither_neuron_scale_within_a_layer_of_one_nor_factor_order_matter(
    seed: int, order: list[int], scale: float
) -> None:
    reduced = np.random.default_rng(seed).random((1, 3, 4, 3))
    horizontal, vertical = neuron_scores(reduced)
    changed = neuron_scores(reduced[..., order] * scale)
    assert changed[0] == pytest.approx(horizontal)
    assert changed[1] == pytest.approx(vertical)


@given(st.integers(0, 2**32 - 1))
def test_turning_swaps_and_mirroring_keeps_the_scores(seed: int) -> None:
    reduced = np.random.default_rng(seed).random((5, 4, 4, 3))
    scores = neuron_scores(reduced)
    turned = neuron_scores(np.rot90(reduced, axes=(1, 2)))
    mirrored = neuron_scores(reduced[:, ::-1, ::-1])
    assert np.allclose(turned[0], scores[1])
    assert np.allclose(mirrored, scores)


def test_the_null_is_that_of_shuffles_made_one_by_one() -> None:
    rng = np.random.default_rng(3)
    reduced = rng.random((12, 3, 4, 3)) ** 3
    plain = []
    for _ in range(2000):
        order = rng.random((12, 12)).argsort(axis=1)
        shuffled = np.take_along_axis(reduced.reshape(12, 12, 3), order[:, :, None], axis=1).reshape(reduced.shape)
        sums = variation(shuffled)
        plain.append((sums.rows.sum() / sums.total.sum() - 2 / 11) / (9 / 11))
    rows, columns = _null(reduced, variation(reduced), rng)
    assert rows.shape == columns.shape == (200,)
    assert abs(np.mean(plain)) < 3 * np.std(plain) / 2000**0.5  # chance is 0 by the formula
    assert abs(rows.mean()) < 4 * np.std(plain) / 200**0.5
    assert rows.std() == pytest.approx(np.std(plain), rel=0.25)
    assert np.quantile(rows, 0.975) == pytest.approx(np.quantile(plain, 0.975), rel=0.3)


def test_the_same_seed_gives_the_same_null() -> None:
    reduced = np.random.default_rng(0).random((16, 5, 5, 3))
    assert band_scores(reduced, seed=1) == band_scores(reduced, seed=1)
    assert band_scores(reduced, seed=1) != band_scores(reduced, seed=2)


def test_neighbours_in_the_order_look_alike() -> None:
    mixture = np.linspace(0, 1, 9)[np.random.default_rng(0).permutation(9)]
    reduced = bands(9) * mixture[:, None, None, None]
    sorted_mixture = mixture[sort_neurons(reduced)]
    assert np.all(np.diff(sorted_mixture) > 0) or np.all(np.diff(sorted_mixture) < 0)


@pytest.mark.parametrize(
    ("layer", "horizontal", "vertical", "call"),
    [
        ("simplified_base__5b", 0.96, -0.17, "horizontal"),
        ("simplified_90deg__5b", -0.17, 0.96, "vertical"),
        ("simplified_fc_only__5b", 0.41, 0.26, "none"),
        ("simplified_x_avgpool__5a", 0.91, -0.14, "horizontal"),
        ("simplified_x_avgpool__5b", 0.61, 0.14, "none"),
    ],
)
def test_published_layers_get_the_articles_call(
    reference: Path, layer: str, horizontal: float, vertical: float, call: str
) -> None:
    with np.load(reference / "published_simplified.npz") as layers:
        scores = band_scores(layers[layer])
    assert scores.horizontal == pytest.approx(horizontal, abs=0.01)
    assert scores.vertical == pytest.approx(vertical, abs=0.01)
    assert verdict(scores) == call
