"""The architectures by name.

To add one: write a function of `(num_classes, image_size)`, add a line to `ARCHITECTURES`.
Beside those, `timm:NAME` is any convolutional model of timm.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torchvision
from torch import nn
from torchvision.models import VGG, AlexNet
from torchvision.models.googlenet import BasicConv2d, Inception

from models import from_timm
from models.convnet import ConvNet, L2Pool2d, conv_block
from models.names import require_known

ARTICLE = "Petrov et al., Weight Banding, Distill 2021"
HIDDEN = 4096  # units of each fully connected layer of VGG-19 and AlexNet


def as_built(net: ConvNet) -> None:
    """Keep the weights the layers were created with: PyTorch's defaults, or what a constructor set."""


def as_googlenet(net: ConvNet) -> None:
    """A truncated normal of standard deviation 0.01 in every conv and in the classifier.

    Source: torchvision.models.GoogLeNet with init_weights.
    """
    for layer in _own_layers(net):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, mean=0.0, std=0.01, a=-2, b=2)


def as_vgg(net: ConvNet) -> None:
    """Kaiming normal (fan-out) in every conv, a normal of 0.01 in the classifier, zero biases.

    PyTorch's default would shrink the signal in each of the 16 convs, until all images give the same logits.
    Source: torchvision.models.VGG with init_weights.
    """
    for layer in _own_layers(net):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network, at which image size (pixels) by default, and where its definition comes from.

    `initialise` gives a network, changed by an intervention or not, the initial weights of its source.
    `interventions` names those defined for it; None means all. `revision` rises whenever the same name and seed
    come to mean another network; it is part of every later trial's id.
    """

    build: Callable[[int, int], ConvNet]
    image_size: int
    source: str
    initialise: Callable[[ConvNet], None] = as_built
    interventions: tuple[str, ...] | None = None
    revision: int = 1


def simplified(num_classes: int, image_size: int) -> ConvNet:
    """The article's simplified network: 7x7 and 5x5 convs in six groups, L2 pooling after the first five."""
    widths = [[32], [64], [64], [128, 128], [256] * 5, [512, 512]]
    return ConvNet(_groups(widths), _convs("5b", "5a", "4e"), num_classes, image_size)


def simplified_mini(num_classes: int, image_size: int) -> ConvNet:
    """The same design for 56-pixel images: four groups, three L2 pools, a last map of 7x7."""
    widths = [[12], [16], [24], [48, 48]]
    return ConvNet(_groups(widths), _convs("3b", "3a"), num_classes, image_size)


class Inception5x5(Inception):
    """GoogLeNet's module with a true 5x5 kernel in its 5x5 branch; torchvision's has 3x3 there."""

    def __init__(self, in_channels: int, *widths: int, **options: Any) -> None:
        super().__init__(in_channels, *widths, **options)
        reduced, out = widths[3], widths[4]
        self.branch3[1] = BasicConv2d(reduced, out, kernel_size=5, padding=2)


def inception_v1(num_classes: int, image_size: int) -> ConvNet:
    """GoogLeNet with true 5x5 branches and without auxiliary classifiers."""
    net = torchvision.models.GoogLeNet(
        num_classes, aux_logits=False, init_weights=False, blocks=[BasicConv2d, Inception5x5, nn.Identity]
    )
    final = ("features.inception5b.branch3.1.conv", "features.inception5a.branch3.1.conv")
    features = _children(net, but=("avgpool", "dropout", "fc"))

    def make_classifier(in_features: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.2), nn.Linear(in_features, classes))

    return ConvNet(features, final, num_classes, image_size, make_classifier=make_classifier)


def resnet50(num_classes: int, image_size: int) -> ConvNet:
    """torchvision's ResNet-50."""
    features = _children(torchvision.models.resnet50(weights=None), but=("avgpool", "fc"))
    final = [f"features.layer4.{block}.conv2" for block in (2, 1, 0)]
    return ConvNet(features, final, num_classes, image_size)


def vgg19(num_classes: int, image_size: int) -> ConvNet:
    """torchvision's VGG-19; its last max pool and its average pool come before its fully connected layers."""
    net = torchvision.models.vgg19(weights=None, init_weights=False)
    return _with_hidden_layers(net, ("features.34", "features.32"), num_classes, image_size)


def alexnet(num_classes: int, image_size: int) -> ConvNet:
    """torchvision's AlexNet, pooled like VGG-19."""
    net = torchvision.models.alexnet(weights=None)
    return _with_hidden_layers(net, ("features.10", "features.8"), num_classes, image_size)


ARCHITECTURES: dict[str, Architecture] = {
    "simplified": Architecture(build=simplified, image_size=224, source=ARTICLE),
    "simplified_mini": Architecture(build=simplified_mini, image_size=56, source="ours, after `simplified`"),
    "inception_v1": Architecture(
        build=inception_v1,
        initialise=as_googlenet,
        image_size=224,
        source="Szegedy et al. 2015, torchvision, extended",
        revision=3,  # 1 had PyTorch's default weights, 2 no dropout
    ),
    "resnet50": Architecture(build=resnet50, image_size=224, source="He et al. 2016, torchvision"),
    "vgg19": Architecture(
        build=vgg19,
        initialise=as_vgg,
        image_size=224,
        source="Simonyan and Zisserman 2015, torchvision",
        revision=2,  # 1 had PyTorch's default weights, with which it learns nothing
    ),
    "alexnet": Architecture(build=alexnet, image_size=224, source="Krizhevsky 2014, torchvision"),
}


def architecture_named(name: str) -> Architecture:
    """The architecture of a name, from `ARCHITECTURES` or, with the prefix `timm:`, from timm.

    Raises:
        ValueError: there is no such architecture; the message names the nearest.
    """
    if name.startswith(from_timm.PREFIX):
        model = name.removeprefix(from_timm.PREFIX)
        return Architecture(
            build=partial(from_timm.build_timm, model),
            image_size=from_timm.default_image_size(model),
            source="timm",
            interventions=from_timm.INTERVENTIONS,
        )
    require_known("architecture", name, [*ARCHITECTURES, f"{from_timm.PREFIX}NAME"])
    return ARCHITECTURES[name]


def _own_layers(net: ConvNet) -> Iterator[nn.Module]:
    """The layers of the body and of the classifier; an intervention's between them initialise themselves."""
    yield from net.features.modules()
    yield from net.head.get_submodule("classifier").modules()


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


def _children(net: nn.Module, but: Sequence[str]) -> nn.Sequential:
    """A network's parts in order, without those of its head."""
    return nn.Sequential(OrderedDict((name, child) for name, child in net.named_children() if name not in but))


def _with_hidden_layers(net: VGG | AlexNet, final: Sequence[str], num_classes: int, image_size: int) -> ConvNet:
    """A network whose last conv is followed by max pool, average pool and hidden fully connected layers."""
    *body, last_pool = net.features.children()

    def make_classifier(in_features: int, classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(in_features, HIDDEN), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(HIDDEN, HIDDEN), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(HIDDEN, classes),
        )  # fmt: skip

    pool = nn.Sequential(last_pool, net.avgpool)
    return ConvNet(nn.Sequential(*body), final, num_classes, image_size, pool, make_classifier)
