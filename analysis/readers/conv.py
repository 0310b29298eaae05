"""A convolution found in a checkpoint, and why it may not be scored.

Axis letters: `n` neurons, `c` input channels of a neuron, `y x` kernel.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution, named after its module; `read` reads its weight [n, c, y, x].

    `skipped` says why it can't be scored, or is None. `groups` is None where the file doesn't say: a state dict shows
    only that a neuron sees `c` channels. Nothing depends on it, since each neuron is reduced by itself.
    """

    layer: str
    shape: tuple[int, ...]
    skipped: str | None
    groups: int | None
    read: Callable[[], Tensor]


def told_apart(convs: list[Conv]) -> list[Conv]:
    """Number convolutions that share a name, from the second on: node names of an ONNX graph need not be unique."""
    taken: set[str] = set()
    seen: Counter[str] = Counter()
    named = []
    for conv in convs:
        name = conv.layer
        while name in taken:
            seen[conv.layer] += 1
            name = f"{conv.layer}#{seen[conv.layer] + 1}"
        taken.add(name)
        named.append(replace(conv, layer=name))
    return named


def why_skipped(shape: tuple[int, ...], groups: int | None) -> str | None:
    """The reason why a convolution's shape has no banding score, or None."""
    if len(shape) == 3:
        return "a one-dimensional convolution has no bands"
    if len(shape) == 5:
        return "a three-dimensional convolution: bands are defined for two dimensions"
    if len(shape) != 4:
        return f"{len(shape)} axes: not a two-dimensional convolution"
    n, c, ky, kx = shape
    if 0 in shape:
        return "empty"
    if min(ky, kx) < 2:
        return f"{ky}x{kx} kernel: bands need at least 2 rows and 2 columns"
    if c == 1:
        kind = {None: "depthwise, or one input channel", 1: "one input channel"}.get(groups, f"depthwise ({n} neurons)")
        return f"{kind}: two features are too few for three colours"
    return None
