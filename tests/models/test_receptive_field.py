"""Receptive fields: those that are known, and which pixels an output really depends on."""

import pytest
import torch

import models
from models.architectures import ARCHITECTURES
from models.receptive_field import Extent, receptive_fields

KNOWN = {
    ("alexnet", 224): [Extent(start=-66, step=16, size=163), Extent(start=-50, step=16, size=131)],
    ("vgg19", 224): [Extent(start=0, step=0, size=224), Extent(start=-102, step=16, size=220)],
    ("simplified_mini", 56): 2 * [Extent(start=0, step=0, size=56)],
    ("simplified_mini", 112): [Extent(start=-47, step=8, size=102), Extent(start=-31, step=8, size=70)],
    ("simplified", 96): 3 * [Extent(start=0, step=0, size=96)],
    ("resnet50", 96): 3 * [Extent(start=0, step=0, size=96)],
    ("inception_v1", 96): 2 * [Extent(start=0, step=0, size=96)],
}
"""By hand, for the last conv first: size = 1 + the sum of (kernel - 1) times the strides before it."""


def test_an_architecture_of_each_kind_is_here() -> None:
    assert {name for name, _ in KNOWN} == set(ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "side"), KNOWN)
def test_fields_are_what_kernels_strides_and_paddings_make_them(architecture: str, side: int) -> None:
    net = models.build(architecture, "baseline", 5, side, seed=0)
    found = receptive_fields(net)
    assert list(found) == list(net.final_convs)
    assert [field.rows for field in found.values()] == KNOWN[architecture, side]
    assert all(field.rows == field.columns for field in found.values())


@pytest.mark.whole
def test_of_parallel_paths_the_one_with_the_largest_field_counts() -> None:
    net = models.build("resnet50", "baseline", 5, 448, seed=0)
    assert [field.rows.size for field in receptive_fields(net).values()] == [427, 363, 299]  # not 1x1 shortcuts


@pytest.mark.parametrize("intervention", ["padding_circular", "padding_reflect", "coord_conv"])
def test_paddings_and_coordinates_leave_the_fields_as_they_are(intervention: str) -> None:
    net = models.build("simplified_mini", intervention, 5, 112, seed=0)
    assert [field.rows for field in receptive_fields(net).values()] == KNOWN["simplified_mini", 112]


def test_blurred_pools_see_a_pixel_more_on_each_side() -> None:
    net = models.build("simplified_mini", "blur_pool", 5, 128, seed=0)
    assert [field.rows.size for field in receptive_fields(net).values()] == [102 + 7, 70 + 7]  # 1 + 2 + 4 for 3 pools


@pytest.mark.parametrize(
    ("architecture", "intervention", "side", "position"),
    [
        ("simplified_mini", "baseline", 112, (6, 8)),
        ("simplified_mini", "baseline", 112, (0, 13)),
        ("simplified_mini", "blur_pool", 128, (8, 7)),
        ("alexnet", "baseline", 224, (6, 7)),
        ("alexnet", "baseline", 224, (12, 0)),
    ],
)
def test_an_output_depends_on_its_window_up_to_each_edge_and_on_nothing_else(
    architecture: str, intervention: str, side: int, position: tuple[int, int]
) -> None:
    net = models.build(architecture, intervention, 5, side, seed=0).eval()
    layer = net.final_convs[0]
    field = receptive_fields(net)[layer]
    bounds = [extent.of(place) for extent, place in zip((field.rows, field.columns), position, strict=True)]
    (top, bottom), (left, right) = ((max(first, 0), min(end, side)) for first, end in bounds)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def output(changed: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return net.maps(torch.where(changed, image + 50, image))[1][layer][0, :, *position]

    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    plain = output(torch.zeros_like(inside))
    assert torch.allclose(output(~inside), plain, atol=1e-5)
    for rows, columns in (
        (slice(top, top + 1), slice(left, right)),
        (slice(bottom - 1, bottom), slice(left, right)),
        (slice(top, bottom), slice(left, left + 1)),
        (slice(top, bottom), slice(right - 1, right)),
    ):
        edge = torch.zeros_like(inside)
        edge[rows, columns] = True
        assert not torch.allclose(output(edge), plain, atol=1e-5)


def test_finding_the_fields_leaves_the_network_as_it_was() -> None:
    net = models.build("simplified_mini", "baseline", 5, 56, seed=0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    receptive_fields(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
