"""Replace the kernels of a convolution by simpler ones: what a network then loses says what it used.

Axis letters: `n` neurons, `c` input channels, `y x` kernel rows and columns, `p` positions (y, x flattened).
A banded kernel hardly changes when each of its rows is replaced by the row's mean, and loses its bands when each of its
columns is. The mean of the whole kernel keeps which channels a neuron sees, but not where; shuffled positions keep what
it sees where, but in another order.

Source: ours.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Kernels = Float[Tensor, "n c y x"]
Change = Literal["none", "row_means", "column_means", "mean", "shuffled"]


def keep(kernels: Kernels, generator: Generator) -> Kernels:
    """The kernels as they are."""
    return kernels


def row_means(kernels: Kernels, generator: Generator) -> Kernels:
    """Each row of each kernel replaced by its mean."""
    return kernels.mean(dim=3, keepdim=True).expand_as(kernels)


def column_means(kernels: Kernels, generator: Generator) -> Kernels:
    """Each column of each kernel replaced by its mean."""
    return kernels.mean(dim=2, keepdim=True).expand_as(kernels)


def means(kernels: Kernels, generator: Generator) -> Kernels:
    """Each kernel replaced by its mean."""
    return kernels.mean(dim=(2, 3), keepdim=True).expand_as(kernels)


def shuffled(kernels: Kernels, generator: Generator) -> Kernels:
    """The positions of each neuron's kernels in a random order, the same for all of its channels."""
    n, c, ky, kx = kernels.shape
    order = torch.rand(n, ky * kx, generator=generator).argsort(dim=1).to(kernels.device)
    return kernels.flatten(2).gather(2, order[:, None].expand(n, c, ky * kx)).reshape(kernels.shape)


CHANGES: dict[Change, Callable[[Kernels, Generator], Kernels]] = {
    "none": keep,
    "row_means": row_means,
    "column_means": column_means,
    "mean": means,
    "shuffled": shuffled,
}
