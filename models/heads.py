"""What can go between the last map and the classifier.

Axis letters: `b` batch, `c` channels, `h w` rows and columns of the last map, `k` masks,
`p` positions (h, w flattened), `g` groups, `u` units.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.convnet import root

Map = Float[Tensor, "b c h w"]


class MeanOverColumns(nn.Module):
    """Average along x only: rows stay separate."""

    def forward(self, x: Map) -> Float[Tensor, "b c h"]:
        return x.mean(dim=-1)


class MeansSideBySide(nn.Module):
    """The averages along x and along y, side by side."""

    def forward(self, x: Map) -> Float[Tensor, "b c hw"]:
        return torch.cat([x.mean(dim=-1), x.mean(dim=-2)], dim=-1)


class MaskedAverage(nn.Module):
    """Global averages under learned masks in [0, 1], one for each mask, side by side."""

    def __init__(self, masks: int, h: int, w: int) -> None:
        super().__init__()
        self.masks = nn.Parameter(torch.randn(masks, h, w))  # different, so that they learn different things

    def forward(self, x: Map) -> Float[Tensor, "b c k"]:
        return torch.einsum("bchw,khw->bck", x, self.masks.sigmoid()) / self.masks[0].numel()


class MaskedL2(MaskedAverage):
    """The root of the mean square under each learned mask."""

    def forward(self, x: Map) -> Float[Tensor, "b c k"]:
        return root(super().forward(x.square()))


class SpatialMask(nn.Module):
    """A learned factor for each position and channel, then global average pooling."""

    def __init__(self, c: int, h: int, w: int) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones(c, h, w))

    def forward(self, x: Map) -> Float[Tensor, "b c"]:
        return (x * self.mask).mean(dim=(-2, -1))


class ChannelGroups(nn.Module):
    """Groups of channels, each with its own fully connected layer over channels and positions, batch norm and ReLU."""

    def __init__(self, c: int, h: int, w: int, groups: int, units: int) -> None:
        super().__init__()
        inputs = c // groups * h * w
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(groups, inputs, units).uniform_(-1, 1) / inputs**0.5)
        self.norm = nn.BatchNorm1d(groups * units)

    def forward(self, x: Map) -> Float[Tensor, "b gu"]:
        grouped = x.reshape(len(x), self.groups, -1)
        return self.norm(torch.einsum("bgi,giu->bgu", grouped, self.weight).flatten(1)).relu()


class SimpleAttention(nn.Module):
    """One learned query attends over the positions; the attended average reaches the classifier."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(c))

    def forward(self, x: Map) -> Float[Tensor, "b c"]:
        positions = x.flatten(2)
        attention = (torch.einsum("bcp,c->bp", positions, self.query) / x.shape[1] ** 0.5).softmax(dim=-1)
        return torch.einsum("bcp,bp->bc", positions, attention)


class Attention(nn.Module):
    """One learned query attends with several heads over the positions, to which learned encodings are added."""

    def __init__(self, c: int, h: int, w: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(c))
        self.encoding = nn.Parameter(0.02 * torch.randn(h * w, c))
        self.attention = nn.MultiheadAttention(c, heads, batch_first=True)

    def forward(self, x: Map) -> Float[Tensor, "b c"]:
        positions = x.flatten(2).mT + self.encoding
        query = self.query.expand(len(x), 1, -1)
        return self.attention(query, positions, positions, need_weights=False)[0][:, 0]


class CoordConv2d(nn.Conv2d):
    """A convolution that also sees each position's row and column, from -1 to 1.

    Source: Liu et al. 2018 (arXiv:1807.03247).
    """

    @classmethod
    def like(cls, conv: nn.Conv2d) -> "CoordConv2d":
        """A fresh convolution of the same kind with two more input channels."""
        return cls(
            conv.in_channels + 2,
            conv.out_channels,
            _pair(conv.kernel_size),
            _pair(conv.stride),
            conv.padding if isinstance(conv.padding, str) else _pair(conv.padding),
            _pair(conv.dilation),
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
        )

    def forward(self, x: Map) -> Float[Tensor, "b n h2 w2"]:
        b, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[None, None, :, None].expand(b, 1, h, w)
        columns = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)[None, None, None, :].expand(b, 1, h, w)
        return super().forward(torch.cat([x, rows, columns], dim=1))


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    return sizes[0], sizes[1]


class Blur(nn.Module):
    """Binomial 3x3 smoothing with stride 2, which keeps pooling from aliasing.

    Source: Zhang 2019 (arXiv:1904.11486), Triangle-3.
    """

    def forward(self, x: Map) -> Float[Tensor, "b c h2 w2"]:
        taps = torch.tensor([1.0, 2.0, 1.0], device=x.device, dtype=x.dtype) / 4
        kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
        padded = nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return nn.functional.conv2d(padded, kernel, stride=2, groups=x.shape[1])


class BlurredL2Pool2d(nn.Module):
    """The root of smoothed squares with stride 2, in place of `L2Pool2d`."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = Blur()

    def forward(self, x: Map) -> Float[Tensor, "b c h2 w2"]:
        return root(self.blur(x.square()))
