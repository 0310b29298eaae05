"""Networks of timm and torchvision by name, `resnet18.a1_in1k` or `vgg16`, with trained or with random weights.

A name without a tag means the library's preferred weights. The libraries are imported on first use.
"""

import difflib
import inspect
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

_ANSWER_S = 3.0
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_PATTERN = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Library:
    """`architectures` and `weights` list names, these with their tags; `build` makes a network, trained or not."""

    architectures: Callable[[], list[str]]
    weights: Callable[[], list[str]]
    build: Callable[[str, bool], nn.Module]


def names(library: str, wanted: str, trained: bool) -> list[str]:
    """The networks of a library of a name or pattern, or all; with `trained`, those that have weights, with their tags.

    Raises:
        ValueError: the library is not installed or has no such network.
    """
    has = LIBRARIES[library]
    known = has.weights() if trained else has.architectures()
    if not wanted:
        return known
    if _PATTERN & set(wanted):
        found = [name for name in known if fnmatchcase(name, wanted)]
    else:
        found = [wanted] if wanted in {*known, *has.architectures()} else []
    if not found:
        nearest = difflib.get_close_matches(wanted, [*known, *has.architectures()], n=1, cutoff=0.0)[0]
        raise ValueError(f"{library} has no network {wanted!r}; did you mean {nearest!r}?")
    return found


def build(library: str, name: str, trained: bool) -> nn.Module:
    """A network in evaluation mode, with its weights or with random ones, which are the same at each call.

    Raises:
        Exception: whatever its library raises where it can't be built or its weights can't be had.
    """
    torch.manual_seed(0)
    return LIBRARIES[library].build(name, trained).eval()


def skeleton(library: str, name: str) -> nn.Module | None:
    """A network without memory, or None where its constructor needs its weights' values."""
    try:
        with torch.device("meta"):
            return LIBRARIES[library].build(name, False).eval()
    except (NotImplementedError, RuntimeError):  # PyTorch's for what the meta device can't do
        return None


def image_shape(net: Any) -> tuple[int, int, int]:
    """Channels, rows and columns of the images that a network is made for."""
    told = getattr(net, "pretrained_cfg", None) or {}
    shape = told.get("input_size") if isinstance(told, dict) else getattr(told, "input_size", None)
    if shape is not None:
        return tuple(shape)
    side = getattr(net, "image_size", 224)
    return (3, side, side) if isinstance(side, int) else (3, *side)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError("timm is not installed here: pip install timm") from error
    return timm


@cache
def _go_offline_without_a_network() -> None:
    """Have Hugging Face's loader look into its cache at once where its server can't be reached: it would try a minute.

    With a proxy, only trying could tell.
    """
    from huggingface_hub import constants

    if any(os.environ.get(name) for name in _PROXIES):
        return
    server = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((server.hostname or "", server.port or 443), _ANSWER_S).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def _build_timm(name: str, trained: bool) -> nn.Module:
    timm = _timm()
    if trained:
        _go_offline_without_a_network()
    return timm.create_model(name, pretrained=trained)


def _torchvision() -> Any:
    import torchvision

    return torchvision.models


def _torchvision_weights() -> list[str]:
    models = _torchvision()
    return [f"{name}.{one.name}" for name in models.list_models() for one in models.get_model_weights(name)]


def _build_torchvision(name: str, trained: bool) -> nn.Module:
    models = _torchvision()
    architecture, _, tag = name.partition(".")
    options: dict[str, Any] = {"weights": (tag or "DEFAULT") if trained else None}
    if not trained and "weights_backbone" in inspect.signature(models.get_model_builder(architecture)).parameters:
        options["weights_backbone"] = None  # detectors fetch a backbone unless told not to
    return models.get_model(architecture, **options)


LIBRARIES: dict[str, Library] = {
    "timm": Library(
        architectures=lambda: _timm().list_models(),
        weights=lambda: _timm().list_pretrained(),
        build=_build_timm,
    ),
    "torchvision": Library(
        architectures=lambda: _torchvision().list_models(),
        weights=_torchvision_weights,
        build=_build_torchvision,
    ),
}
