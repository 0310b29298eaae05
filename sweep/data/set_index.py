"""A prepared set: shards of images, the rows and labels of its two parts, and an index of all that, written last.

```
images-00000.npy ...   uint8[n, 3, h, w], at most 64 MiB each: the pictures that can be decoded, in the source's order
train.npy, val.npy     int64[2, n]: which images of all shards, counted through, and their labels
index.json             the DataSpec, the class names, what was understood and left out; size and sha256 of each file
```
It is the same in a node's cache, in a shared folder and at a URL.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from sweep.data.place import Folder, UnreachableError, folders_below, is_url, read_bytes
from sweep.spec import DataSpec

FORMAT = 1
INDEX = "index.json"
TRAIN, VAL = "train.npy", "val.npy"
_NAME = re.compile(r"images-\d{5,}\.npy|train\.npy|val\.npy")


class WrongIndexError(ValueError):
    """An index is damaged, or was written by another version."""


@dataclass(frozen=True)
class File:
    """A file's size in bytes and the digest of its content."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SetIndex:
    """What a prepared set holds. `left_out` maps pictures that can't be used to the reason."""

    spec: DataSpec
    class_names: list[str]
    train_images: int
    val_images: int
    understood: list[str]
    left_out: dict[str, str]
    files: dict[str, File]

    @property
    def shards(self) -> list[str]:
        """The names of the files with images, in order."""
        return sorted(set(self.files) - {TRAIN, VAL}, key=lambda name: (len(name), name))

    @property
    def size(self) -> int:
        """Size of all files in bytes, but for the index."""
        return sum(file.size for file in self.files.values())

    def to_bytes(self) -> bytes:
        """The content of `index.json`; it ends with a digest of itself."""
        values = {
            "format": FORMAT,
            "data": self.spec.model_dump(mode="json"),
            "class_names": self.class_names,
            "images": {"train": self.train_images, "val": self.val_images},
            "understood": self.understood,
            "left_out": self.left_out,
            "files": {name: asdict(self.files[name]) for name in [*self.shards, TRAIN, VAL]},
        }
        return json.dumps(values | {"sha256": _digest(values)}, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: Folder) -> "SetIndex":
        """Read what `to_bytes` wrote.

        Raises:
            WrongIndexError: it is damaged, or of another version; the message names it.
        """
        try:
            values = json.loads(data)
            version = values["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise WrongIndexError(f"{where} is damaged; prepare the set again") from error
        if version != FORMAT:
            raise WrongIndexError(
                f"{where} was written by another version (format {version}, this one reads {FORMAT}); "
                "prepare the set again, or use that version"
            )
        try:
            if values.pop("sha256") != _digest(values) or not all(map(_NAME.fullmatch, values["files"])):
                raise WrongIndexError(f"{where} is damaged; prepare the set again")
            return cls(
                spec=DataSpec.model_validate(values["data"]),
                class_names=values["class_names"],
                train_images=values["images"]["train"],
                val_images=values["images"]["val"],
                understood=values["understood"],
                left_out=values["left_out"],
                files={name: File(**file) for name, file in values["files"].items()},
            )
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise WrongIndexError(f"{where} is damaged; prepare the set again") from error


def read_index(folder: Folder) -> SetIndex:
    """The index of a prepared set.

    Raises:
        FileNotFoundError: there is none.
        UnreachableError: it can't be read.
        WrongIndexError: it is damaged, or of another version.
    """
    return SetIndex.from_bytes(read_bytes(folder / INDEX), folder / INDEX)


@dataclass(frozen=True)
class Sets:
    """The prepared sets found at a place, and what was wrong with others there."""

    root: Folder
    found: list[tuple[Folder, SetIndex]]
    wrong: list[str]

    def choose(self, name: str, image_size: int, seed: int, options: dict[str, Any]) -> tuple[Folder, SetIndex]:
        """The set that was prepared so.

        Raises:
            ValueError: there is none; the message says which there are.
        """
        for folder, index in self.found:
            spec = index.spec
            if (spec.name, spec.image_size, spec.seed, spec.options) == (name, image_size, seed, options):
                return folder, index
        if self.wrong:
            raise ValueError(self.wrong[0])
        there = ", ".join(_described(index.spec) for _, index in self.found)
        raise ValueError(
            f"{self.root} holds no prepared set of {name} at {image_size} pixels, seed {seed}, with options {options}; "
            f"it holds: {there or 'nothing prepared'}; make one with `sweep prepare {name} SOURCE --to {self.root}`"
        )


def find_sets(root: Folder) -> Sets | None:
    """The prepared sets at a place: itself, or the folders in it. None for a local folder without any.

    Raises:
        ValueError: nothing can be read at that URL.
    """
    found: list[tuple[Folder, SetIndex]] = []
    wrong: list[str] = []
    try:
        for folder in _with_index(root):
            try:
                found.append((folder, read_index(folder)))
            except FileNotFoundError:
                continue
            except WrongIndexError as error:
                wrong.append(str(error))
    except UnreachableError as error:
        raise ValueError(str(error)) from error
    return Sets(root, found, wrong) if found or wrong or is_url(root) else None


def _with_index(root: Folder) -> Iterable[Folder]:
    """Folders that may be prepared sets; a local one must also hold a shard: others have files of that name too."""
    if is_url(root):
        try:
            read_bytes(root / INDEX)
        except FileNotFoundError:
            return folders_below(root)
        return [root]
    return [folder for folder in [root, *folders_below(root)] if _looks_prepared(folder)]


def _looks_prepared(folder: Folder) -> bool:
    return (folder / INDEX).is_file() and (folder / TRAIN).is_file()


def _described(spec: DataSpec) -> str:
    return f"{spec.name} at {spec.image_size} pixels, seed {spec.seed}, options {spec.options}"


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()
