"""What a network is like, from its modules and from one run without numbers: the order of its convs, its pooling.

Axis letters: `b` images, `c` channels, `h w` map, `t` tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

Pooling = Literal["global average", "global max", "flatten", "attention", "unknown"]
_BATCH = 2  # of one, b h w c as rows of a matrix could not be told from flattened maps
_AVERAGES = ("_adaptive_avg_pool2d", "avg_pool2d")
_MAXIMA = ("max_pool2d_with_indices", "adaptive_max_pool2d")
_SOFTMAX = ("_softmax", "_safe_softmax")
_RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_copy", "flatten")
_PADS_LIKE_TENSORFLOW = "Conv2dSame"  # timm's: by zeros, as much as the map needs


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Names of the convs in the order in which they run, and what gathers the last map's positions.

    `dense` convs have kernels as large as their map: they are fully connected layers. Convs that no run has shown keep
    the order of their modules, before the others.
    """

    convs: Sequence[str]
    dense: frozenset[str]
    pooling: Pooling
    parameters: int


def anatomy(net: nn.Module, image_shape: tuple[int, int, int]) -> Anatomy:
    """Look at a network on any device; it is run on tensors without numbers, where that is possible."""
    modules = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    ran: dict[str, bool] = {}

    def note(name: str, taken: Tensor, made: Tensor) -> None:
        ran.pop(name, None)  # what runs again counts where it runs last
        ran[name] = made.shape[-2:].numel() == 1 < taken.shape[-2:].numel()

    hooks = [
        module.register_forward_hook(lambda _, taken, made, name=name: note(name, taken[0], made))
        for name, module in modules.items()
    ]
    try:
        pooling = _pooling(net, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return Anatomy(
        convs=[*(name for name in modules if name not in ran), *ran],
        dense=frozenset(name for name, whole in ran.items() if whole),
        pooling=pooling,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
    )


def padding_of(conv: nn.Conv2d) -> str:
    """How a conv pads its map: `zeros`, `reflect`, `replicate`, `circular`, or `none`."""
    if type(conv).__name__ == _PADS_LIKE_TENSORFLOW:
        return "zeros"
    pads = conv.padding == "same" if isinstance(conv.padding, str) else any(conv.padding)
    return str(conv.padding_mode) if pads else "none"


def _pooling(net: nn.Module, image_shape: tuple[int, int, int]) -> Pooling:
    state = {name: value.to("meta") for name, value in [*net.named_parameters(), *net.named_buffers()]}
    images = torch.empty(_BATCH, *image_shape, device="meta")
    try:
        with torch.no_grad(), _Watch() as watch:
            functional_call(net, state, (images,))
    except Exception:  # noqa: BLE001  # networks that look at numbers, or take more than images, raise anything
        return "unknown"
    return watch.pooling


class _Watch(TorchDispatchMode):
    """Follows a run: `pooling` is what gathered the positions last, since the last conv over more than one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pooling: Pooling = "unknown"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if args and isinstance(args[0], Tensor):
            first = made[0] if isinstance(made, tuple) else made
            self.pooling = _gathers(name, args, first) or self.pooling
        return made


def _gathers(name: str, args: Any, made: Any) -> Pooling | None:
    """What an operation does to the positions of a map; None if it leaves them apart."""
    taken = args[0]
    if name == "convolution":
        return _of_conv(taken, made)
    if "scaled_dot_product" in name or (name in _SOFTMAX and taken.dim() > 2):
        return "attention"
    whole = taken.dim() == 4 and _positions(taken) > 1 and isinstance(made, Tensor)
    if name in _RESHAPES:
        flat = whole and tuple(made.shape) == (taken.shape[0], math.prod(taken.shape[1:]))
        return "flatten" if flat else None
    if name in ("mean", "amax") and len(args) > 1 and _over_positions(taken, args[1]):
        return "global average" if name == "mean" else "global max"
    if name in (*_AVERAGES, *_MAXIMA) and whole and _positions(made) == 1:
        return "global average" if name in _AVERAGES else "global max"
    return None


def _of_conv(taken: Tensor, made: Tensor) -> Pooling | None:
    if made.dim() != 4 or _positions(taken) == 1:
        return None
    return "flatten" if _positions(made) == 1 else "unknown"


def _positions(maps: Tensor) -> int:
    return maps.shape[-2:].numel()


def _over_positions(taken: Tensor, dims: Any) -> bool:
    """Whether dims are all positions of b c h w, of b h w c, or of b t c."""
    over = {dim % taken.dim() for dim in ([dims] if isinstance(dims, int) else dims or [])}
    places = {4: ({2, 3}, {1, 2}), 3: ({1},)}.get(taken.dim(), ())
    return over in places and math.prod(taken.shape[dim] for dim in over) > 1
