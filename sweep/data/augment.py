"""Random changes that several data sets share; all randomness comes from the generator.

Axis letters: `b` images, `h w` image rows and columns, `s` side of the window taken.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

Images = Float[Tensor, "b 3 h w"]


def mirror(images: Images, generator: Generator) -> tuple[Images, Bool[Tensor, " b"]]:
    """Mirror each image left-right with probability 1/2; also returns which were mirrored."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images), mirrored


def random_window(images: Images, side: int, generator: Generator) -> Float[Tensor, "b 3 s s"]:
    """A square window of each image at a random place; images of that size stay whole and draw nothing."""
    b, _, h, w = images.shape
    if (h, w) == (side, side):
        return images
    top, left = (torch.randint(free + 1, (b, 1), generator=generator) for free in (h - side, w - side))
    rows, columns = ((start + torch.arange(side)).to(images.device) for start in (top, left))
    index = torch.arange(b, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def centre_window(images: Images, side: int) -> Float[Tensor, "b 3 s s"]:
    """The square window in the middle of each image."""
    top, left = ((length - side) // 2 for length in images.shape[-2:])
    return images[..., top : top + side, left : left + side]
