"""Safetensors files and the index that joins several: the whole header is checked before any number is read."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from upath import UPath

from analysis.readers.entry import Entry, Weights, called_damaged, checked_shape, in_natural_order, kind_of

_HEADER_LIMIT = 16 * 2**20  # 200,000 tensors; the format's own limit, 100 MiB, takes many seconds
_INDEX_LIMIT = 32 * 2**20
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Span:
    """A tensor as the header describes it: bytes `first` to `last` of the data."""

    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class SafetensorsHeader:
    """`start`: where the data begins, in bytes."""

    tensors: dict[str, _Span]
    metadata: dict[str, str]
    start: int


def read_header(file: UPath) -> SafetensorsHeader:
    """The header of a safetensors file, checked against the file's size.

    Raises:
        ValueError: it is damaged or truncated.
    """
    size = file.stat().st_size
    with file.open("rb") as stream, called_damaged(file):
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError("it is truncated, or not a safetensors file")
        if length > _HEADER_LIMIT:
            raise ValueError(f"its header has {length / 2**20:.0f} MiB; the limit is {_HEADER_LIMIT // 2**20}")
        content = json.loads(stream.read(length))
        if not isinstance(content, dict):
            raise ValueError("its header names no tensors")
        metadata = content.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata does not map names to text")
        tensors = {name: _span(name, entry) for name, entry in content.items()}
        end = max((span.last for span in tensors.values()), default=0)
        if end != size - 8 - length:
            raise ValueError(f"it has {size} bytes, but its header describes {8 + length + end}")
    return SafetensorsHeader(tensors=tensors, metadata=metadata, start=8 + length)


def safetensors_weights(file: UPath) -> Weights:
    """Only a tensor's own range of bytes is read, from a local disk as from an object store."""
    header = read_header(file)
    entries = {
        name: Entry(
            shape=span.shape,
            kind=kind_of(_DTYPES[span.dtype]) if span.dtype in _DTYPES else span.dtype,
            read=_reader(file, header.start, span),
        )
        for name, span in header.tensors.items()
    }
    return Weights(entries=in_natural_order(entries), metadata=header.metadata)


def shards_of(file: UPath) -> list[UPath]:
    """The files that an index names, which lie beside it.

    Raises:
        ValueError: the index is damaged, or names a file that lies elsewhere.
    """
    with called_damaged(file):
        if file.stat().st_size > _INDEX_LIMIT:
            raise ValueError(f"its index is larger than {_INDEX_LIMIT // 2**20} MiB")
        shards = set(json.loads(file.read_bytes())["weight_map"].values())
        if not all(isinstance(shard, str) and shard for shard in shards):
            raise ValueError("it names files by something other than text")
    for shard in sorted(shards):
        if shard in (".", "..", file.name) or any(mark in shard for mark in "/\\\0:"):
            raise ValueError(f"{file} names {shard!r}, which is not a file beside it")
    return [file.parent / shard for shard in sorted(shards)]


def _reader(file: UPath, start: int, span: _Span) -> Callable[[], Tensor]:
    def read() -> Tensor:
        if span.dtype not in _DTYPES:
            raise ValueError(f"part of it holds {span.dtype} numbers, which are not supported")
        with file.open("rb") as stream:
            stream.seek(start + span.first)
            data = bytearray(stream.read(span.last - span.first))
        return torch.frombuffer(data, dtype=_DTYPES[span.dtype]).reshape(span.shape)

    return read


def _span(name: str, entry: Any) -> _Span:
    dtype, shape = entry["dtype"], checked_shape(entry["shape"])
    first, last = checked_shape(entry["data_offsets"])
    if not isinstance(dtype, str):
        raise ValueError(f"the type of {name} is not text")
    if first > last:
        raise ValueError(f"{name} ends before it begins: {first} to {last}")
    if dtype in _DTYPES and last - first != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise ValueError(f"{name} has {last - first} bytes, which does not fit {dtype} {entry['shape']}")
    return _Span(dtype=dtype, shape=shape, first=first, last=last)
