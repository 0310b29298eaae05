"""The interventions by name. To add one: write one function, add an entry to `INTERVENTIONS`.

An intervention changes the network (`change_network`, in place), every image of training and validation
(`transform`), training images at random (`augment`; `flip` in place of the data set's), or the training labels
(`relabel`). Images are flipped, then transformed, then augmented.
Axis letters: `b` batch, `c` channels, `h w` rows and columns.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from models.architectures import ARTICLE
from models.convnet import ConvNet, L2Pool2d
from models.heads import (
    Attention,
    Blur,
    BlurredL2Pool2d,
    ChannelGroups,
    CoordConv2d,
    MaskedAverage,
    MaskedL2,
    MeanOverColumns,
    MeansSideBySide,
    SimpleAttention,
    SpatialMask,
)
from models.names import Flip

Images = Float[Tensor, "b 3 h w"]
Labels = Int64[Tensor, "n"]
Finding = Literal["horizontal", "vertical", "none", "unknown"]
Direction = Literal["horizontal", "vertical"]


def keep_network(net: ConvNet) -> None:
    """Leave the network as it is."""


def keep_images(images: Images) -> Images:
    """Leave the images as they are."""
    return images


def keep_augmented(images: Images, generator: Generator) -> Images:
    """Add no randomness of the intervention's own."""
    return images


def keep_labels(labels: Labels, generator: Generator) -> Labels:
    """Leave the labels as they are."""
    return labels


def always(net: ConvNet) -> str | None:
    """The intervention makes sense for every network."""
    return None


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One change to a network, its images or its training; `what` describes it in a few words.

    `expected` gives the finding for each final conv of an architecture, the last conv first. `primary` is the direction
    in which the last conv's score is compared with the baseline's and tested; vertical where rows of the images have
    become columns. `meaningless` says why the change makes no sense for a baseline network, or returns None. `revision`
    rises whenever the same name comes to mean another change; it is part of every later trial's id.
    """

    what: str
    source: str
    expected: Mapping[str, tuple[Finding, ...]]
    primary: Direction = "horizontal"
    change_network: Callable[[ConvNet], None] = keep_network
    transform: Callable[[Images], Images] = keep_images
    augment: Callable[[Images, Generator], Images] = keep_augmented
    flip: Flip | None = None
    relabel: Callable[[Labels, Generator], Labels] = keep_labels
    meaningless: Callable[[ConvNet], str | None] = always
    trained: bool = True
    revision: int = 1

    def finding(self, architecture: str, position: int) -> Finding:
        """The finding expected for the conv at `position` (1 is the last), `unknown` where nobody has looked."""
        findings = self.expected.get(architecture, ())
        return findings[position - 1] if position <= len(findings) else "unknown"


def rotate90(images: Images) -> Images:
    """Rotate every image by 90 degrees counterclockwise."""
    return torch.rot90(images, 1, dims=(-2, -1))


def random_rotation(images: Images, generator: Generator) -> Images:
    """Rotate each training image by a random multiple of 90 degrees."""
    turns = torch.randint(4, (len(images),), generator=generator).to(images.device)
    turned = images.clone()
    for k in (1, 2, 3):
        turned[turns == k] = torch.rot90(images[turns == k], k, dims=(-2, -1))
    return turned


def rotate180(images: Images) -> Images:
    """Turn every image upside down."""
    return torch.rot90(images, 2, dims=(-2, -1))


def vertical_flip(images: Images, generator: Generator) -> Images:
    """Mirror each training image top to bottom with probability 1/2."""
    flipped = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(flipped[:, None, None, None], images.flip(-2), images)


def shuffle_labels(labels: Labels, generator: Generator) -> Labels:
    """Give the training images each other's labels, so that only memorising helps."""
    return labels[torch.randperm(len(labels), generator=generator)]


def no_pooling(net: ConvNet) -> None:
    """Remove the pool: every position of the last map has its own weights in the classifier."""
    net.set_pool(nn.Identity())


def x_pool(net: ConvNet) -> None:
    """Average along x only, so that c x h values reach the classifier."""
    net.set_pool(MeanOverColumns())


def xy_pool(net: ConvNet) -> None:
    """The averages along x and along y side by side: c x (h + w) values reach the classifier."""
    net.set_pool(MeansSideBySide())


def max_pool_fc4096(net: ConvNet) -> None:
    """Global max pooling and a layer of 4096 units, with batch norm as on all of the article's layers but the last."""
    c, units = net.map_shape[0], 4096
    layers = OrderedDict(max=nn.AdaptiveMaxPool2d(1), flatten=nn.Flatten(), hidden=nn.Linear(c, units, bias=False))
    net.set_pool(nn.Sequential(layers | OrderedDict(norm=nn.BatchNorm1d(units), relu=nn.ReLU())))


def gap_masks(net: ConvNet, masks: int) -> None:
    """Global averages under learned masks, side by side."""
    _, h, w = net.map_shape
    net.set_pool(MaskedAverage(masks, h, w))


def l2_masks(net: ConvNet, masks: int) -> None:
    """Roots of mean squares under learned masks, side by side."""
    _, h, w = net.map_shape
    net.set_pool(MaskedL2(masks, h, w))


def spatial_mask(net: ConvNet) -> None:
    """A learned factor for each position and channel, then global average pooling."""
    net.set_pool(SpatialMask(*net.map_shape))


def channel_groups(net: ConvNet) -> None:
    """16 groups of channels with a fully connected layer of 64 units each, batch norm and ReLU."""
    net.set_pool(ChannelGroups(*net.map_shape, groups=16, units=64))


def attention_simple(net: ConvNet) -> None:
    """One learned query attends over the positions."""
    net.set_pool(SimpleAttention(net.map_shape[0]))


def attention(net: ConvNet) -> None:
    """One learned query attends with eight heads over positions with encodings."""
    net.set_pool(Attention(*net.map_shape, heads=8))


def coord_conv(net: ConvNet) -> None:
    """Two coordinate channels are added to the inputs of the last two analysed convs."""
    for name in net.final_convs[:2]:
        conv = net.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        net.set_submodule(name, CoordConv2d.like(conv))


def pad(net: ConvNet, mode: Literal["reflect", "circular", "replicate"]) -> None:
    """Pad all convs with something other than zeros, which leak position."""
    for module in net.features.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = mode


def pad_without_pool(net: ConvNet, mode: Literal["reflect", "circular", "replicate"]) -> None:
    """`no_pooling` with convs padded with something other than zeros."""
    pad(net, mode)
    no_pooling(net)


def blur_pool(net: ConvNet) -> None:
    """Smooth before every pool's subsampling; strided convolutions stay."""
    for name, module in list(net.named_modules()):
        if isinstance(module, L2Pool2d):
            net.set_submodule(name, BlurredL2Pool2d())
        elif _is_strided(module):
            assert isinstance(module, nn.MaxPool2d)
            dense = nn.MaxPool2d(module.kernel_size, 1, module.padding, ceil_mode=module.ceil_mode)
            net.set_submodule(name, nn.Sequential(dense, Blur()))
    net.map_shape = net.measure_map()
    net.set_pool(net.head.get_submodule("pool"))


def needs_positions(net: ConvNet) -> str | None:
    """Heads that tell positions apart need more than one position."""
    _, h, w = net.map_shape
    return f"the last map is {h}x{w}: there are no positions to tell apart" if h * w == 1 else None


def needs_divisible_channels(net: ConvNet, parts: int) -> str | None:
    c = net.map_shape[0]
    return needs_positions(net) or (f"{c} channels can't be split into {parts}" if c % parts else None)


def needs_pools(net: ConvNet) -> str | None:
    """Anti-aliased pooling needs a pool that subsamples."""
    if any(isinstance(module, L2Pool2d) or _is_strided(module) for module in net.modules()):
        return None
    return "no pool of the network subsamples"


def _is_strided(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d) and module.stride in (2, (2, 2))


def _expected(*simplified: Finding, **last_conv: Finding) -> dict[str, tuple[Finding, ...]]:
    """Findings for 5b, 5a and so on of `simplified`, also used for our miniature; for others, of the last conv."""
    others: dict[str, tuple[Finding, ...]] = {name: (finding,) for name, finding in last_conv.items()}
    return {"simplified": simplified, "simplified_mini": simplified[:2]} | others


_FIGURE_12 = f"{ARTICLE}, figure 12"
_FIGURES_9_TO_12 = f"{ARTICLE}, figures 9 to 12"
_IDEA = f"{ARTICLE}: an idea, never run"
_OURS = "ours"
_HORIZONTAL = _expected("horizontal", "horizontal")
_ALL: tuple[Finding, ...] = ("none", "none", "none")

INTERVENTIONS: dict[str, Intervention] = {
    "baseline": Intervention(
        what="nothing",
        source=_FIGURES_9_TO_12,
        expected=_expected(
            "horizontal",
            "horizontal",
            inception_v1="horizontal",
            resnet50="horizontal",
            vgg19="horizontal",
            alexnet="none",
        ),
    ),
    "rotate90": Intervention(
        what="every image rotated by 90 degrees, in training and validation",
        source=_FIGURES_9_TO_12,
        expected=_expected("vertical", "vertical", inception_v1="vertical", resnet50="vertical", vgg19="vertical"),
        primary="vertical",
        transform=rotate90,
    ),
    "no_pooling": Intervention(
        what="no pool: every position of the last map has its own weights in the classifier",
        source=_FIGURES_9_TO_12,
        expected=_expected("none", "horizontal", inception_v1="none", resnet50="none", vgg19="horizontal"),
        change_network=no_pooling,
        meaningless=needs_positions,
    ),
    "x_pool": Intervention(
        what="average along x only: c x h values reach the classifier",
        source=_FIGURE_12,
        expected=_expected("none", "horizontal"),
        change_network=x_pool,
        meaningless=needs_positions,
    ),
    "max_pool_fc4096": Intervention(
        what="global max pool and a layer of 4096 units with batch norm in front of the classifier",
        source=_FIGURE_12,
        expected=_HORIZONTAL,
        change_network=max_pool_fc4096,
        revision=2,  # 1 had no batch norm
    ),
    **{
        f"gap_masks_{masks}": Intervention(
            what=f"{masks} learned masks through a sigmoid, an average under each",
            source=_FIGURE_12,
            expected=_HORIZONTAL,
            change_network=partial(gap_masks, masks=masks),
            meaningless=needs_positions,
        )
        for masks in (3, 5, 16)
    },
    **{
        f"l2_masks_{masks}": Intervention(
            what=f"{masks} learned masks through a sigmoid, L2 pooling under each",
            source=_FIGURE_12,
            expected=_HORIZONTAL,
            change_network=partial(l2_masks, masks=masks),
            meaningless=needs_positions,
        )
        for masks in (3, 5, 16)
    },
    "spatial_mask": Intervention(
        what="a learned factor for each position and channel after the last conv, then the pool",
        source=_FIGURE_12,
        expected=_HORIZONTAL,
        change_network=spatial_mask,
        meaningless=needs_positions,
    ),
    "coord_conv": Intervention(
        what="two coordinate channels added to the input of each of the last two analysed convs",
        source=_FIGURE_12,
        expected=_HORIZONTAL,
        change_network=coord_conv,
    ),
    "channel_groups": Intervention(
        what="16 groups of channels, each with its own 64 units, batch norm and ReLU",
        source=_FIGURE_12,
        expected=_HORIZONTAL,
        change_network=channel_groups,
        revision=2,  # 1 had no ReLU
        meaningless=partial(needs_divisible_channels, parts=16),
    ),
    "attention_simple": Intervention(
        what="one learned query attends over the positions (ours: the article does not define it)",
        source=_FIGURE_12,
        expected=_HORIZONTAL,
        change_network=attention_simple,
        meaningless=needs_positions,
    ),
    "attention": Intervention(
        what="eight heads attend over positions with learned encodings (ours: the article does not define it)",
        source=_FIGURE_12,
        expected=_HORIZONTAL,
        change_network=attention,
        meaningless=partial(needs_divisible_channels, parts=8),
    ),
    "xy_pool": Intervention(
        what="x-pooled and y-pooled maps side by side into the classifier",
        source=_IDEA,
        expected={},
        change_network=xy_pool,
        meaningless=needs_positions,
    ),
    "random_rotation": Intervention(
        what="each training image rotated by a random multiple of 90 degrees",
        source=_IDEA,
        expected={},
        augment=random_rotation,
    ),
    "untrained": Intervention(
        what="no training at all: the control",
        source=_OURS,
        expected=_expected(*_ALL) | dict.fromkeys(("inception_v1", "resnet50", "vgg19", "alexnet"), _ALL),
        trained=False,
    ),
    **{
        f"padding_{mode}": Intervention(
            what=f"{mode} padding in all convs: zeros leak position",
            source="ours, after Kayhan and van Gemert 2020 (arXiv:2003.07064)",
            expected={},
            change_network=partial(pad, mode=mode),
        )
        for mode in ("reflect", "circular", "replicate")
    },
    **{
        f"no_pooling_padding_{mode}": Intervention(
            what=f"no pool, and {mode} padding in all convs",
            source=_OURS,
            expected={},
            change_network=partial(pad_without_pool, mode=mode),
            meaningless=needs_positions,
        )
        for mode in ("reflect", "circular", "replicate")
    },
    "blur_pool": Intervention(
        what="smoothing before every pool's subsampling; strided convolutions stay as they are",
        source="ours, after Zhang 2019 (arXiv:1904.11486)",
        expected={},
        change_network=blur_pool,
        meaningless=needs_pools,
    ),
    "vertical_flip": Intervention(
        what="each training image mirrored top to bottom with probability 1/2",
        source=_OURS,
        expected={},
        augment=vertical_flip,
    ),
    "no_flip": Intervention(
        what="training images are not mirrored",
        source=_OURS,
        expected={},
        flip="none",
    ),
    "flip_top_bottom": Intervention(
        what="training images mirrored top to bottom in place of left to right",
        source=_OURS,
        expected={},
        flip="top_bottom",
    ),
    "rotate90_then_flip": Intervention(
        what="every image rotated by 90 degrees, and training images mirrored left to right only then",
        source=_OURS,
        expected={},
        transform=rotate90,
        primary="vertical",
        flip="top_bottom",  # before the rotation, which makes it left to right
    ),
    "rotate180": Intervention(
        what="every image turned upside down, in training and validation",
        source=_OURS,
        expected={},
        transform=rotate180,
    ),
    "shuffled_labels": Intervention(
        what="the training images' labels are shuffled: only memorising helps",
        source="ours, after Zhang et al. 2017 (arXiv:1611.03530)",
        expected={},
        relabel=shuffle_labels,
    ),
}
