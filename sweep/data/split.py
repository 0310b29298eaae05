"""Which folders of a class-folder data set are its classes, and which its training and validation parts."""

import re
from dataclasses import dataclass
from typing import Literal

from sweep.data.pictures import shown
from sweep.data.policy import listed
from sweep.data.remote import Pictures
from sweep.data.walk import Found, folders_in

Role = Literal["train", "val", "test"]
_SPELLINGS: dict[str, Role] = {
    "train": "train", "training": "train", "trainset": "train", "trn": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "valset": "val", "dev": "val",
    "test": "test", "testing": "test", "testset": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Split:
    """The folders of the parts; without parts, `train` is the root itself (empty) and `val` is None.

    `found` holds what lies beside the classes' folders.
    """

    train: str
    val: str | None
    classes: list[str]
    found: Found
    remarks: list[str]

    def folder(self, part: str, name: str) -> str:
        return f"{part}/{name}" if part else name


def find_split(root: Pictures) -> Split:
    """Read the layout of a folder: `train/CLASS` and `val/CLASS` in any usual spelling, or `CLASS` alone.

    A folder counts as a part by its name and by what lies in it: a class may well be called "train".

    Raises:
        ValueError: it is ambiguous.
    """
    folders, found = folders_in(root)
    parts = _parts(root, folders)
    if parts is None:
        return Split("", None, folders, found, _in_no_class(found))
    train, val = parts
    classes, val_classes = (_below(root, part, found) for part in parts)
    remarks = [*_differences(classes, val_classes, train, val), *_in_no_class(found)]
    if unused := [name for name in folders if name not in parts]:
        remarks.append(f"not used, beside {shown(train)} and {shown(val)}: {listed(unused)}")
    return Split(train, val, classes, found, remarks)


def _below(root: Pictures, part: str, found: Found) -> list[str]:
    """The class folders of a part; what else lies there is added to what was found."""
    classes, beside = folders_in(root / part)
    found.names.extend(f"{part}/{name}" for name in beside.names)
    found.skipped.extend(f"{part}/{name}" for name in beside.skipped)
    found.left_out.update({f"{part}/{name}": reason for name, reason in beside.left_out.items()})
    return classes


def _in_no_class(found: Found) -> list[str]:
    """Remove pictures that lie beside the class folders, and report them."""
    loose = sorted(found.names)
    found.names.clear()
    return [f"not used, since they are in no class folder: {listed(loose)}"] if loose else []


def _differences(classes: list[str], val_classes: list[str], train: str, val: str) -> list[str]:
    remarks = []
    if lacking := sorted(set(classes) - set(val_classes)):
        remarks.append(f"classes without a folder in {shown(val)}: {listed(lacking)}")
    if unknown := sorted(set(val_classes) - set(classes)):
        remarks.append(f"not used, since {shown(train)} has no such class: {listed([f'{val}/{n}' for n in unknown])}")
    return remarks


def _parts(root: Pictures, folders: list[str]) -> tuple[str, str] | None:
    """The folders for training and validation, or None where the folders are classes."""
    exact = {name: _SPELLINGS[name.lower()] for name in folders if name.lower() in _SPELLINGS}
    if {"train"} < set(exact.values()):
        return _chosen(root, exact)
    loose = {name: role for name in folders if (role := _loose_role(name))}
    if {"train"} < set(loose.values()):
        if all(_holds_folders(root / name) for name in loose):
            return _chosen(root, loose)
        if len(loose) == len(folders):
            raise ValueError(
                f"{shown(root)}: {listed(list(loose))} are named like parts of a split but hold no class folders; "
                "put their pictures into train/CLASS and val/CLASS"
            )
        return None
    halves = [name for name in exact if _holds_folders(root / name)]
    if halves or (exact and len(exact) == len(folders)):
        half = (halves or list(exact))[0]
        raise ValueError(
            f"{shown(root)} has a folder {shown(half)} but not the other of train and val; "
            "add it, or give the folder that contains the class folders"
        )
    return None


def _chosen(root: Pictures, roles: dict[str, Role]) -> tuple[str, str]:
    """One folder for each part; validation is the part named so, else the test set."""
    by_role = {role: [name for name, its in roles.items() if its == role] for role in ("train", "val", "test")}
    trains, vals = by_role["train"], by_role["val"] or by_role["test"]
    for names in (trains, vals):
        if len(names) > 1:
            raise ValueError(f"{shown(root)} has {listed(names)}, which are the same part; keep one of them")
    return trains[0], vals[0]


def _loose_role(name: str) -> Role | None:
    """The role of a name such as train2017, imagenet_train or test_set."""
    roles = {_SPELLINGS[word] for word in re.findall("[a-z]+", name.lower()) if word in _SPELLINGS}
    return roles.pop() if len(roles) == 1 else None


def _holds_folders(folder: Pictures) -> bool:
    return bool(folders_in(folder)[0])
