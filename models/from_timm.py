"""Convolutional models of timm by name, `timm:resnet18`; timm is an optional extra and is imported on first use."""

import difflib
from types import ModuleType
from typing import Any

import torch
from torch import nn

from models.convnet import ConvNet

PREFIX = "timm:"
INTERVENTIONS = ("baseline", "rotate90", "no_pooling")  # those that make sense whatever is inside a model
_FINAL_CONVS = 3


def default_image_size(name: str) -> int:
    """Side in pixels of the images that timm trains a model on, by the model's name without prefix.

    Raises:
        ValueError: timm is not installed or has no such model.
    """
    side: int = _timm_with(name).get_pretrained_cfg(name).input_size[-1]
    return side


def build_timm(name: str, num_classes: int, image_size: int) -> ConvNet:
    """A convolutional model of timm with fresh weights; nothing is ever downloaded.

    What some models have between pool and classifier (a norm, a 1x1 conv) comes before the pool here.

    Raises:
        ValueError: timm is not installed or has no such model, or the model is not a convolutional one.
    """
    timm = _timm_with(name)
    refusal = (
        f"{PREFIX}{name} can't be used with images of {image_size} pixels: only convolutional models can be, "
        "whose last map is channels x rows x columns"
    )
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        last_map, convs = _probe(net, image_size)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # timm's models raise any of these
        raise ValueError(f"{refusal} ({' '.join(str(error).split())})") from error
    if len(last_map) != 4 or last_map[1] != net.head_hidden_size or not convs:
        raise ValueError(refusal)
    return ConvNet(net, [f"features.{conv}" for conv in convs[:_FINAL_CONVS]], num_classes, image_size)


def _probe(net: Any, image_size: int) -> tuple[torch.Size, list[str]]:
    """The output shape of a model without pool and classifier for one image, and its convs, the last one to run first.

    Leaves out 1x1 convs and the head's.
    """
    ran: dict[str, None] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.setdefault(name))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and min(module.kernel_size) > 1
    ]
    net.eval()
    with torch.no_grad():
        features = net.forward_features(torch.zeros(1, 3, image_size, image_size))
        for hook in hooks:
            hook.remove()
        shape = net.forward_head(features).shape
    net.train()
    return shape, list(reversed(ran))


def _timm_with(name: str) -> ModuleType:
    """timm, if it is there and has a model of that name."""
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"{PREFIX}{name} needs timm, which is not installed here: pip install timm") from error
    names: list[str] = timm.list_models()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"timm has no model {name!r}; did you mean '{PREFIX}{nearest}'? timm.list_models() lists all")
    return timm
