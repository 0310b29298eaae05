"""Which of a checkpoint's values are the weights, and what they are called.

The same rules for every file: the usual wrappers are opened, averaged weights before the raw ones; an optimizer's
tensors are left out; prefixes of data parallelism, compilation and training frameworks are removed.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from upath import UPath

from analysis.readers.entry import Entries, Entry, called_damaged
from analysis.readers.inert import Standin, attributes_of, is_module
from analysis.readers.stored import numpy_array

_WRAPPERS = (
    "state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "params_ema", "ema",
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "params", "module", "shadow",
)  # fmt: skip
_DEPTH = 60
_NAMES_LIMIT = 64 * 2**20  # characters, of all names together: values may contain one another endlessly


def tensors_by_name(file: UPath, content: Any) -> Entries:
    """The weights among what a file holds; NumPy's arrays only where it has no other tensor.

    Raises:
        ValueError: it has no tensors by name.
    """
    with called_damaged(file):
        for tensor_in in (_tensor_in, _array_in):
            holder = _Search(tensor_in).unwrapped(content)
            if holder is not None:
                return dict(_flat(holder, tensor_in))
    if isinstance(content, Standin) and content.of.startswith("__torch__."):
        raise ValueError(f"{file} is a frozen TorchScript program: its weights have no names; save it before freezing")
    kind = content.of if isinstance(content, Standin) else type(content).__name__
    kind = "Tensor" if isinstance(content, Entry) else kind
    if attributes_of(content) or isinstance(content, dict):
        return {}
    raise ValueError(f"{file} holds a {kind}, not tensors by name; save a state_dict()")


def plainly_named(entries: Entries) -> Entries:
    """Remove what data parallelism, compilation and training frameworks add to names."""
    plain = [re.sub(r"(^|\.)_orig_mod\.", r"\1", re.sub(r"^(module\.)+", "", name)) for name in entries]
    for shared in ("module.", "model.", "net."):
        if plain and all(name.startswith(shared) for name in plain):
            plain = [name.removeprefix(shared) for name in plain]
    return dict(zip(plain, entries.values(), strict=True)) if len(set(plain)) == len(plain) else entries


def _tensor_in(value: Any) -> Entry | None:
    return value if isinstance(value, Entry) else None


def _array_in(value: Any) -> Entry | None:
    array = numpy_array(value)
    return None if array is None else array.entry


class _Search:
    """Searches nested values, each only once: they may contain one another, or themselves."""

    def __init__(self, tensor_in: Callable[[Any], Entry | None]) -> None:
        self._tensor_in = tensor_in
        self._known: dict[int, int] = {}

    def unwrapped(self, content: Any) -> Any:
        """The value inside the usual wrappers that has the tensors; None if there are none."""
        if self._most_axes(content) < 0 or self._tensor_in(content) is not None:
            return None
        for _ in range(_DEPTH):
            held = attributes_of(content)
            wrapped = (key for axes in (3, 0) for key in _WRAPPERS if self._holds(held.get(key), axes))
            inner = next(wrapped, None)
            if inner is None:
                return content
            content = held[inner]
        raise ValueError("it wraps its tensors endlessly")

    def _holds(self, value: Any, axes: int) -> bool:
        """Whether a wrapper has a tensor of that many axes; one of averages may have its decay alone."""
        return self._tensor_in(value) is None and self._most_axes(value) >= axes

    def _most_axes(self, value: Any, depth: int = 0) -> int:
        """The most axes of a tensor in a value, or -1."""
        tensor = self._tensor_in(value)
        if tensor is not None:
            return len(tensor.shape)
        if id(value) not in self._known:
            self._known[id(value)] = -1  # until it is known: it may contain itself
            if depth < _DEPTH and isinstance(value, dict | Standin):
                held = attributes_of(value).values()
                self._known[id(value)] = max((self._most_axes(inner, depth + 1) for inner in held), default=-1)
        return self._known[id(value)]


def _flat(content: Any, tensor_in: Callable[[Any], Entry | None]) -> Iterator[tuple[str, Entry]]:
    """The tensors of nested values, their keys joined by dots; an optimizer's are left out."""
    spent = 0
    open_values = [iter(_named(content, ""))]
    while open_values:
        name, key, value = next(open_values[-1], (None, None, None))
        if name is None:
            open_values.pop()
            continue
        spent += len(name) + 1
        if spent > _NAMES_LIMIT or len(open_values) > _DEPTH:
            raise ValueError("its values contain one another endlessly")
        tensor = tensor_in(value)
        if tensor is not None:
            yield name, tensor
        elif _may_hold_weights(value) and not (isinstance(key, str) and "optim" in key):
            open_values.append(iter(_named(value, f"{name}.")))


def _named(value: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for key, held in attributes_of(value).items():
        name = key if isinstance(key, str) or (type(key) is int and abs(key) < 2**63) else type(key).__name__
        yield f"{prefix}{name}", key, held


def _may_hold_weights(value: Any) -> bool:
    return isinstance(value, dict) or is_module(value) or (isinstance(value, Standin) and bool(value.pairs))
