"""Find the convolutions of any checkpoint, without ever running code that is in it."""

import json
import re

from upath import UPath

from analysis.readers.conv import Conv, why_skipped
from analysis.readers.onnx_file import onnx_convs
from analysis.readers.tensors import ENDINGS, AnyPath, Entries, Entry, entries_of, read_header

_METADATA = "final_convs"
# Weight norm and spectral norm keep a weight up to a factor for each neuron, which no score depends on.
_WEIGHT = re.compile(r"(?:^|\.)(?:weight|weight_v|weight_orig|parametrizations\.weight\.original1?)$")
_TRANSPOSED = re.compile(r"deconv|conv_?transpose|transposed?_?conv|convt\b", re.IGNORECASE)


def is_checkpoint(path: AnyPath) -> bool:
    """Whether a name is that of a file read here."""
    return UPath(path).name.endswith((*ENDINGS, ".onnx"))


def spatial_convs(path: AnyPath) -> list[Conv]:
    """All convolutions of a checkpoint, in the network's order as far as the file tells.

    Those that can't be scored are among them with the reason, and so is what looks like one: any tensor of four axes.

    Raises:
        ValueError: the file is missing, of a kind not read here, unsafe, damaged or without convolutions.
    """
    file = UPath(path)
    if file.suffix == ".onnx" and file.exists():
        convs, held = onnx_convs(file), "of its graph's nodes is one"
    else:
        entries = entries_of(file)
        convs = [_conv(name, entry, entries) for name, entry in entries.items() if _looks_like_one(name, entry)]
        held = f"of its {len(entries)} tensors has the axes of one"
    if not convs:
        raise ValueError(f"{file} holds no convolution: none {held}")
    return convs


def final_convs(path: AnyPath) -> list[str] | None:
    """The convs that a checkpoint of this project names for the analysis, last one first; None in other files."""
    file = UPath(path)
    if file.suffix != ".safetensors":
        return None
    names = read_header(file).metadata.get(_METADATA)
    return None if names is None else list(json.loads(names))


def _looks_like_one(name: str, entry: Entry) -> bool:
    return len(entry.shape) == 4 or (len(entry.shape) in (3, 5) and _WEIGHT.search(name) is not None)


def _conv(name: str, entry: Entry, entries: Entries) -> Conv:
    layer = _WEIGHT.sub("", name) or name
    return Conv(
        layer=layer,
        shape=entry.shape,
        skipped=_why_skipped(name, layer, entry, entries),
        groups=None,
        read=entry.read,
    )


def _why_skipped(name: str, layer: str, entry: Entry, entries: Entries) -> str | None:
    if not _WEIGHT.search(name):
        return "not named as a convolution's weight"
    if not entry.floating:
        return f"holds {entry.kind} numbers, not floating-point weights"
    if f"{layer}.weight_mask" in entries:
        return "pruned: make its mask permanent (torch.nn.utils.prune.remove)"
    if _TRANSPOSED.search(layer):
        return "named as a transposed convolution: its neurons lie on the other axis"
    bias = entries.get(f"{layer}.bias")
    if bias is not None and len(entry.shape) == 4 and bias.shape not in ((entry.shape[0],), ()):
        return f"a transposed convolution, as its bias of {bias.shape[0]} tells: its neurons lie on the other axis"
    return why_skipped(entry.shape, None)
