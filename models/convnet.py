"""The contract between architectures and interventions: a convolutional body, a head, and the names of its last convs.

Axis letters: `b` batch, `c` channels, `h w` image or map rows and columns.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvNet(nn.Module):
    """An image classifier whose head can be exchanged.

    `features` maps images `[b, 3, h, w]` to the last map; `head` maps the last map to logits `[b, num_classes]`.
    `final_convs` names the convs to analyse, the last one first, as in `named_modules()`. `map_shape` is the
    shape `(c, h, w)` of the last map.
    """

    def __init__(self, features: nn.Module, final_convs: Sequence[str], num_classes: int, image_size: int) -> None:
        super().__init__()
        self.features = features
        self.final_convs = tuple(final_convs)
        self.num_classes = num_classes
        self.image_size = image_size
        self.map_shape = _map_shape(features, image_size)
        self.head = pooled_head(self.map_shape[0], num_classes)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return self.head(self.features(images))


class L2Pool2d(nn.Module):
    """Square root of the average of squares over 2x2 windows with stride 2.

    Source: the article names L2 pooling but neither window nor stride; 2x2 with stride 2 is ours.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        # 1e-6 keeps the gradient of the square root finite where a whole window is zero after ReLU.
        return nn.functional.avg_pool2d(x.square(), 2).add(1e-6).sqrt()


def conv_block(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the map's size (zero padding, no bias), batch norm and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))


def pooled_head(channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling and one fully connected layer."""
    return nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=nn.Linear(channels, num_classes))
    )


def _map_shape(features: nn.Module, image_size: int) -> tuple[int, int, int]:
    """Shape `(c, h, w)` of the map that `features` makes of one image, found without touching its state."""
    was_training = features.training
    device = next(features.parameters()).device
    features.eval()
    with torch.no_grad():
        shape = features(torch.zeros(1, 3, image_size, image_size, device=device)).shape
    features.train(was_training)
    return int(shape[1]), int(shape[2]), int(shape[3])
