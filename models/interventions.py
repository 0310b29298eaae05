"""The interventions by name. To add one: write one function, add an entry to `INTERVENTIONS`.

An intervention changes the network (`change_network`, in place), every image of training and validation
(`transform`), or training images at random (`augment`). Axis letters: `b` batch, `c` channels, `h w` rows and columns.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from models.architectures import ARTICLE
from models.convnet import ConvNet

Images = Float[Tensor, "b 3 h w"]
Finding = Literal["horizontal", "vertical", "none", "unknown"]


def keep_network(net: ConvNet) -> None:
    """Leave the network as it is."""


def keep_images(images: Images) -> Images:
    """Leave the images as they are."""
    return images


def keep_augmented(images: Images, generator: Generator) -> Images:
    """Add no randomness of the intervention's own."""
    return images


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One change to a network, its images or its training; `what` says it in a few words.

    `expected` gives per architecture the finding for each of its final convs, the last conv first.
    """

    what: str
    source: str
    expected: Mapping[str, tuple[Finding, ...]]
    change_network: Callable[[ConvNet], None] = keep_network
    transform: Callable[[Images], Images] = keep_images
    augment: Callable[[Images, Generator], Images] = keep_augmented
    trained: bool = True

    def finding(self, architecture: str, position: int) -> Finding:
        """The finding expected for the conv at `position` (1 is the last), `unknown` where nobody has looked."""
        findings = self.expected.get(architecture, ())
        return findings[position - 1] if position <= len(findings) else "unknown"


def rotate90(images: Images) -> Images:
    """Turn every image by 90 degrees, counter-clockwise."""
    return torch.rot90(images, 1, dims=(-2, -1))


def random_rotation(images: Images, generator: Generator) -> Images:
    """Turn each training image by a random multiple of 90 degrees."""
    turns = torch.randint(4, (len(images),), generator=generator).to(images.device)
    turned = images.clone()
    for k in (1, 2, 3):
        turned[turns == k] = torch.rot90(images[turns == k], k, dims=(-2, -1))
    return turned


def no_pooling(net: ConvNet) -> None:
    """Remove the pool: every position of the last map reaches the classifier by weights of its own."""
    c, h, w = net.map_shape
    net.head = _head(nn.Flatten(), c * h * w, net.num_classes)


class MeanOverColumns(nn.Module):
    """Average along x only: `[b, c, h, w]` to `[b, c, h]`."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h"]:
        return x.mean(dim=-1)


def x_pool(net: ConvNet) -> None:
    """Average along x only, so that c x h values reach the classifier."""
    c, h, _ = net.map_shape
    net.head = _head(nn.Sequential(MeanOverColumns(), nn.Flatten()), c * h, net.num_classes)


def _in_simplified(*findings: Finding) -> dict[str, tuple[Finding, ...]]:
    """The article's finding for 5b, 5a and so on of `simplified`, taken over for our miniature of it."""
    return {"simplified": findings, "simplified_mini": findings[:2]}


INTERVENTIONS: dict[str, Intervention] = {
    "baseline": Intervention(
        what="nothing",
        source=ARTICLE,
        expected=_in_simplified("horizontal", "horizontal"),
    ),
    "rotate90": Intervention(
        what="every image turned by 90 degrees, in training and validation",
        source=ARTICLE,
        expected=_in_simplified("vertical", "vertical"),
        transform=rotate90,
    ),
    "random_rotation": Intervention(
        what="each training image turned by a random multiple of 90 degrees",
        source=f"{ARTICLE}: an idea, never run",
        expected={},
        augment=random_rotation,
    ),
    "no_pooling": Intervention(
        what="no pool: every position of the last map has its own weights in the classifier",
        source=ARTICLE,
        expected=_in_simplified("none", "horizontal"),
        change_network=no_pooling,
    ),
    "x_pool": Intervention(
        what="average along x only: c x h values reach the classifier",
        source=ARTICLE,
        expected=_in_simplified("none", "horizontal"),
        change_network=x_pool,
    ),
    "untrained": Intervention(
        what="no step of training: the control",
        source="ours",
        expected=_in_simplified("none", "none", "none"),
        trained=False,
    ),
}


def _head(reduce: nn.Module, features: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(pool=reduce, classifier=nn.Linear(features, num_classes)))
