"""Random changes that several data sets share; all randomness comes from the generator.

Axis letters: `b` images, `h w` image rows and columns, `s` side of the window taken.
"""

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Generator, Tensor

Images = Float[Tensor, "b 3 h w"]


def mirror(images: Images, generator: Generator) -> tuple[Images, Bool[Tensor, " b"]]:
    """Mirror each image left-right with probability 1/2; also returns which were mirrored."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images), mirrored


def random_corners(number: int, stored: tuple[int, int], side: int, generator: Generator) -> Int64[Tensor, "b 2"]:
    """Top row and left column of a square window of each image; images of that size stay whole and draw nothing."""
    if stored == (side, side):
        return torch.zeros(number, 2, dtype=torch.int64)
    return torch.cat([torch.randint(length - side + 1, (number, 1), generator=generator) for length in stored], dim=1)


def cut_windows(images: UInt8[Tensor, "b 3 h w"], corners: Int64[Tensor, "b 2"], side: int) -> UInt8[Tensor, "b 3 s s"]:
    """A square window of each image."""
    index = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (corners[:, axis, None] + torch.arange(side, device=images.device) for axis in (0, 1))
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def centre_window(images: UInt8[Tensor, "b 3 h w"], side: int) -> UInt8[Tensor, "b 3 s s"]:
    """The square window in the middle of each image."""
    top, left = ((length - side) // 2 for length in images.shape[-2:])
    return images[..., top : top + side, left : left + side]
