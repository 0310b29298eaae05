"""What gathers the last map, which conv runs last, and how convs pad: each on a network small enough to see it."""

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from models.anatomy import anatomy, padding_of

IMAGES = (3, 16, 16)


class Head(nn.Module):
    """Two convs, a way from the map to features, a classifier."""

    def __init__(self, gather: Callable[[Tensor], Tensor], features: int = 8) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=4, padding=1))
        self.gather, self.classifier = gather, nn.Linear(features, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.gather(self.convs(images)))


def excited(maps: Tensor) -> Tensor:
    """A map weighted by its channels' means, flattened: the mean in it is not what gathers it."""
    return (maps * maps.mean((2, 3), keepdim=True)).flatten(1)


def by_attention(maps: Tensor) -> Tensor:
    tokens = maps.flatten(2).transpose(1, 2)
    return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0]


@pytest.mark.parametrize(
    ("gather", "features", "pooling"),
    [
        (lambda maps: nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1), 8, "global average"),
        (lambda maps: nn.functional.avg_pool2d(maps, 4).flatten(1), 8, "global average"),
        (lambda maps: maps.mean((-2, -1)), 8, "global average"),
        (lambda maps: maps.permute(0, 2, 3, 1).mean((1, 2)), 8, "global average"),
        (lambda maps: maps.flatten(2).transpose(1, 2).mean(1), 8, "global average"),
        (lambda maps: maps.amax((2, 3)), 8, "global max"),
        (lambda maps: nn.functional.max_pool2d(maps, 4).flatten(1), 8, "global max"),
        (lambda maps: nn.functional.adaptive_max_pool2d(maps, 1).flatten(1), 8, "global max"),
        (lambda maps: maps.flatten(1), 128, "flatten"),
        (lambda maps: nn.functional.avg_pool2d(maps, 2).flatten(1), 32, "flatten"),
        (excited, 128, "flatten"),
        (by_attention, 8, "attention"),
        (lambda maps: maps[:, :, 0, 0], 8, "unknown"),
        (lambda maps: maps[:, :, 0, 0] * float(maps.sum()), 8, "unknown"),  # it needs numbers
    ],
)
def test_the_pooling_is_what_gathers_the_positions_last(
    gather: Callable[[Tensor], Tensor], features: int, pooling: str
) -> None:
    assert anatomy(Head(gather, features), IMAGES).pooling == pooling


def test_a_conv_as_large_as_its_map_is_a_fully_connected_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 16), nn.Flatten(), nn.Linear(8, 2))
    seen = anatomy(net, IMAGES)
    assert (seen.pooling, seen.dense) == ("flatten", {"1"})
    assert seen.parameters == sum(parameter.numel() for parameter in net.parameters())


def test_convs_are_in_the_order_in_which_they_run_and_those_that_do_not_come_first() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first, self.unused = (nn.Conv2d(3, 3, 3) for _ in range(3))

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.first(images)).mean((2, 3))

    net = Crossed()
    assert list(anatomy(net, IMAGES).convs) == ["unused", "first", "last"]
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}  # it is left as it was
    assert not net.first._forward_hooks


def test_a_network_that_cannot_be_run_keeps_the_order_of_its_modules() -> None:
    seen = anatomy(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(5, 2, 3)), IMAGES)
    assert (list(seen.convs), seen.pooling) == (["0", "1"], "unknown")


def test_padding_in_a_word() -> None:
    assert padding_of(nn.Conv2d(3, 4, 3)) == "none"
    assert padding_of(nn.Conv2d(3, 4, 3, padding="same")) == "zeros"
    assert padding_of(nn.Conv2d(3, 4, 3, padding=(0, 1), padding_mode="reflect")) == "reflect"
    timm_layers = pytest.importorskip("timm.layers")
    assert padding_of(timm_layers.create_conv2d(3, 4, 3, padding="same", stride=2)) == "zeros"
