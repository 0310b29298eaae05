"""Labelled pictures on disk: class folders, ImageNet, Imagenette, CIFAR. Never downloads anything.

Pictures are stored as squares of 8/7 of the training size; training takes random windows of them and mirrors,
validation the window in the middle. Square, share and policy are ours: the article does not say which it used.
Axis letters: `h w` image rows and columns.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from sweep.data.arrays import Arrays, Batch, Pictures
from sweep.data.augment import mirror
from sweep.data.pictures import SUFFIXES, open_picture

_STORED = 8 / 7
Labelled = list[tuple[Path, int]]


class FolderOptions(BaseModel):
    """`val_share`: part of each class held out where the folder has no `train` and `val` of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    val_share: float = Field(0.1, gt=0, lt=1)


class CifarOptions(BaseModel):
    """CIFAR has no options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def scan_classes(root: Path, name: str, classes: int | None) -> tuple[list[str], str]:
    """Class names and a fingerprint (of names and sizes) of class folders below `root`, or below `root/train`.

    Raises:
        ValueError: the folder is missing or not laid out so; the message says what to put where.
    """
    layout = f"{name} needs a folder with train/CLASS/*.jpg and val/CLASS/*.jpg"
    if classes is None:
        layout += ", or CLASS/*.jpg alone"
    if not root.is_dir():
        raise ValueError(f"data.root={str(root)!r} is not a folder; {layout}")
    parts = [name for name in ("train", "val") if (root / name).is_dir()]
    if len(parts) == 1:
        raise ValueError(f"{root} has a folder {parts[0]} but not the other of train and val; {layout}")
    split = len(parts) == 2
    if not split and classes is not None:
        raise ValueError(f"{root} has no folders train and val; {layout}")
    base = root / "train" if split else root
    names = sorted(path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2 or (classes is not None and len(names) != classes):
        raise ValueError(f"{base} holds {len(names)} class folders, not {classes or 'two or more'}; {layout}")
    digest = hashlib.sha256()
    for path in _pictures(root):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
    return names, digest.hexdigest()


def make_folders(options: FolderOptions, image_size: int, root: Path, names: list[str]) -> Arrays:
    """The pictures of class folders as training and validation images."""
    if (root / "train").is_dir() and (root / "val").is_dir():
        train, val = (_labelled(root / part, names) for part in ("train", "val"))
    else:
        train, val = _held_out(_labelled(root, names), options.val_share)
    side = round(image_size * _STORED)
    load = partial(_load_square, side=side)
    return Arrays(
        train_images=Pictures([path for path, _ in train], (3, side, side), load),
        train_labels=np.array([label for _, label in train], dtype=np.int64),
        val_images=Pictures([path for path, _ in val], (3, side, side), load),
        val_labels=np.array([label for _, label in val], dtype=np.int64),
        class_names=names,
    )


def open_cifar(kind: type[torchvision.datasets.CIFAR10], root: Path, train: bool) -> torchvision.datasets.CIFAR10:
    """torchvision's CIFAR from its extracted files.

    Raises:
        ValueError: they are not there; the message says what to put where.
    """
    try:
        return kind(str(root), train=train, download=False)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"{root} does not hold {kind.__name__}; extract its archive there so that {root / kind.base_folder} exists"
        ) from error


def make_cifar(kind: type[torchvision.datasets.CIFAR10], image_size: int, root: Path) -> Arrays:
    """CIFAR's images resized to the stored square."""
    side = round(image_size * _STORED)
    train, val = (open_cifar(kind, root, train) for train in (True, False))

    def resized(data: np.ndarray) -> np.ndarray:
        images = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)) for image in data]
        return np.stack(images).transpose(0, 3, 1, 2)

    return Arrays(
        train_images=resized(train.data),
        train_labels=np.array(train.targets, dtype=np.int64),
        val_images=resized(val.data),
        val_labels=np.array(val.targets, dtype=np.int64),
        class_names=list(train.classes),
    )


def mirror_images(options: BaseModel, batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror each image left-right with probability 1/2."""
    images, labels = batch
    return mirror(images, generator)[0], labels


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _labelled(folder: Path, names: list[str]) -> Labelled:
    found = [(path, label) for label, name in enumerate(names) for path in _pictures(folder / name)]
    if not found:
        raise ValueError(f"{folder} holds no picture ending in {', '.join(SUFFIXES)}")
    return found


def _held_out(pictures: Labelled, val_share: float) -> tuple[Labelled, Labelled]:
    """Every k-th picture of each class is held out, at least one."""
    every = max(2, round(1 / val_share))
    labels = sorted({label for _, label in pictures})
    classes = [[item for item in pictures if item[1] == label] for label in labels]
    held = {item for part in classes for item in part[::every]}
    return [item for item in pictures if item not in held], [item for item in pictures if item in held]


def _load_square(path: Path, side: int) -> np.ndarray:
    """The largest square in the middle of a picture, resized; uint8[3, side, side]."""
    try:
        picture = ImageOps.fit(open_picture(path, 2 * side), (side, side))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"can't read {path} ({error}); remove it and launch again") from error
    return np.asarray(picture).transpose(2, 0, 1)
