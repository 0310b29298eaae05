"""From weights to three colours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from analysis import nmf
from analysis.banding import band_scores, verdict
from analysis.reduce import METHODS, Method, align_colours, reduce_layer, reduce_weights, split_signs
from benchmarks.precision import LIMIT, MACHINES, NOISE, plain
from benchmarks.precision import weights as weights_of


def banded_weights(n: int = 16, c: int = 24, size: int = 5) -> torch.Tensor:
    """Random patterns over channels whose mixture depends on the row alone, plus a little noise."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(n, 3, size, 1, generator=generator).expand(n, 3, size, size)
    patterns = torch.randn(n, 3, c, generator=generator)
    noise = 0.1 * torch.randn(n, c, size, size, generator=generator)
    return torch.einsum("nfyx,nfc->ncyx", rows, patterns) + noise


def test_banded_weights_are_called_horizontal_and_turned_ones_vertical() -> None:
    weights = banded_weights()
    assert verdict(band_scores(reduce_weights(weights))) == "horizontal"
    assert verdict(band_scores(reduce_weights(torch.rot90(weights, 1, (2, 3))))) == "vertical"


def test_random_weights_are_called_none() -> None:
    weights = torch.randn(64, 32, 5, 5, generator=torch.Generator().manual_seed(0))
    scores = band_scores(reduce_weights(weights))
    assert abs(scores.horizontal) < 0.05
    assert verdict(scores) == "none"


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.4, 1.8, 1e25])
@pytest.mark.parametrize("shape", [(64, 2, 3), (48, 48, 5)])
def test_a_score_does_not_depend_on_how_large_the_weights_are(shape: tuple[int, int, int], scale: float) -> None:
    weights = weights_of(*shape, noise=0.3)
    ours, theirs = reduce_layer(weights), reduce_layer(weights * scale)
    assert theirs.residual == pytest.approx(ours.residual, rel=1e-3)
    assert theirs.zeros == 0
    assert band_scores(theirs.reduced).horizontal == pytest.approx(band_scores(ours.reduced).horizontal, abs=1e-4)


def test_each_neuron_is_scaled_to_its_own_maximum() -> None:
    reduced = reduce_weights(banded_weights())
    assert reduced.shape == (16, 5, 5, 3)
    assert reduced.dtype == np.float32
    assert reduced.max(axis=(1, 2, 3)) == pytest.approx(1)
    assert reduced.min() >= 0


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_arrays_and_tensors_of_any_float_kind_are_taken(kind: type) -> None:
    weights = banded_weights(n=4)
    expected = reduce_weights(weights)
    assert np.allclose(reduce_weights(weights.numpy().astype(kind)), expected, atol=0.05)
    assert np.allclose(reduce_weights(weights.to(torch.bfloat16)), expected, atol=0.2)


def test_signs_are_split_side_by_side() -> None:
    weights = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert split_signs(weights)[0, 0].tolist() == [1, 0, 0, 2]


def test_zero_neurons_stay_zero_and_are_counted() -> None:
    weights = banded_weights(n=4)
    weights[2] = 0
    reduction = reduce_layer(weights)
    assert reduction.zeros == 1
    assert (reduction.reduced[2] == 0).all()
    assert 0 < reduction.residual < 1


def test_constant_neurons_come_out_constant_and_zero_ones_are_among_the_dead() -> None:
    weights = banded_weights(n=6)
    weights[1] = weights[1, :, :1, :1]
    weights[2] = 0.3
    weights[4] = 0
    reduction = reduce_layer(weights)
    scores = band_scores(reduction.reduced)
    assert (reduction.zeros, scores.dead) == (1, 3)
    assert scores.horizontal == pytest.approx(band_scores(reduce_weights(weights[[0, 3, 5]])).horizontal, abs=1e-3)


def test_kernels_with_a_single_tap_are_counted() -> None:
    weights = banded_weights(n=5)
    taps = torch.zeros_like(weights[:2])
    taps[0, :, 2, 2] = weights[0, :, 2, 2]
    taps[1, 3:, 0, 4] = 1e-20  # not all at the centre, and however small
    weights[1], weights[3], weights[4] = taps[0], taps[1], 0
    reduction = reduce_layer(weights)
    assert (reduction.single_tap, reduction.zeros) == (2, 1)
    alone = band_scores(reduction.reduced[[1, 3]])
    assert (alone.horizontal, alone.vertical, alone.dead) == (pytest.approx(0), pytest.approx(0), 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (4, 4), (7, 7), (11, 11), (3, 5), (2, 7)])
@pytest.mark.parametrize("c", [2, 3, 24])
def test_kernels_of_any_size_are_reduced(method: Method, kernel: tuple[int, int], c: int) -> None:
    weights = torch.randn(8, c, *kernel, generator=torch.Generator().manual_seed(0))
    reduction = reduce_layer(weights, method)
    assert reduction.reduced.shape == (8, *kernel, 3)
    assert np.isfinite(reduction.reduced).all()
    assert 0 <= reduction.residual < 1


def test_the_joint_form_finds_what_all_neurons_share() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(16, 3, 5, 1, generator=generator).expand(16, 3, 5, 5)
    shared = torch.einsum("nfyx,fc->ncyx", rows, torch.randn(3, 24, generator=generator))
    reduction = reduce_layer(shared, "joint")
    assert reduction.reduced.max(axis=(1, 2, 3)) == pytest.approx(1)
    assert verdict(band_scores(reduction.reduced)) == "horizontal"
    own = reduce_layer(banded_weights())
    assert reduce_layer(banded_weights(), "joint").residual > own.residual  # fewer factors than one NMF a neuron


def test_a_layer_does_not_depend_on_how_it_is_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reduce_layer(banded_weights())
    monkeypatch.setitem(nmf._BLOCK_BYTES, "cpu", 4 * 25 * 48 * 3)
    assert np.allclose(reduce_layer(banded_weights()).reduced, whole.reduced, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("shape", [(64, 3, 7), (48, 48, 5), (128, 64, 3)])
@pytest.mark.parametrize("kind", NOISE)
def test_scores_are_the_same_on_all_machines_within_five_thousandths(
    monkeypatch: pytest.MonkeyPatch, kind: str, shape: tuple[int, int, int], machine: str
) -> None:
    if machine == "gpu" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    monkeypatch.setitem(nmf._BLOCK_BYTES, "cuda", 2**20)  # several blocks
    weights = weights_of(*shape, NOISE[kind])
    ours, theirs = (band_scores(reduce(weights).reduced) for reduce in (plain, MACHINES[machine]))
    assert theirs.horizontal == pytest.approx(ours.horizontal, abs=LIMIT)
    assert theirs.vertical == pytest.approx(ours.vertical, abs=LIMIT)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (torch.full((2, 3, 5, 5), torch.inf), "150 of 150"),
        (torch.zeros(2, 3, 1, 7), "1x7"),
        (torch.zeros(2, 1, 3, 3), "one input channel"),
        (torch.zeros(2, 3, 3, 3, dtype=torch.complex64), "complex"),
    ],
)
def test_what_cannot_be_reduced_is_refused_with_a_reason(weights: torch.Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        reduce_weights(weights)


def test_a_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises((ValueError, TypeCheckError)):
        reduce_weights(torch.zeros(2, 3, 5))


def shuffled(factors: np.ndarray, seed: int = 0) -> np.ndarray:
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(3), (len(factors), 1)), axis=1)
    return np.take_along_axis(factors, order[:, None, None, :], axis=3)


def test_a_colour_means_the_same_in_every_neuron_whatever_order_the_factors_came_in() -> None:
    reduced = reduce_weights(banded_weights())
    assert np.array_equal(align_colours(shuffled(reduced)), align_colours(reduced))


def test_the_first_colour_is_at_the_top_or_at_the_left() -> None:
    factors = np.array([[1, 0.4, 0], [0.3, 1, 0.2], [0, 0.2, 1]])  # of each factor, its value in each row
    top, middle, bottom = factors[:, :, None].repeat(3, axis=2)
    kernels = np.stack([top, middle, bottom], axis=-1)[None].repeat(5, axis=0).astype(np.float32)
    for view in (kernels, np.swapaxes(kernels, 1, 2)):
        assert np.array_equal(align_colours(shuffled(view)), view)


@pytest.mark.parametrize("layer", ["base__5b", "90deg__5b", "fc_only__5b", "x_avgpool__5a", "x_avgpool__5b"])
def test_published_colour_order_is_found_again(reference: Path, layer: str) -> None:
    with np.load(reference / "published_simplified.npz") as layers:
        published = layers[f"simplified_{layer}"].astype(np.float32) / 255
    aligned = align_colours(shuffled(published))
    agreement = max((aligned == order).all(axis=(1, 2, 3)).mean() for order in (published, published[..., ::-1]))
    assert agreement >= 0.969  # the sign is arbitrary, so the order may be reversed as a whole
