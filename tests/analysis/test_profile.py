"""Profiles and the kernel's shape on cases small enough to know."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from analysis.profile import column_profile, kernel_shape, row_profile


def test_a_row_profile_is_each_factors_share_in_each_row() -> None:
    reduced = np.zeros((2, 3, 2, 3))
    reduced[0, 0, :, 0] = 0.5  # neuron 0: factor 0 all in row 0
    reduced[1, :, 0, 0] = [1, 2, 1]  # neuron 1: a half in row 1
    reduced[1, 2, 1, 1] = 4  # factor 1 in neuron 1 alone, all in row 2, column 1
    profile = row_profile(reduced)
    assert profile[:, 0] == pytest.approx([(1 + 0.25) / 2, 0.25, 0.125])
    assert profile[:, 1] == pytest.approx([0, 0, 1])
    assert profile[:, 2] == pytest.approx([0, 0, 0])  # of a factor that is nowhere
    assert column_profile(reduced)[:, 1] == pytest.approx([0, 1])


def test_profiles_do_not_depend_on_a_neurons_scale_and_sum_to_one() -> None:
    reduced = np.random.default_rng(0).random((5, 3, 4, 3))
    scale = np.arange(1, 6).reshape(5, 1, 1, 1)
    assert row_profile(reduced * scale) == pytest.approx(row_profile(reduced))
    assert row_profile(reduced).sum(axis=0) == pytest.approx([1, 1, 1])


def test_the_middle_row_is_measured_against_an_even_spread() -> None:
    weights = torch.ones(2, 3, 3, 5)
    assert kernel_shape(weights).middle_row == pytest.approx(1)
    weights[0, :, 1] = 2  # of neuron 0: 4 of 6 parts in the middle row, twice what is even
    assert kernel_shape(weights).middle_row == pytest.approx((2 + 1) / 2)
    assert kernel_shape(weights).middle_column == pytest.approx(1)
    assert kernel_shape(torch.cat([weights, torch.zeros(4, 3, 3, 5)])).middle_row == pytest.approx(1.5)


def test_an_even_kernel_has_two_middle_rows() -> None:
    weights = torch.zeros(1, 1, 4, 2)
    weights[:, :, 1:3] = 1
    assert kernel_shape(weights).middle_row == pytest.approx(2)
    assert kernel_shape(weights).middle_column == pytest.approx(1)  # both columns are the middle


def test_asymmetry_is_the_share_of_the_mean_kernel_that_changes_under_a_mirror() -> None:
    one_sided = torch.zeros(1, 2, 3, 3)
    one_sided[:, :, 0] = torch.tensor([1.0, -1.0])[None, :, None]
    shape = kernel_shape(one_sided)
    assert (shape.asymmetry_top_bottom, shape.asymmetry_left_right) == pytest.approx((1, 0))
    tilted = torch.tensor([[1.0, 3.0], [1.0, 3.0]])[None, None]  # |1 - 3| * 4 / (2 * 8)
    assert kernel_shape(tilted).asymmetry_left_right == pytest.approx(0.5)
    assert kernel_shape(tilted).asymmetry_top_bottom == pytest.approx(0)


def test_a_layer_of_zeros_is_even_and_symmetric() -> None:
    shape = kernel_shape(torch.zeros(2, 2, 3, 3))
    assert (shape.middle_row, shape.asymmetry_left_right) == (1, 0)


def test_half_precision_weights_are_summed_in_full() -> None:
    weights = torch.ones(512, 512, 3, 3, dtype=torch.float16)
    assert kernel_shape(weights).middle_row == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30])
def test_the_shape_of_a_kernel_does_not_depend_on_its_scale(scale: float) -> None:
    weights = torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    plain, scaled = kernel_shape(weights), kernel_shape((weights.double() * scale).float())
    assert asdict(scaled) == pytest.approx(asdict(plain), rel=1e-4)
