"""The architectures by name.

To add one: write a function of `(num_classes, image_size)`, add a line to `ARCHITECTURES`.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from models.convnet import ConvNet, L2Pool2d, conv_block

ARTICLE = "Petrov et al., Weight Banding, Distill 2021"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network, at which image size (pixels) by default, and where its definition comes from."""

    build: Callable[[int, int], ConvNet]
    image_size: int
    source: str


def simplified(num_classes: int, image_size: int) -> ConvNet:
    """The article's simplified network: 7x7 and 5x5 convs in six groups, L2 pooling after the first five."""
    widths = [[32], [64], [64], [128, 128], [256] * 5, [512, 512]]
    return ConvNet(_groups(widths), _convs("5b", "5a", "4e"), num_classes, image_size)


def simplified_mini(num_classes: int, image_size: int) -> ConvNet:
    """The same design for images of 56 pixels: four groups, three L2 pools, a last map of 7x7."""
    widths = [[12], [16], [24], [48, 48]]
    return ConvNet(_groups(widths), _convs("3b", "3a"), num_classes, image_size)


ARCHITECTURES: dict[str, Architecture] = {
    "simplified": Architecture(build=simplified, image_size=224, source=ARTICLE),
    "simplified_mini": Architecture(build=simplified_mini, image_size=56, source="ours, after `simplified`"),
}


def _groups(widths: Sequence[Sequence[int]]) -> nn.Sequential:
    """Conv blocks named `0a`, `1a`, ..., the first 7x7, all others 5x5, with L2 pooling between the groups."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    in_channels = 3
    for group, group_widths in enumerate(widths):
        for letter, width in zip("abcdefgh", group_widths, strict=False):
            layers[f"{group}{letter}"] = conv_block(in_channels, width, kernel=5 if layers else 7)
            in_channels = width
        if group < len(widths) - 1:
            layers[f"pool{group}"] = L2Pool2d()
    return nn.Sequential(layers)


def _convs(*blocks: str) -> list[str]:
    return [f"features.{block}.conv" for block in blocks]
