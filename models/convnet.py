"""The contract between architectures and interventions: a convolutional body, a head, and the names of its last convs.

Axis letters: `b` batch, `c` channels, `h w` image or map rows and columns.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MakeClassifier = Callable[[int, int], nn.Module]


def linear(in_features: int, num_classes: int) -> nn.Module:
    """A classifier of one fully connected layer."""
    return nn.Linear(in_features, num_classes)


class ConvNet(nn.Module):
    """An image classifier whose head can be replaced.

    `features` maps images `[b, 3, h, w]` to the last map; `head` maps the last map to logits `[b, num_classes]` through
    a pool and a classifier. `final_convs` names the convs to analyse, the last one first, as in `named_modules()`.
    `map_shape` is the shape `(c, h, w)` of the last map. `pool` defaults to global average pooling, `make_classifier`
    to one fully connected layer.
    """

    def __init__(
        self,
        features: nn.Module,
        final_convs: Sequence[str],
        num_classes: int,
        image_size: int,
        pool: nn.Module | None = None,
        make_classifier: MakeClassifier = linear,
    ) -> None:
        super().__init__()
        self.features = features
        self.final_convs = tuple(final_convs)
        self.num_classes = num_classes
        self.image_size = image_size
        self._make_classifier = make_classifier
        self.map_shape = self.measure_map()
        self.set_pool(nn.AdaptiveAvgPool2d(1) if pool is None else pool)

    def set_pool(self, pool: nn.Module) -> None:
        """Give the network a head with this pool; the classifier sees all of its output."""
        outputs = _output_shape(pool, (2, *self.map_shape))[1:].numel()
        classifier = self._make_classifier(outputs, self.num_classes)
        self.head = nn.Sequential(OrderedDict(pool=pool, flatten=nn.Flatten(), classifier=classifier))

    def measure_map(self) -> tuple[int, int, int]:
        """Shape `(c, h, w)` of the last map at the network's image size."""
        _, c, h, w = _output_shape(self.features, (1, 3, self.image_size, self.image_size))
        return c, h, w

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.features(images))

    def maps(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """The last map, and the outputs of the final convs by name, before batch norm and ReLU."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            # An in-place ReLU after it would change what is kept, so copy.
            return lambda _, __, output: outputs.update({name: output.clone()})

        with ExitStack() as hooks:
            for name in self.final_convs:
                hooks.callback(self.get_submodule(name).register_forward_hook(keep(name)).remove)
            last = self.features(images)
        return last, {name: outputs[name] for name in self.final_convs}


class L2Pool2d(nn.Module):
    """Square root of the average of squares over 2x2 windows with stride 2.

    Source: the article names L2 pooling but neither window nor stride; 2x2 with stride 2 is ours.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return root(nn.functional.avg_pool2d(x.square(), 2))


def root(x: Tensor) -> Tensor:
    """Square root with a finite gradient at zero, which after ReLU a whole window may be."""
    return x.add(1e-6).sqrt()


def conv_block(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the map's size (zero padding, no bias), batch norm and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> torch.Size:
    """A module's output shape for an input shape, found without touching the module's state."""
    device = next((parameter.device for parameter in module.parameters()), torch.get_default_device())
    was_training = module.training
    module.eval()
    with torch.no_grad():
        found: torch.Size = module(torch.zeros(shape, device=device)).shape
    module.train(was_training)
    return found
