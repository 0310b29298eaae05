"""A tensor of a file as every reader returns it: type and shape at once, the numbers when `read` is called."""

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from upath import UPath

_HARM = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RecursionError, OSError,
)  # fmt: skip
AnyPath = str | os.PathLike[str] | UPath


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a file. `kind` is its type as text, such as float32."""

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], Tensor]

    @property
    def floating(self) -> bool:
        return self.kind.startswith(("float", "bfloat"))


Entries = dict[str, Entry]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a checkpoint by name. `metadata` is what the file says about itself, such as its `format`."""

    entries: Entries
    metadata: Mapping[str, str] = field(default_factory=dict)


def kind_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_natural_order(entries: Entries) -> Entries:
    """Sorted by name, digits as numbers: the order of nearly all networks, for formats that keep none."""
    return dict(sorted(entries.items(), key=lambda item: _natural(item[0])))


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Check a shape that comes from untrusted bytes: a list of whole numbers that a tensor can have.

    Raises:
        ValueError: it is anything else.
    """
    if not isinstance(shape, list | tuple) or len(shape) > 64:
        raise ValueError(f"{one_line(shape)} is not a shape")
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise ValueError(f"{one_line(shape)} is not a shape")
    return tuple(shape)


def one_line(text: object, limit: int = 300) -> str:
    """Any text as one line that a terminal can show: control characters escaped, the middle of a long text left out."""
    try:
        shown = str(text)
    except (RecursionError, ValueError):  # deep nesting, and whole numbers of more digits than Python prints
        shown = f"a {type(text).__name__}"
    if len(shown) > limit:
        shown = f"{shown[: limit // 2]} … {shown[-limit // 2 :]}"
    return printable(shown)


def printable(name: str) -> str:
    """A name with unprintable characters escaped: line ends, control characters, halves of surrogate pairs."""
    if name.isprintable():
        return name
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in name)


@contextmanager
def called_damaged(file: UPath) -> Iterator[None]:
    """Turn whatever error damaged bytes cause within into a ValueError that names the file."""
    try:
        yield
    except _HARM as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # the disk's or network's fault, not the file's
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else error or type(error).__name__
        raise ValueError(f"{file} is damaged: {one_line(reason)}") from error


def _natural(name: str) -> list[tuple[int, str]]:
    """Runs of digits as numbers, or as text where they are too long."""
    return [(int(part), "") if part.isdecimal() and len(part) < 20 else (-1, part) for part in re.split(r"(\d+)", name)]
