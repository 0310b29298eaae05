"""Random changes that several data sets share; all randomness comes from the generator.

Axis letters: `b` images, `h w` image rows and columns, `s` side of the window taken.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from pydantic import BaseModel, ConfigDict, model_serializer
from torch import Generator, Tensor

from models.names import Flip
from sweep.spec import USUAL_FLIP

Images = Float[Tensor, "b 3 h w"]
_AXES: dict[Flip, int] = {"left_right": -1, "top_bottom": -2}


class Flipped(BaseModel):
    """Options that all data sets have: `flip` says how training images are mirrored, each with probability 1/2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: Flip = USUAL_FLIP

    @model_serializer(mode="wrap")
    def _where_it_is_said(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The usual flip is not written, so that ids of before there was a choice do not change."""
        values = serialize(self)
        if values.get("flip") == USUAL_FLIP:
            del values["flip"]
        return values


def mirror(images: Images, flip: Flip, generator: Generator) -> tuple[Images, Bool[Tensor, " b"]]:
    """Mirror each image with probability 1/2; also returns which were mirrored. Without a flip, nothing is drawn."""
    if flip == "none":
        return images, torch.zeros(len(images), dtype=torch.bool, device=images.device)
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(_AXES[flip]), images), mirrored


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
