"""Find the convolutions of any checkpoint, without ever running code from it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor
from upath import UPath

from analysis.readers import kinds
from analysis.readers.axes import Layout, declared_by, layout_of
from analysis.readers.conv import Conv, told_apart, why_skipped
from analysis.readers.effective import Made, Parts, effective
from analysis.readers.entry import AnyPath, Weights, called_damaged, printable
from analysis.readers.lora import with_adapters
from analysis.readers.onnx_file import onnx_convs
from analysis.readers.safetensors_file import read_header
from analysis.readers.tensors import file_within, holds_usual_model, looks_like_a_model, weights_of

_METADATA = "final_convs"
_WEIGHT = re.compile(r"(?:^|\.)weight$")
_KERNEL = re.compile(r"(?:^|[./])kernel(?::0)?$")
_TRANSPOSED = re.compile(r"deconv|conv_?(?:[123]d_?)?transpose|transposed?_?conv|convt\b", re.IGNORECASE)


def is_checkpoint(path: AnyPath) -> bool:
    """Whether a name is that of a checkpoint file that can be read, or of a folder that holds one.

    A name without a slash may also be a sweep's: such a folder must hold a file with one of the usual model names.
    """
    place = UPath(path)
    if place.name.lower().endswith(kinds.ENDINGS):
        return True
    if not place.is_dir() or (place / "sweep.yaml").exists():
        return False
    return looks_like_a_model(place) if "/" in str(path) else holds_usual_model(place)


def spatial_convs(path: AnyPath) -> list[Conv]:
    """All convolutions of a checkpoint, in the network's order as far as the file gives it.

    Those that can't be scored are included with the reason, as is anything that looks like one: any four-axis tensor.

    Raises:
        ValueError: the file is missing, unsupported, damaged or without convolutions.
    """
    file = file_within(path)
    if kinds.kind_of_file(file) is kinds.ONNX:
        convs, held = onnx_convs(file), "of its graph's nodes is one"
    else:
        weights = weights_of(file)
        convs, held = _convs(weights), f"of its {len(weights.entries)} tensors has the shape of one"
    if not convs:
        raise ValueError(f"{file} holds no convolution: none {held}")
    return told_apart([replace(conv, layer=printable(conv.layer)) for conv in convs])


def final_convs(path: AnyPath) -> list[str] | None:
    """The convs that a checkpoint of this project names for the analysis, last one first; None for other files."""
    file = file_within(path)
    if kinds.kind_of_file(file) is not kinds.SAFETENSORS:
        return None
    stated = read_header(file).metadata.get(_METADATA)
    if stated is None:
        return None
    with called_damaged(file):
        names = json.loads(stated)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{_METADATA} is not a list of names")
    return names


def _convs(weights: Weights) -> list[Conv]:
    stated = weights.metadata.get("format", "torch" if _METADATA in weights.metadata else None)
    made = with_adapters(effective(weights.entries))
    named = _WEIGHT
    if declared_by(stated) in (None, "yxcn") and not any(_WEIGHT.search(name) for name in made):
        named = _KERNEL
    of_four = [
        part.entry.shape for name, part in made.items() if len(part.entry.shape) == 4 and named.search(name) is not None
    ]
    layout = layout_of(stated, of_four, kernels=named is _KERNEL)
    return [_conv(name, part, made, named, layout) for name, part in made.items() if _looks_like_one(name, part, named)]


def _looks_like_one(name: str, part: Made, named: re.Pattern[str]) -> bool:
    axes = len(part.entry.shape)
    return axes == 4 or (axes in (3, 5) and named.search(name) is not None)


def _conv(name: str, part: Made, made: Parts, named: re.Pattern[str], layout: Layout) -> Conv:
    layer = named.sub("", name) or name
    skipped = _why_skipped(name, layer, part, made, named, layout)
    if skipped is None and len(part.entry.shape) == 4:
        skipped = layout.doubt_of(part.entry.shape)
    shape = layout.shape(part.entry.shape) if named.search(name) else part.entry.shape
    return Conv(layer=layer, shape=shape, skipped=skipped, groups=None, read=_reader(part, layout))


def _reader(part: Made, layout: Layout) -> Callable[[], Tensor]:
    return lambda: layout.weight(part.entry.read())


def _why_skipped(name: str, layer: str, part: Made, made: Parts, named: re.Pattern[str], layout: Layout) -> str | None:
    entry = part.entry
    if not named.search(name):
        return part.reason or "not named like a convolution's weight"
    if not entry.floating:
        return f"holds {entry.kind} numbers, not floating-point weights"
    if part.reason is not None:
        return part.reason
    if _TRANSPOSED.search(layer):
        return "named like a transposed convolution: its neurons lie on the other axis"
    shape = layout.shape(entry.shape)
    bias = made.get(re.sub(r"(?:weight|kernel)(:0)?$", r"bias\1", name))
    if bias is not None and len(shape) == 4 and bias.entry.shape not in ((shape[0],), ()):
        length = bias.entry.shape[0] if len(bias.entry.shape) == 1 else list(bias.entry.shape)
        return f"a transposed convolution, as its bias of {length} shows: its neurons lie on the other axis"
    return why_skipped(shape, None)
