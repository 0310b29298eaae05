"""Every architecture begins with the weights of its source."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

import models

pytestmark = pytest.mark.slow

SOURCES: dict[str, Callable[[], nn.Module]] = {
    "inception_v1": lambda: torchvision.models.GoogLeNet(10, aux_logits=False, init_weights=True),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "vgg19": lambda: torchvision.models.vgg19(num_classes=10),
    "alexnet": lambda: torchvision.models.alexnet(num_classes=10),
}


@pytest.fixture(autouse=True)
def without_large_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden layers of 10 million weights and more keep what memory holds: they would take seconds."""
    reset, normal = nn.Linear.reset_parameters, nn.init.normal_

    def normal_unless_large(tensor: Tensor, *values: float) -> Tensor:
        return normal(tensor, *values) if tensor.numel() < 10**7 else tensor

    monkeypatch.setattr(nn.init, "normal_", normal_unless_large)
    monkeypatch.setattr(
        nn.Linear, "reset_parameters", lambda layer: reset(layer) if layer.weight.numel() < 10**7 else None
    )


def spreads(net: nn.Module, kind: type[nn.Conv2d] | type[nn.Linear]) -> list[tuple[tuple[int, ...], float, float]]:
    """Shape, and standard deviations of weights and biases, of each conv or of the last fully connected layer."""
    layers = [layer for layer in net.modules() if isinstance(layer, kind)]
    return [
        (tuple(layer.weight.shape), layer.weight.std().item(), 0.0 if layer.bias is None else layer.bias.std().item())
        for layer in (layers if kind is nn.Conv2d else layers[-1:])
    ]


@pytest.mark.parametrize("architecture", SOURCES)
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
def test_weights_are_spread_as_in_the_source(architecture: str, kind: type[nn.Conv2d] | type[nn.Linear]) -> None:
    torch.manual_seed(1)
    own, source = (
        spreads(models.build(architecture, "baseline", 10, 224, seed=0), kind),
        spreads(SOURCES[architecture](), kind),
    )
    assert len(own) == len(source)
    for (shape, weights, biases), (source_shape, source_weights, source_biases) in zip(own, source, strict=True):
        if shape[2:] == source_shape[2:]:  # our Inception has 5x5 kernels where torchvision has 3x3
            assert shape == source_shape
        assert weights == pytest.approx(source_weights, rel=0.1)
        assert biases == pytest.approx(source_biases, rel=0.7)  # of as few as ten numbers


def test_what_an_intervention_puts_into_the_body_begins_like_the_body() -> None:
    base, changed = (models.build("vgg19", name, 10, 64, seed=0) for name in ("baseline", "coord_conv"))
    for name in base.final_convs:
        conv = changed.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        assert conv.weight.std().item() == pytest.approx(base.get_submodule(name).weight.std().item(), rel=0.05)


@pytest.mark.parametrize("architecture", ["vgg19", "alexnet", "simplified_mini"])
def test_different_images_have_different_logits(architecture: str) -> None:
    net = models.build(architecture, "baseline", 10, 64, seed=0).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = net.features(images)
    first, second = maps.flatten(1)
    assert (first - second).norm() > 1e-3 * first.norm()
