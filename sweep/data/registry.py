"""The data sets by name. To add one: write functions like those of `scenes`, add an entry to `DATASETS`.

`Options` below is the data set's own pydantic model; each entry's functions take the same one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel
from torch import Generator, Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from sweep.data.arrays import Arrays, Batch
from sweep.data.cifar import TRAIN_IMAGES, CifarOptions, make_cifar, open_cifar
from sweep.data.crops import CropsOptions, augment_crops, make_crops, scan_folder
from sweep.data.folders import ClassFolders, FolderOptions, mirror_images, scan_classes
from sweep.data.index import examine_all
from sweep.data.policy import Examine, named
from sweep.data.remote import Pictures
from sweep.data.scenes import ScenesOptions, flip_scenes, make_scenes, scene_classes
from sweep.data.set_index import SetIndex


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was found where the images come from.

    `train_images` is how many images there are to train on, where that is known. `understood` says how it was read,
    `remarks` what else the user should know. `left_out` maps pictures that can't be used to the reason; names are
    relative to the root.
    """

    num_classes: int
    train_images: int | None = None
    fingerprint: str | None = None
    understood: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def require_all_usable(self) -> None:
        """Raise a `ValueError` that names all files that would be left out."""
        if self.left_out:
            every = named(self.left_out, len(self.left_out))
            pictures = "1 picture" if len(self.left_out) == 1 else f"{len(self.left_out)} pictures"
            raise ValueError(f"{pictures} can't be used: {every}; fix or remove them")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """How to check a data set's source, make its arrays, and augment a training batch; `what` says what it shows.

    `options` derived from `sweep.data.augment.Flipped` have the option that interventions on flips need.
    A data set of class folders has `scan` instead of `make`: its pictures are stored one by one.
    A pixel level `p` (0 to 255) becomes `(p - level_zero) / level_unit`.
    """

    what: str
    options: type[BaseModel]
    inspect: Callable[[Any, Path | None], Source]
    augment: Callable[[Any, Batch, Generator], Batch]
    level_zero: float
    level_unit: float
    source: str
    make: Callable[[Any, int, int, Path | None], Arrays] | None = None
    scan: Callable[[Pictures, Examine], ClassFolders] | None = None

    def read_options(self, values: dict[str, Any]) -> BaseModel:
        """Options from their values; an unknown key is an error, whatever the model allows.

        Raises:
            ValidationError: a key or a value is wrong.
        """
        return self.options.model_validate(values, extra="forbid")

    def normalise(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return images.to(torch.float32).sub_(self.level_zero).div_(self.level_unit)

    def levels(self, images: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
        """Pixel levels of normalised images."""
        return (images * self.level_unit + self.level_zero).round().clamp(0, 255).to(torch.uint8)


def source_of(options: FolderOptions, scan: ClassFolders) -> Source:
    """What was found in class folders."""
    return Source(
        num_classes=len(scan.split.classes),
        train_images=scan.count_for_training(options.val_share),
        fingerprint=scan.fingerprint,
        understood=scan.understood(options.val_share),
        remarks=scan.remarks,
        left_out=scan.left_out,
    )


def source_of_set(index: SetIndex) -> Source:
    """What was found when a set was prepared."""
    total = index.train_images + index.val_images + len(index.left_out)
    left_out = f"left out {len(index.left_out):,} of {total:,} pictures: {named(index.left_out)}"
    return Source(
        num_classes=index.spec.num_classes,
        train_images=index.train_images,
        fingerprint=index.spec.fingerprint,
        understood=index.understood,
        remarks=[left_out] if index.left_out else [],
        left_out=index.left_out,
    )


def _inspect_scenes(options: ScenesOptions, root: Path | None) -> Source:
    if root is not None:
        raise ValueError("this data set is generated, not read; remove data.root")
    return Source(num_classes=len(scene_classes(options)), train_images=options.train_images)


def _make_scenes(options: ScenesOptions, image_size: int, seed: int, root: Path | None) -> Arrays:
    return make_scenes(options, image_size, seed)


def _need_root(root: Path | None) -> Path:
    if root is None:
        raise ValueError("this data set is read from a folder: --set data.root=FOLDER")
    return root.expanduser()


def _inspect_crops(options: CropsOptions, root: Path | None) -> Source:
    folder = scan_folder(_need_root(root))
    return Source(
        num_classes=len(folder.pictures),
        train_images=options.train_images,
        fingerprint=folder.fingerprint,
        understood=[f"{len(folder.pictures):,} pictures, each a class of its own"],
        remarks=folder.remarks,
        left_out={str(path.relative_to(folder.root)): reason for path, reason in folder.unreadable.items()},
    )


def _make_crops(options: CropsOptions, image_size: int, seed: int, root: Path | None) -> Arrays:
    folder = scan_folder(_need_root(root))
    return replace(make_crops(options, image_size, seed, folder.pictures), fingerprint=folder.fingerprint)


def _folders(name: str, classes: int | None, what: str, source: str) -> Dataset:
    """A data set of class folders, with a known number of classes or any."""

    def scan(root: Pictures, examine: Examine) -> ClassFolders:
        return scan_classes(root, name, classes, examine)

    def inspect(options: FolderOptions, root: Path | None) -> Source:
        return source_of(options, scan(_need_root(root), examine_all))

    return Dataset(
        what=what, options=FolderOptions, inspect=inspect, scan=scan, augment=mirror_images,
        level_zero=118.0, level_unit=58.0, source=source,
    )  # fmt: skip


def _cifar(kind: type[CIFAR10], classes: int) -> Dataset:
    def inspect(options: CifarOptions, root: Path | None) -> Source:
        open_cifar(kind, _need_root(root), train=False)
        return Source(num_classes=classes, train_images=TRAIN_IMAGES, fingerprint=kind.tgz_md5)

    def make(options: CifarOptions, image_size: int, seed: int, root: Path | None) -> Arrays:
        return make_cifar(kind, image_size, _need_root(root))

    return Dataset(
        what=f"{classes} classes of small photographs, 32 pixels wide",
        options=CifarOptions, inspect=inspect, make=make, augment=mirror_images,
        level_zero=120.0, level_unit=63.0, source="Krizhevsky 2009, torchvision",
    )  # fmt: skip


DATASETS: dict[str, Dataset] = {
    "scenes": Dataset(
        what="synthetic scenes of three textured discs, generated, not read",
        options=ScenesOptions, inspect=_inspect_scenes, make=_make_scenes, augment=flip_scenes,
        level_zero=128.0, level_unit=42.0, source="ours",
    ),
    "crops": Dataset(
        what="random crops of any folder of pictures; each picture is a class",
        options=CropsOptions, inspect=_inspect_crops, make=_make_crops, augment=augment_crops,
        level_zero=128.0, level_unit=32.0, source="exemplar training, Dosovitskiy et al. 2014",
    ),
    "folder": _folders("folder", None, "pictures in class folders, any number of classes", "your own"),
    "imagenet": _folders("imagenet", 1000, "ImageNet's 1000 classes, in class folders", "Russakovsky et al. 2015"),
    "imagenette": _folders("imagenette", 10, "ten easy classes of ImageNet, in class folders", "Howard 2019"),
    "cifar10": _cifar(CIFAR10, 10),
    "cifar100": _cifar(CIFAR100, 100),
}  # fmt: skip
