"""timm's convolutional models as architectures: built without a download, their last convs found, the rest refused."""

import sys

import pytest
import torch
from torch import nn

import models
from models import from_timm
from models.architectures import architecture_named
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm", reason="timm is an optional extra")

# Last spatial convs of three kinds: dense in resnet18, depthwise in the others, one of them behind a strided 2x2 conv.
FINAL = {
    "resnet18": ["layer4.1.conv2", "layer4.1.conv1", "layer4.0.conv2"],
    "mobilenetv3_small_050": ["blocks.4.2.conv_dw", "blocks.4.1.conv_dw", "blocks.4.0.conv_dw"],
    "convnext_atto": ["stages.3.blocks.1.conv_dw", "stages.3.blocks.0.conv_dw", "stages.3.downsample.1"],
}


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was attempted")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


def build(name: str, intervention: str = "baseline", image_size: int = 64) -> ConvNet:
    return models.build(f"timm:{name}", intervention, 5, image_size, seed=0)


@pytest.mark.parametrize("name", FINAL)
@pytest.mark.parametrize("intervention", from_timm.INTERVENTIONS)
def test_every_parameter_learns(name: str, intervention: str) -> None:
    net = build(name, intervention)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    images = INTERVENTIONS[intervention].transform(
        torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    )
    for _ in range(2):  # resnet18 starts its residual branches at zero, so some gradients come with the second step
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
    assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", FINAL)
def test_the_last_spatial_convs_are_found(name: str) -> None:
    net = build(name)
    assert list(net.final_convs) == [f"features.{conv}" for conv in FINAL[name]]
    convs = [net.get_submodule(conv) for conv in net.final_convs]
    assert all(isinstance(conv, nn.Conv2d) and min(conv.kernel_size) > 1 for conv in convs)


def test_convs_of_the_head_are_not_final_ones() -> None:
    """timm's VGG has its first hidden layer as a 7x7 conv."""
    with torch.device("meta"):
        net = build("vgg11")
    assert list(net.final_convs) == ["features.features.18", "features.features.16", "features.features.13"]


def test_resnet18_is_timms_own_but_for_its_classifier() -> None:
    net = build("resnet18").eval()
    own = timm.create_model("resnet18", pretrained=False, num_classes=5).eval()
    own.load_state_dict(
        {
            key.removeprefix("features.").replace("head.classifier", "fc"): tensor
            for key, tensor in net.state_dict().items()
        }
    )
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(images), own(images))


@pytest.mark.parametrize("name", FINAL)
def test_no_pooling_has_one_weight_for_each_position(name: str) -> None:
    base, changed = (build(name, intervention).head.classifier for intervention in ("baseline", "no_pooling"))
    assert changed.weight.numel() == 2 * 2 * base.weight.numel()


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second = (build("mobilenetv3_small_050").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_image_size_is_the_models_own() -> None:
    assert architecture_named("timm:resnet18").image_size == 224
    assert architecture_named("timm:inception_v3").image_size == 299


def test_an_unknown_model_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"timm has no model 'resnet19'; did you mean 'timm:resnet18'\?"):
        architecture_named("timm:resnet19")


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("vit_tiny_patch16_224", 64),  # wants another size
        ("vit_tiny_patch16_224", 224),  # gives tokens
        ("swin_tiny_patch4_window7_224", 224),  # gives rows x columns x channels
        ("efficientvit_b0", 64),  # can't do without a pool
    ],
)
def test_a_model_that_is_not_convolutional_is_refused_in_one_line(name: str, image_size: int) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="only convolutional models can") as error:
        build(name, image_size=image_size)
    assert f"timm:{name} can't be used with images of {image_size} pixels" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_timm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm:resnet18 needs timm, which is not installed here: pip install timm"):
        architecture_named("timm:resnet18")
