"""Random crops from a folder of pictures: each picture is a class, so any folder of photographs is a data set.

Exemplar training after Dosovitskiy et al. 2014 (arXiv:1406.6909); the numbers are ours, measured on desktop wallpapers.
Axis letters: `n` images, `h w` image rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from sweep.data.arrays import Arrays, Batch
from sweep.data.augment import Flipped, mirror
from sweep.data.pictures import Examined, decoders, reopen_picture, shown
from sweep.data.policy import fingerprint, named, usable
from sweep.data.walk import pictures_below

MIN_PICTURES = 10
_KEPT_SIDE = 320  # pixels of the shorter side kept in memory: the smallest crop, 0.45 of it, still has 144


class CropsOptions(Flipped):
    """How crops are taken from each picture.

    `crop_low`, `crop_high`: range of the crop's side as a share of the picture's shorter side. `colour`: highest share
    of colour mixed into the grey crop (colour alone would name the picture). `contrast_low`, `contrast_high`:
    range of each crop's standard deviation; `brightness`: bound of its mean; `noise`: standard deviation of the
    pixel noise, all three in units of a standardised crop.
    """

    crop_low: float = Field(0.45, gt=0, le=1)
    crop_high: float = Field(0.95, gt=0, le=1)
    colour: float = Field(0.3, ge=0, le=1)
    contrast_low: float = Field(0.6, gt=0)
    contrast_high: float = Field(1.4, gt=0)
    brightness: float = Field(0.3, ge=0)
    noise: float = Field(0.15, ge=0)
    train_images: int = Field(8000, ge=1)
    val_images: int = Field(1000, ge=1)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The usable pictures of a folder, in order of name; `unreadable` maps the others to their reasons."""

    root: Path
    pictures: tuple[Path, ...]
    unreadable: dict[Path, str]
    fingerprint: str
    remarks: list[str]


def scan_folder(root: Path) -> Folder:
    """Find the pictures below `root`, check that each can be decoded, and hash their names and bytes.

    Raises:
        ValueError: the folder is missing, holds fewer than 10 usable pictures, or more unusable ones than usable ones.
    """
    if not root.is_dir():
        raise ValueError(f"data.root={shown(root)!r} is not a folder; give a folder of pictures")
    chosen = usable(root, pictures_below(root, ""), accepts=_differs_within)
    if len(chosen.examined) < MIN_PICTURES:
        others = f" ({named(chosen.left_out, 5)} can't be used)" if chosen.left_out else ""
        raise ValueError(
            f"{shown(root)} holds {len(chosen.examined)} usable pictures{others}; at least {MIN_PICTURES} are needed: "
            "add pictures"
        )
    return Folder(
        root=root,
        pictures=tuple(root / name for name in chosen.examined),
        unreadable={root / name: reason for name, reason in chosen.left_out.items()},
        fingerprint=fingerprint(chosen.examined.items()),
        remarks=chosen.remarks,
    )


def _differs_within(seen: Examined) -> str | None:
    return "one flat colour: its crops look like those of any other flat picture" if seen.flat else None


def make_crops(options: CropsOptions, image_size: int, seed: int, pictures: Sequence[Path]) -> Arrays:
    """Draw training and validation crops, the same number from each picture, give or take one."""
    crops_of = partial(_crops_of, options, image_size, seed, len(pictures))
    with decoders() as pool:
        parts = list(pool.map(crops_of, range(len(pictures)), pictures))
    train, val = ([part[i] for part in parts] for i in (0, 1))
    return Arrays(
        train_images=np.concatenate(train),
        train_labels=_labels(train),
        val_images=np.concatenate(val),
        val_labels=_labels(val),
        class_names=[path.name for path in pictures],
    )


def augment_crops(options: CropsOptions, batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror images at random and add pixel noise."""
    images, labels = mirror(batch[0], options.flip, generator)[0], batch[1]
    if images.device.type == "cuda":  # drawing millions of numbers on the host would take longer than a step
        generator = torch.Generator(images.device).manual_seed(generator.initial_seed())
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + options.noise * noise, labels


def _labels(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.repeat(np.arange(len(parts), dtype=np.int64), [len(part) for part in parts])


def _crops_of(
    options: CropsOptions, image_size: int, seed: int, classes: int, label: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation crops of one picture, each uint8[n, 3, h, w]: 128 is zero, 32 levels are one."""
    picture = _load(path)
    rng = np.random.default_rng([seed, label])
    shares = [len(range(label, total, classes)) for total in (options.train_images, options.val_images)]
    train, val = ([_crop(options, picture, image_size, rng) for _ in range(share)] for share in shares)
    empty = np.empty((0, 3, image_size, image_size), dtype=np.uint8)
    return np.stack(train) if train else empty, np.stack(val) if val else empty


def _crop(options: CropsOptions, picture: Image.Image, image_size: int, rng: np.random.Generator) -> np.ndarray:
    width, height = picture.size
    side = rng.uniform(options.crop_low, options.crop_high) * min(width, height)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    box = (left, top, left + side, top + side)
    small = picture.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    rgb = np.asarray(small, dtype=np.float32).transpose(2, 0, 1)
    grey = rgb.mean(axis=0, keepdims=True)
    mixed = grey + rng.uniform(0, options.colour) * (rgb - grey)
    standard = (mixed - mixed.mean()) / (mixed.std() + 1.0)  # a flat crop stays flat; its noise isn't blown up
    contrast = rng.uniform(options.contrast_low, options.contrast_high)
    crop = standard * contrast + rng.uniform(-options.brightness, options.brightness)
    return np.clip(np.rint(crop * 32 + 128), 0, 255).astype(np.uint8)


def _load(path: Path) -> Image.Image:
    picture = reopen_picture(path, 2 * _KEPT_SIDE)
    scale = _KEPT_SIDE / min(picture.size)
    if scale >= 1:
        return picture
    width, height = (round(length * scale) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)
