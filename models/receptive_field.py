"""Which pixels of an image a position of a conv's output depends on: its receptive field.

Axis letters: `c` channels, `h w` rows and columns of a map, `y x` rows and columns of an image.

The network runs once with each convolution an average over its window and all channels, each max pool an average, and
no norms. All that it does is then positive, so nothing cancels and ReLUs change nothing: the gradient of an output is
positive at each pixel that it depends on and zero elsewhere, whatever the weights are.

Source: Luo et al. 2016 (arXiv:1701.04128) for the gradient; Araujo et al., Computing Receptive Fields of Convolutional
Neural Networks, Distill 2019, for what it must come to (`start`, `step` and `size` follow from kernels, strides and
paddings). To have PyTorch follow the graph is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from models.convnet import ConvNet


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A receptive field along one axis, in pixels: that of position p is `size` long and begins at `start + p * step`.

    It may begin before the image and end behind it. Where it would be as long as the image or longer, it is the image.
    """

    start: int
    step: int
    size: int

    def of(self, position: int) -> tuple[int, int]:
        """The first pixel that a position depends on, and the one behind the last."""
        first = self.start + position * self.step
        return first, first + self.size


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """The rows and the columns of an image that the positions of a map depend on."""

    rows: Extent
    columns: Extent


def receptive_fields(net: ConvNet) -> dict[str, ReceptiveField]:
    """The receptive field of each of the final convs, by name, in images of the network's size.

    Norms count for nothing, also those that look at a whole map.
    """
    side = 2 * net.image_size  # so that in the middle no field is cut off that is smaller than the image
    image = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)  # float32 vanishes in deep networks
    net.eval()
    with _Averages():
        _, outputs = net.maps(image)
    return {name: _field(output, image, net.image_size) for name, output in outputs.items()}


def _field(outputs: Float[Tensor, "1 c h w"], image: Float[Tensor, "1 3 y x"], side: int) -> ReceptiveField:
    middle = [(length - 1) // 2 for length in outputs.shape[2:]]
    beside = [min(at + 1, length - 1) for at, length in zip(middle, outputs.shape[2:], strict=True)]
    pairs = zip(middle, _pixels(outputs, image, middle), _pixels(outputs, image, beside), strict=True)
    rows, columns = (_extent(at, near, next_, image.shape[-1], side) for at, near, next_ in pairs)
    return ReceptiveField(rows=rows, columns=columns)


def _pixels(outputs: Tensor, image: Tensor, position: list[int]) -> list[tuple[int, int]]:
    """The first and the last row that a position depends on, and the first and the last column."""
    row, column = position
    (slopes,) = torch.autograd.grad(outputs[0, :, row, column].sum(), image, retain_graph=True)
    reached = slopes[0].sum(dim=0) > 0
    places = [reached.any(dim=across).nonzero() for across in (1, 0)]
    return [(int(found.min()), int(found.max())) for found in places]


def _extent(position: int, near: tuple[int, int], beside: tuple[int, int], canvas: int, side: int) -> Extent:
    """What the pixels of a position and of its neighbour say about all positions."""
    (first, last), step = near, beside[0] - near[0]
    whole = first == 0 or last == canvas - 1 or step == 0
    if whole or last - first + 1 >= side:
        return Extent(start=0, step=0, size=side)
    return Extent(start=first - position * step, step=step, size=last - first + 1)


class _Averages(TorchFunctionMode):
    """While it is active, convolutions and max pools average, and norms give what they are given."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _INSTEAD.get(func, func)(*args, **(kwargs or {}))


def _average(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """A convolution that averages over its window and all channels, also those of other groups."""
    kernel = x.new_ones(1, 1, *weight.shape[2:]) / weight.shape[2:].numel()
    averages = torch.conv2d(x.mean(dim=1, keepdim=True), kernel, None, stride, padding, dilation)
    return averages.repeat(1, len(weight), 1, 1)


def _average_pool(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:  # fmt: skip
    """An average in place of a max pool; a dilated one has the same outline as one without gaps."""
    kernel, spread = (torch.tensor(_pair(sizes)) for sizes in (kernel_size, dilation))
    outline = (spread * (kernel - 1) + 1).tolist()
    return functional.avg_pool2d(x, outline, kernel_size if stride is None else stride, padding, ceil_mode)


def _pair(sizes: Any) -> Any:
    return sizes if isinstance(sizes, tuple | list) else (sizes, sizes)


def _unchanged(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


_NORMS = (functional.batch_norm, functional.group_norm, functional.instance_norm, functional.layer_norm)
_INSTEAD: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _average,
    functional.max_pool2d: _average_pool,
    **dict.fromkeys(_NORMS, _unchanged),
}
