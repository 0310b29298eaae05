"""The values that an inert pickle may make: tensors over storages, NumPy's arrays, ordered dicts. Nothing else.

Each function takes the arguments that PyTorch or NumPy would, from untrusted bytes: of any type and any size. A tensor
is an `Entry`, whose bytes are read when they are asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.readers.entry import Entry, checked_shape, kind_of
from analysis.readers.inert import Global, Standin

_EXPANDED_LIMIT = 2**28  # numbers; a tensor may repeat a few stored ones endlessly
_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64, "Untyped": torch.uint8,
}  # fmt: skip
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        *_STORAGES.values(), torch.uint16, torch.uint32, torch.uint64,
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
    )
}  # fmt: skip
_ARRAYS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1", "c8", "c16"}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Numbers in a file: `size` of them, of one type. `fetch(first, length)` reads bytes of it.

    `dtype` is None for types that hold no plain numbers, such as quantised ones.
    """

    dtype: torch.dtype | None
    size: int
    fetch: Callable[[int, int], bytes]


@dataclass(frozen=True)
class Array:
    """A NumPy array: counts as a tensor only in a file that has no others."""

    entry: Entry


def storage_type(named: Any) -> torch.dtype | None:
    """The number type of `torch.FloatStorage` and the like.

    Raises:
        ValueError: it does not name a storage.
    """
    name = named.name if isinstance(named, Global) else ""
    if not name.startswith("torch.") or not name.endswith("Storage"):
        raise ValueError("it has a storage of unknown type")
    return _STORAGES.get(name.rpartition(".")[2].removesuffix("Storage"))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Entry:
    """torch._utils._rebuild_tensor and _v2, whose rest are requires_grad, hooks and metadata."""
    if not isinstance(storage, Storage):
        raise ValueError("it has a tensor without a storage")
    metadata = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
    return _view(storage, storage.dtype, offset, shape, stride, negative=bool(metadata.get("neg")))


def _typed_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Entry:
    """torch._utils._rebuild_tensor_v3: types that no storage is named after, over plain bytes."""
    if not isinstance(storage, Storage) or len(rest) < 3:
        raise ValueError("it has a tensor without a storage")
    dtype = _dtype(rest[2])
    if dtype is None:
        return _unreadable(shape, getattr(rest[2], "name", "unknown").removeprefix("torch."))
    stored = storage.size * (1 if storage.dtype is None else storage.dtype.itemsize)
    typed = Storage(dtype=dtype, size=stored // dtype.itemsize, fetch=storage.fetch)
    return _view(typed, dtype, offset, shape, stride, negative=False)


def _view(
    storage: Storage, dtype: torch.dtype | None, offset: Any, shape: Any, stride: Any, *, negative: bool
) -> Entry:
    size, steps, (first,) = checked_shape(shape), checked_shape(stride), checked_shape([offset])
    if len(size) != len(steps):
        raise ValueError(f"a tensor of {len(size)} axes has {len(steps)} strides")
    count = math.prod(size)
    span = 1 + sum((length - 1) * step for length, step in zip(size, steps, strict=True)) if count else 0
    if first + span > storage.size:
        raise ValueError(f"a tensor ends at {first + span} in a storage of {storage.size} numbers")
    if dtype is None:
        return _unreadable(size, "quantised")

    def read() -> Tensor:
        if not count:
            return torch.empty(size, dtype=dtype)
        if count > max(storage.size, _EXPANDED_LIMIT):
            raise ValueError(f"it has {count:,} numbers, of which the file holds {storage.size:,}")
        data = bytearray(storage.fetch(first * dtype.itemsize, span * dtype.itemsize))
        tensor = torch.frombuffer(data, dtype=dtype).as_strided(size, steps)
        return -tensor if negative else tensor.contiguous()

    return Entry(shape=size, kind=kind_of(dtype), read=read)


def _same(data: Any = None, *_: Any) -> Any:
    """Wrappers of a tensor that leave its numbers unchanged: a parameter, a copy for a device."""
    return data if isinstance(data, Entry) else Standin("a parameter without a tensor")


def _from_numpy(data: Any, *_: Any) -> Entry:
    """torch._utils._rebuild_device_tensor_from_numpy: how tensors of other devices are kept."""
    array = numpy_array(data)
    if array is None:
        raise ValueError("it has a tensor without numbers")
    return array.entry


def _of_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor of a class of its own, made by one of the functions here."""
    name = function.name if isinstance(function, Global) else ""
    if name not in BUILDERS or not isinstance(args, tuple) or BUILDERS[name] is _of_type:
        return Standin("a tensor of another class", args if isinstance(args, tuple) else ())
    return BUILDERS[name](*args)


def _without_numbers(dtype: Any, shape: Any, *_: Any) -> Entry:
    kind = _dtype(dtype)
    return _unreadable(checked_shape(shape), "unknown" if kind is None else kind_of(kind), "a meta tensor: no numbers")


def _sparse(layout: Any, data: Any) -> Entry:
    indices, values, shape = data[:3]
    size = checked_shape(shape)
    plain = isinstance(indices, Entry) and isinstance(values, Entry)
    if not plain or not isinstance(layout, Global) or layout.name != "torch.sparse_coo":
        return _unreadable(size, "sparse")
    if math.prod(size) > _EXPANDED_LIMIT:
        return _unreadable(size, values.kind, "a sparse tensor too large to be made dense")

    def read() -> Tensor:
        try:
            return torch.sparse_coo_tensor(indices.read(), values.read(), size, check_invariants=True).to_dense()
        except (RuntimeError, TypeError) as error:
            raise ValueError("a sparse tensor whose indices don't fit its shape") from error

    return Entry(shape=size, kind=values.kind, read=read)


def _quantised(storage: Any, offset: Any, shape: Any, *_: Any) -> Entry:
    return _unreadable(checked_shape(shape), "quantised")


def _unreadable(shape: Any, kind: str, reason: str = "its numbers are of an unsupported kind") -> Entry:
    def read() -> Tensor:
        raise ValueError(reason)

    return Entry(shape=checked_shape(shape), kind=kind, read=read)


def _dtype(named: Any) -> torch.dtype | None:
    """`torch.float32` and the like, by name alone."""
    return _DTYPES.get(named.name) if isinstance(named, Global) else None


def _ordered(*pairs: Any) -> dict[Any, Any]:
    """collections.OrderedDict, empty or of a list of pairs as Python 2 writes it, and defaultdict of its factory."""
    listed = pairs[0] if pairs and isinstance(pairs[0], list) else []
    return {pair[0]: pair[1] for pair in listed if isinstance(pair, tuple | list) and isinstance(pair[0], str | int)}


def _size(lengths: Any = (), *_: Any) -> tuple[Any, ...]:
    """torch.Size."""
    return tuple(lengths) if isinstance(lengths, tuple | list) else ()


def _layout(name: Any, *_: Any) -> Global:
    """torch.serialization._get_layout, of torch.sparse_coo and the like."""
    return Global(str(name)[:100])


def _encoded(text: Any, encoding: Any = "", *_: Any) -> bytes:
    """_codecs.encode as pickles of protocol 2 use it for bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("it has bytes in an unknown encoding")
    return text.encode("latin1")


def numpy_array(standin: Any) -> Array | None:
    """The array whose parts a stand-in keeps; None for anything else.

    Its state is (version, shape, type, whether columns come first, bytes); protocol 5 gives bytes, type and shape as
    arguments.
    """
    if not isinstance(standin, Standin):
        return None
    if standin.of.endswith(".multiarray._reconstruct") and isinstance(standin.state, tuple) and len(standin.state) == 5:
        _, shape, kind, columns_first, data = standin.state
        return _array(data, kind, shape, "F" if columns_first else "C")
    if standin.of.endswith(".numeric._frombuffer") and len(standin.args) == 4:
        data, kind, shape, order = standin.args
        return _array(data, kind, shape, "F" if order == "F" else "C")
    return None


def _array(data: Any, kind: Any, shape: Any, order: Any) -> Array | None:
    code = kind.args[0] if isinstance(kind, Standin) and kind.of == "numpy.dtype" and kind.args else None
    endian = kind.state[1] if isinstance(kind, Standin) and isinstance(kind.state, tuple) and kind.state[1:] else "<"
    data = data.encode("latin1", "ignore") if isinstance(data, str) else data  # Python 2's
    if code not in _ARRAYS or endian not in ("<", ">", "|", "=") or not isinstance(data, bytes | bytearray):
        return None
    dtype, size = np.dtype(f"{endian}{code}"), checked_shape(shape)
    if math.prod(size) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {list(size)} has {len(data)} bytes")

    def read() -> Tensor:
        array = np.frombuffer(data, dtype).reshape(size, order=order).astype(dtype.newbyteorder("="))
        return torch.from_numpy(array)

    return Array(Entry(shape=size, kind=dtype.name, read=read))


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _same,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_numpy,
    "torch._utils._rebuild_xla_tensor": _from_numpy,
    "torch._utils._rebuild_meta_tensor_no_storage": _without_numbers,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch.nn.parameter.Parameter": _same,
    "torch.Size": _size,
    "torch.serialization._get_layout": _layout,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _ordered,
    "_codecs.encode": _encoded,
}
