"""What a grid can name, from the registries themselves. This loads torch, so `sweep list` reads a catalogue instead.

Each function returns a header and rows of text, the name first.
"""

from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import torch
import yaml
from pydantic import BaseModel
from torch import nn

import models
from models import from_timm
from models.architectures import ARCHITECTURES
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.registry import DATASETS
from sweep.grid.catalogue import Rows
from sweep.grid.document import grid_names, preset_names

_CLASSES = 1001  # of the article's classifier


def architectures() -> Rows:
    """The architectures, with their number of parameters for the article's 1001 classes."""
    rows = []
    for name, architecture in ARCHITECTURES.items():
        net = _on_meta(name, "baseline")
        layers = ", ".join(conv.removeprefix("features.").removesuffix(".conv") for conv in net.final_convs)
        rows.append([name, str(architecture.image_size), layers, _count(net), architecture.source])
    source = f"any convolutional model of timm (pip install timm), with {', '.join(from_timm.INTERVENTIONS)}"
    rows.append([f"{from_timm.PREFIX}NAME", "the model's", "last three spatial convs", "the model's", source])
    return ["architecture", "image size", "layers analysed", f"parameters ({_CLASSES} classes)", "source"], rows


def interventions() -> Rows:
    """The interventions, with `simplified`'s parameters (for 1001 classes) and expected findings under each."""
    rows = []
    for name, intervention in INTERVENTIONS.items():
        net = _on_meta("simplified", name)
        expected = ", ".join(intervention.expected.get("simplified", ("unknown",)))
        rows.append([name, intervention.what, _count(net.head), _count(net), expected, intervention.source])
    head, whole = "parameters of the head of `simplified`", "of the whole network"
    return ["intervention", "what changes", head, whole, "expected (last conv first)", "source"], rows


def data() -> Rows:
    """The data sets with their options' defaults; then the shipped presets, each a data set with other options."""
    rows = [
        [name, dataset.what, _settings(_defaults(dataset.options)), dataset.source]
        for name, dataset in DATASETS.items()
    ]
    for name in preset_names("data"):
        what, values = _preset("data", name)
        preset_of = f"`{values.pop('name')}` with other options"
        rows.append([name, what, _settings(values.pop("options", {}) | values), preset_of])
    return ["data set", "what it is", "options", "source"], rows


def recipes() -> Rows:
    """The shipped recipes: their values, and the first line of the comment that each opens with."""
    rows = []
    for name in preset_names("recipe"):
        what, values = _preset("recipe", name)
        rows.append([name, what, _settings(values)])
    return ["recipe", "what it is", "values"], rows


def grids() -> Rows:
    """The shipped grids and the comment that each opens with, without its first line, which is the command."""
    folder = files("sweep.grids")
    rows = [[name, " ".join(_comment(folder / f"{name}.yaml")[1:])] for name in grid_names()]
    return ["grid", "what it is"], rows


ROWS: dict[str, Callable[[], Rows]] = {
    "architectures": architectures,
    "interventions": interventions,
    "data": data,
    "recipes": recipes,
    "grids": grids,
}


def _comment(file: Traversable) -> list[str]:
    """The lines of the comment that a YAML file opens with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    ends = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:ends]]


def _preset(key: str, name: str) -> tuple[str, dict[str, Any]]:
    """The first line of a preset's comment, and its values."""
    file = files("sweep.presets") / key / f"{name}.yaml"
    return (_comment(file) or [""])[0], yaml.safe_load(file.read_text(encoding="utf-8"))


def _defaults(options: type[BaseModel]) -> dict[str, Any]:
    return {
        name: "required" if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in options.model_fields.items()
    }


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items()) or "none"


def _value(value: Any) -> str:
    """A value as YAML has it; phases of a batch size in words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and value and all(isinstance(phase, dict) for phase in value):
        return " then ".join(f"{phase['size']} from epoch {phase['from_epoch']}" for phase in value)
    return str(value)


def _on_meta(architecture: str, intervention: str) -> ConvNet:
    """A network without memory, only to be measured."""
    with torch.device("meta"):
        return models.build(architecture, intervention, _CLASSES, ARCHITECTURES[architecture].image_size, seed=0)


def _count(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"
