"""Reliability on weights whose signal and noise are known."""

import numpy as np
import pytest
import torch

from analysis.banding import RELIABLE, band_scores, too_noisy
from analysis.reduce import reduce_weights
from analysis.reliability import _agreement, reliability


def planted(n: int, c: int, noise: float, seed: int = 0) -> torch.Tensor:
    """Perfect horizontal bands of three profiles, mixed by normal weights, under noise of this standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    profiles = torch.rand((n, 3, 5, 1), generator=generator).expand(n, 3, 5, 5)
    signal = torch.einsum("ncf,nfyx->ncyx", torch.randn((n, c, 3), generator=generator), profiles)
    return signal / signal.std() + noise * torch.randn((n, c, 5, 5), generator=generator)


def test_halves_that_are_equal_agree_and_the_order_of_factors_does_not_matter() -> None:
    maps = np.random.default_rng(0).normal(size=(4, 25, 3))
    assert _agreement(maps, 2 * maps[:, :, [2, 0, 1]]) == pytest.approx(1)


def test_agreement_by_hand() -> None:
    # Two positions. The first factors are alike (2), the second opposite (-2), the third zero. Swapping them gives 0;
    # moving the second to the third leaves 2, over the norms sqrt(4) sqrt(4).
    first = np.array([[[1.0, 1, 0], [-1, -1, 0]]])
    second = np.array([[[1.0, -1, 0], [-1, 1, 0]]])
    assert _agreement(first, second) == pytest.approx(2 / 4)


def test_signal_is_reliable_and_noise_is_not() -> None:
    assert (reliability(planted(32, 64, 0.2)) or 0) > 0.7
    assert abs(reliability(torch.randn((64, 32, 5, 5), generator=torch.Generator().manual_seed(0))) or 0) < 0.06


def test_bands_that_noise_hides_are_too_noisy_to_judge_and_more_channels_show_them() -> None:
    hidden, shown = planted(32, 32, 1.3), planted(32, 512, 1.3)
    for weights, banded in ((hidden, False), (shown, True)):
        scores = band_scores(reduce_weights(weights))
        assert (scores.horizontal >= 2 / 3) == banded
        assert ((reliability(weights) or 0) >= RELIABLE) == banded


def test_a_scale_does_not_matter() -> None:
    weights = planted(16, 16, 0.5)
    assert reliability(weights * 1e-6) == pytest.approx(reliability(weights) or 0, abs=0.02)


def test_few_channels_have_no_halves() -> None:
    assert reliability(torch.randn(8, 3, 5, 5)) is None
    assert reliability(planted(8, 4, 0.1)) is not None


def test_layers_without_weights_are_not_reliable() -> None:
    assert reliability(torch.zeros(8, 8, 3, 3)) == 0


@pytest.mark.parametrize(
    ("verdict", "value", "noisy"),
    [("none", 0.1, True), ("none", 0.9, False), ("horizontal", 0.1, False), ("none", None, False), (None, 0.1, False)],
)
def test_only_a_verdict_of_none_can_be_too_noisy(verdict: str | None, value: float | None, noisy: bool) -> None:
    assert too_noisy(verdict, value) == noisy
    assert not too_noisy("none", float("nan"))  # tables of older versions
