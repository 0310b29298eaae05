"""Add LoRA's product to the weight it adapts, where a file has both and alpha.

Source: Hu et al. 2021 (arXiv:2106.09685); names and shapes as Hugging Face's PEFT and kohya's scripts keep them for
convolutions: down [r, c, y, x], up [n, r, 1, 1].
"""

import math
import re
from dataclasses import replace

from torch import Tensor

from analysis.readers.effective import Made, Parts, computed
from analysis.readers.entry import Entry

_PART = re.compile(
    r"(?P<layer>.*?)\.?lora_(?P<part>A|B|down|up|[a-z]\w*)(?:\.(?P<adapter>(?!weight$)[^.]+))?(?:\.weight)?"
)
_OTHER_ADAPTERS = re.compile(r"(?P<layer>.+)\.(?:hada|lokr|oft|dora|ia3)_\w+(?:\.weight)?")
_BASES = ("weight", "base_layer.weight", "conv.weight", "original_module.weight", "org_module.weight")
_ALPHAS = ("alpha", "lora_alpha", "lora_alpha.default")


def with_adapters(made: Parts) -> Parts:
    """Replace LoRA's parts by adapted weights; parts without their weight, and other adapters, get a reason."""
    parts_of: dict[str, dict[str, list[str]]] = {}
    for name in made:
        match = _PART.fullmatch(name)
        if match is not None and match["part"] != "alpha":
            parts_of.setdefault(match["layer"], {}).setdefault(match["part"], []).append(name)
    result = dict(made)
    renamed: dict[str, str] = {}
    for layer, parts in parts_of.items():
        base = next((name for name in _under(layer, _BASES) if name in made), None)
        for name in (name for names in parts.values() for name in names):
            if base is None:
                result[name] = replace(made[name], reason="part of a LoRA whose base weight isn't in this file")
            else:
                del result[name]
        if base is not None:
            renamed[base] = _under(layer, ("weight",))[0]
            result[base] = _adapted(made, layer, made[base], parts)
    for name in made:
        match = _OTHER_ADAPTERS.fullmatch(name)
        for base in _under(match["layer"], _BASES) if match is not None else ():
            if base in result:
                result[base] = replace(result[base], reason="changed by an unknown kind of adapter")
    return {renamed.get(name, name): part for name, part in result.items()}


def _adapted(made: Parts, layer: str, weight: Made, parts: dict[str, list[str]]) -> Made:
    """W + alpha / r * up down."""
    if weight.reason is not None:
        return weight
    if parts.keys() not in ({"A", "B"}, {"down", "up"}) or any(len(names) > 1 for names in parts.values()):
        return replace(weight, reason=f"an unknown kind of LoRA ({', '.join(sorted(parts))})")
    down, up = (made[parts[part][0]].entry for part in (("A", "B") if "A" in parts else ("down", "up")))
    alpha = next((made[name].entry for name in _under(layer, _ALPHAS) if name in made), None)
    if alpha is None or math.prod(alpha.shape) != 1:
        return replace(weight, reason="adapted by a LoRA whose alpha isn't in the file: merge it into the weight")
    if not _fits(weight.entry.shape, down.shape, up.shape):
        return replace(weight, reason=f"LoRA's shapes {list(down.shape)} and {list(up.shape)} don't fit the weight")
    return computed(weight.entry, lambda: _sum(weight.entry, down, up, alpha))


def _sum(weight: Entry, down: Entry, up: Entry, alpha: Entry) -> Tensor:
    product = up.read().float().flatten(1) @ down.read().float().flatten(1)
    scale = alpha.read().float().reshape(()) / down.shape[0]
    return weight.read().float() + scale * product.reshape(weight.shape)


def _fits(weight: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    """Whether up [n, r, 1, ...] times down [r, ...] has this weight's shape."""
    return (
        min(len(weight), len(up)) > 1
        and down[1:] == weight[1:]
        and up[:2] == (weight[0], down[0])
        and set(up[2:]) <= {1}
        and down[0] > 0
    )


def _under(layer: str, ends: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{layer}.{end}" if layer else end for end in ends)
