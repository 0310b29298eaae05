"""CIFAR from its authors' files. Never downloads anything."""

from pathlib import Path

import numpy as np
import torchvision
from PIL import Image

from sweep.data.arrays import Arrays
from sweep.data.augment import Flipped
from sweep.data.folders import stored_side

TRAIN_IMAGES = 50_000  # of both kinds; torchvision checks the files' digests


class CifarOptions(Flipped):
    """CIFAR has no options of its own."""


def open_cifar(kind: type[torchvision.datasets.CIFAR10], root: Path, train: bool) -> torchvision.datasets.CIFAR10:
    """torchvision's CIFAR from its extracted files.

    Raises:
        ValueError: the files are missing; the message says what to put where.
    """
    try:
        return kind(str(root), train=train, download=False)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"{root} does not hold {kind.__name__}; extract its archive there so that {root / kind.base_folder} exists"
        ) from error


def make_cifar(kind: type[torchvision.datasets.CIFAR10], image_size: int, root: Path) -> Arrays:
    """CIFAR's images resized to the stored square."""
    side = stored_side(image_size)
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
        fingerprint=kind.tgz_md5,
    )
