"""Weights of a convolution as they reach through the one before it: expanded weights.

Axis letters: `n` neurons, `m` channels between the two convolutions, `c` input channels of the first one,
`y x` and `v u` kernel rows and columns of the second and the first one.
What stands between them is left out: the nonlinearity, and the scale that batch norm gives each of the m channels.
The first convolution has a stride of 1, and nothing between the two makes its maps smaller.

Source: Voss et al., Visualizing Weights, Distill 2021.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.readers.conv import Conv, why_skipped


def expand(second: Float[Tensor, "n m y x"], first: Float[Tensor, "m c v u"]) -> Float[Tensor, "n c yv xu"]:
    """The kernels of both convolutions as one: K[n, c, a + b] is the sum over m of second[n, m, a] first[m, c, b]."""
    return torch.nn.functional.conv_transpose2d(second, first)


def expanded(second: Conv, first: Conv) -> Conv:
    """A convolution whose weights are the expanded ones of two, the second right after the first.

    Raises:
        ValueError: either is not two-dimensional or has groups, or the second's inputs are not the first's outputs.
    """
    for conv in (second, first):
        if len(conv.shape) != 4:
            raise ValueError(f"{conv.layer} can't be expanded: {conv.skipped}")
        if conv.groups not in (None, 1):
            raise ValueError(f"{conv.layer} has {conv.groups} groups; only convolutions over all channels are expanded")
    (n, m, y, x), (outputs, c, v, u) = second.shape, first.shape
    if m != outputs:
        raise ValueError(
            f"{second.layer} takes {m} channels and {first.layer} gives {outputs}; name the convolution right before it"
        )
    shape = (n, c, y + v - 1, x + u - 1)
    return replace(
        second,
        layer=f"{second.layer} through {first.layer}",
        shape=shape,
        skipped=why_skipped(shape, groups=1),
        read=lambda: expand(torch.as_tensor(second.read()).float(), torch.as_tensor(first.read()).float()),
    )
