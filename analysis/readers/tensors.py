"""The files that checkpoints come in, opened without running code in them or reading more than is asked for.

Every reader gives `Entry`s by name: type and shape now, the numbers when `read` is called.

Axis letters of a convolution's weight: `n` neurons, `c` input channels, `y x` kernel.
"""

import argparse
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor
from upath import UPath

AnyPath = str | os.PathLike[str] | UPath

_HEADER_LIMIT = 100 * 2**20  # the format's own
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_WRAPPERS = (
    "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "params_ema", "ema",
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "params", "module", "shadow",
)  # fmt: skip
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
# What training scripts put beside the weights; building them runs nothing of the file's own.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
]


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


@dataclass(frozen=True)
class SafetensorsHeader:
    """`tensors`: each name's dtype, shape and data_offsets; `start`: where the data begins, in bytes."""

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]
    start: int


def read_header(file: UPath) -> SafetensorsHeader:
    """The header of a safetensors file, checked against the file's size.

    Raises:
        ValueError: it is damaged or cut short.
    """
    size = file.stat().st_size
    with file.open("rb") as stream, _called_damaged(file):
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise ValueError("it is cut short, or no safetensors file")
        content = json.loads(stream.read(length))
        metadata = content.pop("__metadata__", {})
        ends = [_checked_end(name, entry) for name, entry in content.items()]
        if max(ends, default=0) != size - 8 - length:
            raise ValueError(f"it has {size} bytes where its header tells of {8 + length + max(ends, default=0)}")
    return SafetensorsHeader(tensors=content, metadata=metadata, start=8 + length)


def safetensors_entries(file: UPath) -> Entries:
    """Each tensor is read by its range of bytes alone, on a local disk and on an object store."""
    header = read_header(file)

    def reader(entry: dict[str, Any]) -> Callable[[], Tensor]:
        first, last = entry["data_offsets"]

        def read() -> Tensor:
            with file.open("rb") as stream:
                stream.seek(header.start + first)
                data = bytearray(stream.read(last - first))
            return torch.frombuffer(data, dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"])

        return read

    # The format keeps no order; sorting numbers as numbers gives the network's in nearly all of them.
    return {
        name: Entry(shape=tuple(entry["shape"]), kind=_kind(_DTYPES.get(entry["dtype"])), read=reader(entry))
        for name, entry in sorted(header.tensors.items(), key=lambda item: _natural(item[0]))
    }


def sharded_entries(file: UPath) -> Entries:
    """The tensors of all files that an index names.

    Raises:
        ValueError: the index is damaged, or names a file that is not there or lies elsewhere.
    """
    with _called_damaged(file):
        shards = sorted(set(json.loads(file.read_bytes())["weight_map"].values()))
    entries: Entries = {}
    for shard in shards:
        if "/" in shard or "\\" in shard:
            raise ValueError(f"{file} names {shard!r}, which is not a file beside it")
        entries |= entries_of(file.parent / shard)
    return dict(sorted(entries.items(), key=lambda item: _natural(item[0])))


def torch_entries(file: UPath) -> Entries:
    """The tensors of a file by torch.save: memory-mapped where it is local and of the present format.

    Raises:
        ValueError: it holds code, is a TorchScript program, is damaged, or has no tensors by name.
    """
    local = file.protocol in ("", "file")
    source: Any = file.path if local else BytesIO(file.read_bytes())
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings(action="ignore"):
            mapped = local and zipfile.is_zipfile(source)
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        _require_weights(file)
        raise ValueError(
            f"{file} holds more than tensors, and reading that could run code; "
            "save its state_dict() as safetensors and give that file"
        ) from error
    except Exception as error:  # damaged bytes make PyTorch raise nearly anything
        if "TorchScript" in str(error):
            raise ValueError(f"{file} is a TorchScript program; save its state_dict() as safetensors") from error
        raise ValueError(f"{file} is damaged: {error or type(error).__name__}") from error
    return {name: _held(tensor) for name, tensor in _flat(_unwrapped(file, content))}


ENDINGS: dict[str, Callable[[UPath], Entries]] = {
    ".safetensors": safetensors_entries,
    ".safetensors.index.json": sharded_entries,
    ".bin.index.json": sharded_entries,
    ".pt": torch_entries,
    ".pth": torch_entries,
    ".pth.tar": torch_entries,
    ".th": torch_entries,
    ".bin": torch_entries,
    ".ckpt": torch_entries,
}
"""Readers by the end of a file's name; ONNX has its own, in analysis/onnx_file.py."""


def entries_of(file: UPath) -> Entries:
    """All tensors of a checkpoint under their plain names.

    Raises:
        ValueError: the file is missing, of a kind not read here, unsafe or damaged.
    """
    if not file.exists():
        raise ValueError(f"there is no file {file}")
    reader = next((reader for ending, reader in ENDINGS.items() if file.name.endswith(ending)), None)
    if reader is None:
        raise ValueError(f"{file} is not a checkpoint read here; known endings: {', '.join((*ENDINGS, '.onnx'))}")
    if file.is_file() and not file.stat().st_size:
        raise ValueError(f"{file} is empty")
    return _plainly_named(reader(file))


@contextmanager
def _called_damaged(file: UPath) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _checked_end(name: str, entry: dict[str, Any]) -> int:
    """Where a tensor's bytes end."""
    first, last = entry["data_offsets"]
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is not None and last - first != math.prod(entry["shape"]) * dtype.itemsize:
        raise ValueError(f"{name} has {last - first} bytes, not those of {entry['dtype']} {entry['shape']}")
    if not 0 <= first <= last:
        raise ValueError(f"{name} lies at {first} to {last}")
    return int(last)


def _kind(dtype: torch.dtype | None) -> str:
    return "unknown" if dtype is None else str(dtype).removeprefix("torch.")


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _held(tensor: Tensor) -> Entry:
    return Entry(shape=tuple(tensor.shape), kind=_kind(tensor.dtype), read=lambda: tensor)


def _unwrapped(file: UPath, content: Any) -> Mapping[Any, Any]:
    """The state dict inside the usual wrappers; averaged weights (EMA) come before the raw ones."""
    while isinstance(content, Mapping):
        wrapped = (key for holds in (_holds_kernels, _holds_tensors) for key in _WRAPPERS if holds(content.get(key)))
        inner = next(wrapped, None)
        if inner is None:
            return content
        content = content[inner]
    raise ValueError(f"{file} holds a {type(content).__name__}, not tensors by name; save a state_dict()")


def _holds_kernels(value: Any) -> bool:
    """Whether a wrapper has a tensor that may be a convolution's; one of averages may have its decay alone."""
    return isinstance(value, Mapping) and any(getattr(v, "ndim", 0) >= 3 or _holds_kernels(v) for v in value.values())


def _require_weights(file: UPath) -> None:
    """Raise a ValueError where a file only stands for the weights."""
    with file.open("rb") as stream:
        start = stream.read(64).lstrip()
    if start.startswith((b"version https://git-lfs", b"<")):
        kind = "a page of the web" if start.startswith(b"<") else "a pointer of Git LFS (git lfs pull brings the file)"
        raise ValueError(f"{file} is {kind}, not the weights; download them again")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) or _holds_tensors(v) for v in value.values())


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested mappings, their keys joined by dots; an optimizer's are left out."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and "optim" not in str(key):
            yield from _flat(value, f"{prefix}{key}.")


def _plainly_named(entries: Entries) -> Entries:
    """Without what data parallelism, compilation and training frameworks put before or into names."""
    plain = [re.sub(r"(^|\.)_orig_mod\.", r"\1", re.sub(r"^(module\.)+", "", name)) for name in entries]
    for shared in ("module.", "model.", "net."):
        if plain and all(name.startswith(shared) for name in plain):
            plain = [name.removeprefix(shared) for name in plain]
    return dict(zip(plain, entries.values(), strict=True)) if len(set(plain)) == len(plain) else entries
