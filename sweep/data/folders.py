"""Labelled pictures on disk in class folders: your own, ImageNet, Imagenette. Never downloads anything.

A folder is scanned into one list of pictures; that list is both fingerprinted and read.
Pictures are stored as squares of 8/7 of the training size; training takes random windows and mirrors them at random,
validation takes the window in the middle. Square, share and policy are ours: the article does not say which it used.
Axis letters: `h w` image rows and columns.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from pydantic import Field

from sweep.data.arrays import Batch
from sweep.data.augment import Flipped, mirror
from sweep.data.index import examine_all
from sweep.data.pictures import Examined, shown
from sweep.data.policy import Examine, Usable, fingerprint, listed, named, usable
from sweep.data.remote import Pictures
from sweep.data.split import Split, find_split
from sweep.data.walk import folders_in, pictures_below

_STORED = 8 / 7
Labelled = list[tuple[str, int]]
"""Names of pictures, each with the number of its class."""


class FolderOptions(Flipped):
    """`val_share`: share of each class held out where the folder has no `train` and `val` of its own."""

    val_share: float = Field(0.1, gt=0, lt=1)


class Item(NamedTuple):
    """A picture: its name relative to the root, the number of its class, what it holds."""

    name: str
    label: int
    examined: Examined


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """The pictures of a data set, class by class in order of name; `val` is None where some must be held out."""

    root: Pictures
    split: Split
    train: list[Item]
    val: list[Item] | None
    left_out: dict[str, str]
    changed: list[str]
    remarks: list[str]

    @property
    def fingerprint(self) -> str:
        """A digest of the names and contents of all pictures; how the split's folders are spelt doesn't matter."""
        parts = {"train": self.train, "val": self.val} if self.val is not None else {"": self.train}
        folders = {"train": self.split.train, "val": self.split.val or "", "": ""}
        return fingerprint(
            (f"{part}{item.name.removeprefix(folders[part])}", item.examined)
            for part, items in parts.items()
            for item in items
        )

    @property
    def former_fingerprint(self) -> str | None:
        """The digest before contents counted: of names and sizes; None where levels used to be read differently."""
        items = self.train + (self.val or [])
        if any(item.examined.levels for item in items):
            return None
        digest = hashlib.sha256()
        for name in sorted((item.name for item in items), key=lambda name: name.split("/")):
            digest.update(f"{name}\0{(self.root / name).stat().st_size}\0".encode())
        return digest.hexdigest()

    def parts(self, val_share: float) -> tuple[Labelled, Labelled]:
        """Training and validation pictures."""
        train, val = ([(item.name, item.label) for item in items] for items in (self.train, self.val or []))
        return (train, val) if self.val is not None else _held_out(train, val_share)

    def count_for_training(self, val_share: float) -> int:
        """How many pictures there are to train on."""
        return len(self.train) if self.val is not None else len(self.parts(val_share)[0])

    def understood(self, val_share: float) -> list[str]:
        """How the folder was understood, in words."""
        names, split = self.split.classes, self.split
        train, val = self.parts(val_share)
        where = (
            f"training from {shown(split.train)}, validation from {shown(split.val)}"
            if split.val is not None
            else f"no split of its own: about {val_share:.0%} of each class held out for validation"
        )
        return [
            f"{len(names):,} classes: {listed(names)}; {where}",
            f"{_counted(train, names)} for training, {_counted(val, names)} for validation",
        ]


def scan_classes(root: Pictures, name: str, classes: int | None, examine: Examine = examine_all) -> ClassFolders:
    """Find and examine the pictures of class folders below `root`, or below its folders for training and validation.

    Raises:
        ValueError: the folder is missing or has another layout, or a class has no picture to train on; the message
            says what to put where.
    """
    layout = f"{name} needs a folder with train/CLASS/*.jpg and val/CLASS/*.jpg"
    if classes is None:
        layout += ", or CLASS/*.jpg alone"
    if not root.is_dir():
        raise ValueError(f"data.root={shown(root)!r} is not a folder; {layout}")
    split = find_split(root)
    if split.val is None and classes is not None:
        raise ValueError(f"{shown(root)} has no folders train and val; {layout}")
    _require_classes(root, split, classes, layout)
    items, chosen = _items(root, split, examine)
    train = items[split.train]
    val = None if split.val is None else items[split.val]
    _require_pictures(root, split, train, val, chosen.left_out)
    remarks = [*split.remarks, *_without_validation(split, val), *chosen.remarks]
    return ClassFolders(
        root=root, split=split, train=train, val=val, left_out=chosen.left_out, changed=chosen.changed, remarks=remarks
    )


def stored_side(image_size: int) -> int:
    """The side of the stored square, in pixels."""
    return round(image_size * _STORED)


def mirror_images(options: Flipped, batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror images at random."""
    images, labels = batch
    return mirror(images, options.flip, generator)[0], labels


def _require_classes(root: Pictures, split: Split, classes: int | None, layout: str) -> None:
    names = split.classes
    if len(names) >= 2 and (classes is None or len(names) == classes):
        return
    base = root / split.train
    inner = [name for name in names if split.val is None and len(folders_in(base / name)[0]) > 1]
    hint = f"; did you mean {shown(base / inner[0])}?" if inner else ""
    raise ValueError(f"{shown(base)} holds {len(names)} class folders, not {classes or 'two or more'}; {layout}{hint}")


def _items(root: Pictures, split: Split, examine: Examine) -> tuple[dict[str, list[Item]], Usable]:
    """The usable pictures of each part, and everything that was left out."""
    parts = [part for part in (split.train, split.val) if part is not None]
    belongs: dict[str, tuple[str, int]] = {}
    for part in parts:
        for label, name in enumerate(split.classes):
            folder = split.folder(part, name)
            if (root / folder).is_dir():  # a class missing from validation is among the remarks
                inside = pictures_below(root, folder)
                belongs.update(dict.fromkeys(inside.names, (part, label)))
                split.found.add(inside)
    chosen = usable(root, split.found, examine=examine)
    items: dict[str, list[Item]] = {part: [] for part in parts}
    for name, examined in chosen.examined.items():
        part, label = belongs[name]
        items[part].append(Item(name, label, examined))
    return items, chosen


def _require_pictures(
    root: Pictures, split: Split, train: list[Item], val: list[Item] | None, left_out: dict[str, str]
) -> None:
    """Refuse a class with no picture to learn from; where some are held out, one picture is too few."""
    least = 2 if val is None else 1
    counts = Counter(item.label for item in train)
    lacking = [name for label, name in enumerate(split.classes) if counts[label] < least]
    if lacking:
        inside = tuple(split.folder(split.train, name) + "/" for name in lacking)
        unusable = {name: reason for name, reason in left_out.items() if name.startswith(inside)}
        why = f" (can't be used: {named(unusable, 5)})" if unusable else ""
        held = " once one is held out for validation" if val is None else ""
        raise ValueError(
            f"{shown(root / split.train)}: no usable picture to train on{held} in {len(lacking)} of "
            f"{len(split.classes)} classes: {listed(lacking)}{why}; add pictures or remove the folders"
        )
    if val is not None and not val:
        raise ValueError(
            f"{shown(root / str(split.val))} holds no usable picture of the classes of {shown(split.train)}; "
            "put them into folders of the same names"
        )


def _without_validation(split: Split, val: list[Item] | None) -> list[str]:
    """A remark about classes whose validation folder holds no picture."""
    labels = {item.label for item in val or []}
    lacking = [name for label, name in enumerate(split.classes) if val is not None and label not in labels]
    return [f"classes without a picture in {shown(str(split.val))}: {listed(lacking)}"] if lacking else []


def _counted(pictures: Labelled, names: Sequence[str]) -> str:
    """How many pictures there are, and how many in the smallest and the largest class."""
    counts = Counter(label for _, label in pictures)
    few, many = (choose(range(len(names)), key=lambda label: counts[label]) for choose in (min, max))
    if counts[few] == counts[many]:
        return f"{len(pictures):,} pictures ({counts[few]:,} per class)"
    spread = f"{counts[few]:,} ({shown(names[few])}) to {counts[many]:,} ({shown(names[many])}) per class"
    return f"{len(pictures):,} pictures ({spread})"


def _held_out(pictures: Labelled, val_share: float) -> tuple[Labelled, Labelled]:
    """Every k-th picture of each class is held out, at least one."""
    every = max(2, round(1 / val_share))
    seen: Counter[int] = Counter()
    train, val = Labelled(), Labelled()
    for item in pictures:
        (train if seen[item[1]] % every else val).append(item)
        seen[item[1]] += 1
    return train, val
