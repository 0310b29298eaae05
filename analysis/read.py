"""Read convolution weights from any checkpoint, without ever running code that is in it."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor
from upath import UPath

AnyPath = str | os.PathLike[str] | UPath

_WRAPPERS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "module",
)
_PREFIXES = ("module.", "_orig_mod.")
_METADATA = "final_convs"


@dataclass(frozen=True, kw_only=True)
class ConvWeight:
    """A convolution's weight, named as its module; `skipped` says why it can't be scored, or is None."""

    layer: str
    weight: Float[Tensor, "n c y x"]
    skipped: str | None


def spatial_convs(path: AnyPath) -> list[ConvWeight]:
    """All two-dimensional convolutions of a checkpoint, in the network's order as far as the file tells.

    Raises:
        ValueError: the file is missing, of a kind not read here, unsafe, damaged or without convolutions.
    """
    file = UPath(path)
    tensors = _reader(file)(file)
    convs = [
        ConvWeight(layer=name.removesuffix(".weight"), weight=tensor, skipped=_why_skipped(tensor))
        for name, tensor in tensors.items()
        if tensor.ndim == 4 and name.endswith("weight") and tensor.is_floating_point()
    ]
    if not convs:
        raise ValueError(f"{file} holds no convolution: none of its {len(tensors)} tensors has four axes")
    return convs


def final_convs(path: AnyPath) -> list[str] | None:
    """The convs that a checkpoint of this project names for the analysis, last one first; None in other files."""
    file = UPath(path)
    if file.suffix != ".safetensors":
        return None
    data = _read_bytes(file)
    length = int.from_bytes(data[:8], "little")
    try:
        names = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(_METADATA)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: its header is not readable ({error})") from error
    return None if names is None else list(json.loads(names))


def _read_safetensors(file: UPath) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(_read_bytes(file))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    # The format keeps no order; sorting numbers as numbers gives the network's in nearly all of them.
    return {name: tensors[name] for name in sorted(tensors, key=_natural)}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_torch(file: UPath) -> dict[str, Tensor]:
    try:
        content = torch.load(BytesIO(_read_bytes(file)), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{file} holds more than tensors, and reading that could run code; "
            "save its state_dict() as safetensors and give that file"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    return {_plain_name(name): value for name, value in _unwrap(file, content).items() if isinstance(value, Tensor)}


READERS: dict[str, Callable[[UPath], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".bin": _read_torch,
    ".ckpt": _read_torch,
}
"""Readers by file suffix; each gives tensors by name."""


def _reader(file: UPath) -> Callable[[UPath], dict[str, Tensor]]:
    if not file.exists():
        raise ValueError(f"there is no file {file}")
    if file.suffix not in READERS:
        raise ValueError(f"{file} is not a checkpoint read here; known endings: {', '.join(READERS)}")
    return READERS[file.suffix]


def _read_bytes(file: UPath) -> bytes:
    return bytes(file.read_bytes())


def _unwrap(file: UPath, content: Any) -> Mapping[str, Any]:
    """The state dict inside the usual wrappers; averaged weights (EMA) come before the raw ones."""
    while isinstance(content, Mapping):
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return content
        content = content[inner]
    raise ValueError(f"{file} holds a {type(content).__name__}, not tensors by name; save a state_dict()")


def _plain_name(name: str) -> str:
    for prefix in _PREFIXES:
        while name.startswith(prefix):
            name = name.removeprefix(prefix)
    return name


def _why_skipped(weight: Float[Tensor, "n c y x"]) -> str | None:
    _, c, ky, kx = weight.shape
    if weight.numel() == 0:
        return "empty"
    if min(ky, kx) < 2:
        return f"{ky}x{kx} kernel: bands need at least 2 rows and 2 columns"
    if c == 1:
        return "depthwise or one input channel: one channel has no three colours"
    return None
