"""The weight that a convolution actually uses, where a file stores the parts it is computed from.

Handles weight norm and spectral norm (as PyTorch's old hooks and its parametrizations store them), masks, scales and
the standardisation of normaliser-free networks; lora.py handles LoRA. Where a weight is computed in any other way, the
layer isn't scored, and the reason says so.

Axis letters: `n` neurons.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from analysis.readers.entry import Entries, Entry

_PARAMETRIZED = re.compile(r"(?P<layer>(?:.*\.)?)parametrizations\.weight\.(?P<part>.+)")
_BESIDE = re.compile(r"(?P<layer>(?:.*\.)?)weight_(?P<part>g|v|orig|mask|u|scale|scale_inv)")
_WITH = re.compile(r"(?P<layer>(?:.*\.)?)(?P<part>mask|gain)")
_STANDARDISATION_EPSILON = 1e-6


@dataclass(frozen=True)
class Made:
    """A tensor of a file, or a weight computed from several; `reason` says why it couldn't be computed."""

    entry: Entry
    reason: str | None = None


Parts = dict[str, Made]


def effective(entries: Entries) -> Parts:
    """Every tensor by name; the parts of a weight are replaced by the weight itself, named `layer.weight`."""
    made = {name: Made(entry) for name, entry in entries.items()}
    made = _joined(made, _PARAMETRIZED, _of_parametrizations)
    made = _joined(made, _BESIDE, _of_hooks)
    return _joined(made, _WITH, _of_buffers, needed="weight")


def computed(like: Entry, read: Callable[[], Tensor]) -> Made:
    """A weight computed in float32, in the shape of the stored one."""
    return Made(Entry(shape=like.shape, kind="float32" if like.floating else like.kind, read=read))


def _joined(made: Parts, pattern: re.Pattern[str], build: Callable[[Parts], Made], needed: str = "") -> Parts:
    """Combine the parts that a pattern finds, layer by layer, with the plain weight, if there is one.

    `needed`: a layer without this part is left as it is.
    """
    groups: dict[str, Parts] = {}
    layers: dict[str, str] = {}
    for name, part in made.items():
        match = pattern.fullmatch(name)
        if match is not None:
            layers[name] = match["layer"]
            groups.setdefault(match["layer"], {})[match["part"]] = part
    for layer in list(groups):
        weight = f"{layer}weight"
        if weight in made:
            layers[weight] = layer
            groups[layer]["weight"] = made[weight]
        elif needed:
            del groups[layer]
    result: Parts = {}
    for name, part in made.items():
        group = groups.get(layers[name]) if name in layers else None
        if group is None:
            result[name] = part
        elif f"{layers[name]}weight" not in result:
            result[f"{layers[name]}weight"] = build(group)
    return result


def _of_parametrizations(parts: Parts) -> Made:
    names = parts.keys()
    if names == {"original0", "original1"}:
        return _weight_norm(parts["original0"].entry, parts["original1"].entry)
    if names == {"original", "0._u", "0._v"}:
        return _spectral_norm(*(parts[name].entry for name in ("original", "0._u", "0._v")))
    others = ", ".join(sorted(names - {"original"}))
    rule = f"an unknown rule (from {others})" if others else "a function that isn't in the file"
    cure = "save the model after torch.nn.utils.parametrize.remove_parametrizations"
    return Made(_largest(parts), f"its weight is computed by {rule}: {cure}")


def _of_hooks(parts: Parts) -> Made:
    held = {name: part.entry for name, part in parts.items()}
    names = parts.keys()
    if names == {"g", "v"}:
        return _weight_norm(held["g"], held["v"])
    if names in ({"orig", "u", "v"}, {"orig", "u"}):
        return _spectral_norm(held["orig"], held["u"], held.get("v"))
    if names == {"orig", "mask"}:
        return _masked(held["orig"], held["mask"])
    if names in ({"weight", "scale"}, {"weight", "scale_inv"}):
        return _scaled(parts["weight"], held.get("scale") or held["scale_inv"])
    kept = ", ".join(sorted(name if name == "weight" else f"weight_{name}" for name in names))
    return Made(_largest(parts), f"its weight is computed by an unknown rule from {kept}")


def _of_buffers(parts: Parts) -> Made:
    """What custom modules store beside a weight: a masked convolution's zeros and ones, a gain for each neuron."""
    weight = parts["weight"]
    mask, gain = parts.get("mask"), parts.get("gain")
    if weight.reason is not None or len(weight.entry.shape) < 3:
        return weight
    if mask is not None and mask.entry.shape == weight.entry.shape:
        weight = _masked(weight.entry, mask.entry)
    neurons = (weight.entry.shape[0], *(1,) * (len(weight.entry.shape) - 1))
    return _standardised(weight.entry, gain.entry) if gain is not None and gain.entry.shape == neurons else weight


def _weight_norm(scale: Entry, direction: Entry) -> Made:
    """g v / |v|, the norm taken over all axes but one, or over all where g is a single number.

    Source: Salimans and Kingma 2016 (arXiv:1602.07868); torch.nn.utils.weight_norm.
    """
    axes = [axis for axis, length in enumerate(scale.shape) if length != 1]
    fits = len(scale.shape) == len(direction.shape) and all(scale.shape[axis] == direction.shape[axis] for axis in axes)
    if scale.shape != () and not (fits and len(axes) < 2):
        return Made(direction, f"weight norm whose scale has the shape {list(scale.shape)}, which isn't PyTorch's")
    others = tuple(axis for axis in range(len(direction.shape)) if axis not in axes)

    def read() -> Tensor:
        g, v = scale.read().float(), direction.read().float()
        return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=True))

    return computed(direction, read)


def _spectral_norm(weight: Entry, u: Entry, v: Entry | None) -> Made:
    """W / (u W v), W with one axis first and the others as one. Old files leave out v, which is W'u / |W'u|.

    Source: Miyato et al. 2018 (arXiv:1802.05957); torch.nn.utils.spectral_norm, as it is outside of training.
    """
    size = math.prod(weight.shape)
    axes = [
        axis
        for axis, length in enumerate(weight.shape)
        if (length,) == u.shape and (v is None or v.shape == (size // max(1, length),))
    ]
    if not axes:
        return Made(weight, f"spectral norm with vectors that don't fit its shape {list(weight.shape)}")

    def read() -> Tensor:
        stored, left = weight.read().float(), u.read().float()
        matrix = stored.movedim(axes[0], 0).flatten(1)
        if v is None:
            return stored / torch.linalg.vector_norm(matrix.T @ left)
        return stored / torch.dot(left, matrix @ v.read().float())

    return computed(weight, read)


def _masked(weight: Entry, mask: Entry) -> Made:
    if weight.shape != mask.shape:
        return Made(weight, f"its mask has another shape, {list(mask.shape)}")

    def read() -> Tensor:
        kept = mask.read().float()
        if not torch.isin(kept, torch.tensor([0.0, 1.0])).all():
            raise ValueError("its mask has numbers other than 0 and 1")
        return weight.read().float() * kept

    return computed(weight, read)


def _scaled(weight: Made, scale: Entry) -> Made:
    """8-bit weights with one scale for the layer or one for each neuron."""
    n, beside = weight.entry.shape[:1], (1,) * (len(weight.entry.shape) - 1)
    if scale.shape not in ((), (1,), n, (*n, *beside)):
        return replace(weight, reason=f"quantised with scales of shape {list(scale.shape)}")
    return computed(weight.entry, lambda: weight.entry.read().float() * scale.read().float().reshape(-1, *beside))


def _standardised(weight: Entry, gain: Entry) -> Made:
    """Gain times the weight, each neuron's with mean 0 and variance 1 / fan-in; a constant of the layer is left out.

    Source: Brock et al. 2021 (arXiv:2101.08692, equation 3), as timm and Haiku keep it.
    """

    def read() -> Tensor:
        stored = weight.read().float()
        axes = tuple(range(1, stored.ndim))
        variance, mean = torch.var_mean(stored, dim=axes, correction=0, keepdim=True)
        fan_in = math.prod(stored.shape[1:])
        return gain.read().float() * (stored - mean) / torch.sqrt((variance + _STANDARDISATION_EPSILON) * fan_in)

    return computed(weight, read)


def _largest(parts: Parts) -> Entry:
    """The part most likely to have the weight's shape."""
    return max((part.entry for part in parts.values()), key=lambda entry: (len(entry.shape), math.prod(entry.shape)))
