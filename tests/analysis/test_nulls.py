"""The nulls on kernels and inputs whose scores are known."""

import numpy as np
import pytest
import torch

from analysis.banding import band_scores
from analysis.nulls import input_null, turned_null


def bands(n: int) -> np.ndarray:
    return np.broadcast_to(np.arange(5.0)[None, :, None, None], (n, 5, 5, 3)).copy()


def test_turned_bands_by_hand() -> None:
    # Each band lies either way: the mean of 1 and -1/5 is 0.4. Of 4 neurons all lie horizontally with 1/16 = 0.0625.
    null = turned_null(bands(4))
    assert null.null_turned_mean == pytest.approx(0.4)
    assert null.null_turned_high == pytest.approx(1)


def test_turning_is_that_of_kernels_turned_one_by_one() -> None:
    rng = np.random.default_rng(0)
    reduced = bands(12) / 4 + rng.random((12, 5, 5, 3))
    plain = []
    for _ in range(400):
        turned = np.stack([np.rot90(kernel, rng.integers(4)) for kernel in reduced])
        mirrored = np.where(rng.random((12, 1, 1, 1)) < 0.5, turned[:, ::-1], turned)
        plain.append(_score(mirrored))
    null = turned_null(reduced)
    assert null.null_turned_mean == pytest.approx(np.mean(plain), abs=4 * np.std(plain) / 20)
    assert null.null_turned_high == pytest.approx(np.quantile(plain, 0.975), abs=0.05)


def test_a_layer_turned_as_a_whole_has_the_same_null() -> None:
    reduced = np.random.default_rng(1).random((20, 4, 4, 3))
    turned = turned_null(np.rot90(reduced, axes=(1, 2)))
    assert turned.null_turned_mean == pytest.approx(turned_null(reduced).null_turned_mean)
    assert turned.null_turned_high == pytest.approx(turned_null(reduced).null_turned_high, abs=0.02)


def test_kernels_that_are_not_square_have_no_turned_null() -> None:
    assert turned_null(np.random.default_rng(0).random((4, 3, 5, 3))).null_turned_mean is None


def test_constant_kernels_score_zero_however_they_are_turned() -> None:
    assert turned_null(np.ones((4, 3, 3, 3))).null_turned_high == 0


def test_inputs_without_a_direction_make_none() -> None:
    inputs = torch.randn((20, 8, 12, 12), generator=torch.Generator().manual_seed(0))
    null = input_null(inputs, (5, 5), neurons=64)
    assert abs(null.horizontal) < 0.1
    assert abs(null.vertical) < 0.1


def test_inputs_that_vary_by_row_make_bands_and_turned_ones_turn_them() -> None:
    rows = torch.randn((20, 8, 12, 1), generator=torch.Generator().manual_seed(0)).expand(20, 8, 12, 12)
    null = input_null(rows, (5, 5), neurons=16)
    assert null.horizontal == pytest.approx(1, abs=1e-3)
    assert input_null(rows.mT, (3, 3), neurons=16).vertical == pytest.approx(1, abs=1e-3)


def test_kernels_that_are_not_square_have_an_input_null() -> None:
    inputs = torch.randn((4, 8, 6, 6), generator=torch.Generator().manual_seed(0))
    assert input_null(inputs, (3, 2), neurons=8).neurons == 8


@pytest.mark.parametrize(
    ("inputs", "complaint"), [(torch.ones(2, 3, 4, 4), "4x4 has no windows"), (torch.zeros(2, 3, 9, 9), "are zero")]
)
def test_inputs_that_make_no_null_are_refused(inputs: torch.Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        input_null(inputs, (5, 5))


def _score(reduced: np.ndarray) -> float:
    return band_scores(reduced).horizontal
