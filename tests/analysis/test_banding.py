"""The score on cases small enough to know, on published layers, and its invariances."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from analysis.banding import _null, _sums, band_scores, neuron_scores, sort_neurons, verdict


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
    reduced = bands(40)[:, :, :3] + rng.random((40, 5, 3, 3))
    turned = band_scores(np.swapaxes(reduced, 1, 2))
    scores = band_scores(reduced)
    assert scores.vertical_low < scores.vertical < scores.vertical_high < scores.horizontal_low
    assert turned.vertical == pytest.approx(scores.horizontal)
    assert turned.vertical_low == pytest.approx(scores.horizontal_low, abs=0.01)
    assert turned.horizontal_high == pytest.approx(scores.vertical_high, abs=0.03)
    # Of two columns' means chance makes more than of four rows', relative to what is expected of them.
    assert scores.null_horizontal_high != pytest.approx(scores.null_vertical_high, rel=0.05)
    assert turned.null_vertical_high == pytest.approx(scores.null_horizontal_high, abs=0.02)
    assert abs(scores.null_vertical_mean) < 0.02


@pytest.mark.slow
def test_the_interval_holds_ninety_five_of_a_hundred_resamples() -> None:
    reduced = bands(60) + 3 * np.random.default_rng(0).random((60, 5, 5, 3))
    scores = band_scores(reduced)
    draw = np.random.default_rng(1)
    resampled = [band_scores(reduced[draw.integers(0, 60, 60)]).horizontal for _ in range(400)]
    inside = [scores.horizontal_low <= score <= scores.horizontal_high for score in resampled]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


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
        plain.append(_sums(shuffled).horizontal(np.arange(12)[None])[0])
    rows, columns = _null(reduced, _sums(reduced), rng)
    assert rows.shape == columns.shape == (200,)
    assert abs(np.mean(plain)) < 3 * np.std(plain) / 2000**0.5  # chance is 0 by the formula
    assert abs(rows.mean()) < 4 * np.std(plain) / 200**0.5
    assert rows.std() == pytest.approx(np.std(plain), rel=0.25)
    assert np.quantile(rows, 0.975) == pytest.approx(np.quantile(plain, 0.975), rel=0.3)


def test_the_same_seed_gives_the_same_interval_and_null() -> None:
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
