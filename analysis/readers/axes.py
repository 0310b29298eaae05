"""The order in which a checkpoint stores the axes of a convolution's weight: as declared, else inferred from shapes.

Axis letters: `n` neurons, `c` input channels, `y x` kernel. PyTorch stores n c y x, MLX n y x c, TensorFlow, Keras and
Flax y x c n.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Order = Literal["ncyx", "nyxc", "yxcn"]
Shape = tuple[int, ...]

_DECLARED: dict[str, Order] = {
    "pt": "ncyx", "pytorch": "ncyx", "torch": "ncyx", "torch.save": "ncyx", "pd": "ncyx", "paddle": "ncyx",
    "mlx": "nyxc",
    "tf": "yxcn", "tensorflow": "yxcn", "keras": "yxcn", "flax": "yxcn", "jax": "yxcn",
}  # fmt: skip
_LIBRARY = {"ncyx": "PyTorch", "nyxc": "MLX", "yxcn": "TensorFlow"}
_TO_NCYX: dict[Order, tuple[int, ...]] = {"ncyx": (0, 1, 2, 3), "nyxc": (0, 3, 1, 2), "yxcn": (3, 2, 0, 1)}
_KERNEL_LIMIT = 32  # rows and columns; larger ones are channels
_CHANNELS = 8  # a last axis shorter than this may be a kernel's columns


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The order of a file's axes. `doubt` says why its layers aren't scored, where the file contradicts itself."""

    order: Order
    declared: bool
    doubt: str | None = None

    def shape(self, shape: Shape) -> Shape:
        """A weight's shape with neurons and channels first, whether it has one, two or three dimensions."""
        if self.order == "ncyx" or len(shape) < 3:
            return shape
        if self.order == "nyxc":
            return (shape[0], shape[-1], *shape[1:-1])
        return (shape[-1], shape[-2], *shape[:-2])

    def weight(self, weight: Tensor) -> Tensor:
        """A weight of four axes as [n, c, y, x]."""
        return weight if self.order == "ncyx" else weight.permute(*_TO_NCYX[self.order]).contiguous()

    def doubt_of(self, shape: Shape) -> str | None:
        """Why one layer isn't scored, or None: without a declared order, its shape must not contradict the others'."""
        told = order_told_by(shape)
        if self.doubt is not None or self.declared or told in (None, self.order):
            return self.doubt
        return (
            f"its axes look like {_LIBRARY[told or self.order]}'s, other layers' like {_LIBRARY[self.order]}'s: "
            "their order is ambiguous"
        )


def declared_by(stated: str | None) -> Order | None:
    """The order that the `format` of a file's metadata stands for; None where it stands for none."""
    return None if stated is None else _DECLARED.get(stated.lower())


def layout_of(stated: str | None, shapes: Iterable[Shape], kernels: bool) -> Layout:
    """The order of a file's axes.

    stated: the `format` of its metadata, if any.
    shapes: those of its four-axis weights. A square kernel in only one possible place determines the order.
    kernels: whether they are named `kernel`, as TensorFlow, Keras and Flax do, rather than `weight`.
    """
    told = Counter(order for shape in shapes if (order := order_told_by(shape)) is not None)
    declared = "yxcn" if kernels else declared_by(stated)
    if declared is None:
        return Layout(order=told.most_common(1)[0][0] if told else "ncyx", declared=False)
    if told and declared not in told:
        other = _LIBRARY[told.most_common(1)[0][0]]
        source = "names its weights kernels" if kernels else f"says {stated}"
        doubt = f"the file {source}, so its axes should be {_LIBRARY[declared]}'s, but they look like {other}'s"
        return Layout(order=declared, declared=True, doubt=doubt)
    return Layout(order=declared, declared=True)


def order_told_by(shape: Shape) -> Order | None:
    """The only order in which a weight of this shape has a square kernel; None where there are several or none.

    [16, 16, 3, 3] could also have a 16x16 kernel: a candidate less than half as large as the other is the kernel.
    """
    if len(shape) != 4 or 0 in shape:
        return None
    first, second, third, fourth = shape
    square: dict[Order, int] = {}
    if 1 < third == fourth:
        square["ncyx"] = third
    if 1 < second == third and fourth != third:
        square["nyxc"] = second
    if 1 < first == second and (third, fourth) != (first, first):
        square["yxcn"] = first
    if second == third == fourth:  # n k k k: as many channels as rows
        return None
    likely = {order: size for order, size in square.items() if size <= _KERNEL_LIMIT}
    smallest = min(likely.values(), default=0)
    close = [order for order, size in likely.items() if size <= 2 * smallest]
    if len(close) != 1 or (close[0] != "ncyx" and fourth < max(_CHANNELS, smallest + 1)):
        return None
    return close[0]
