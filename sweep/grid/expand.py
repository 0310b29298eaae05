"""From a grid to the full list of trials that it means."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch.overrides import TorchFunctionMode

import models
from models.architectures import architecture_named
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS, keep_network
from sweep.data.registry import DATASETS, Source
from sweep.grid.schema import Grid, GridData, explain
from sweep.spec import DataSpec, Plan, TrialSpec


@dataclass(frozen=True)
class Expansion:
    """All trials of a grid, excluded cells included, and what was found where the images come from."""

    plans: list[Plan]
    source: Source


def expand(grid: Grid) -> Expansion:
    """The full product of a grid.

    Raises:
        ValueError: the data's options or source are wrong.
    """
    options, source = inspected(grid.data, f"grid {grid.name}: in data.options: ")
    plans = []
    for architecture in grid.architectures:
        found = architecture_named(architecture)
        size = grid.data.image_size or found.image_size
        data = data_spec(grid.data, options, source, size)
        recipe = grid.recipe.of_architecture(architecture)
        plans += [
            _plan(
                TrialSpec(
                    architecture=architecture,
                    intervention=intervention,
                    data=data,
                    recipe=recipe,
                    init_seed=seed,
                    data_seed=seed,
                    architecture_revision=found.revision,
                    intervention_revision=INTERVENTIONS[intervention].revision,
                ),
                grid.data.folder,
            )
            for intervention in grid.interventions
            for seed in grid.seeds_of.get(intervention, grid.seeds)
        ]
    return Expansion(plans, source)


def inspected(data: GridData, where: str) -> tuple[BaseModel, Source]:
    """A data set's options and what is found where its images come from."""
    dataset = DATASETS[data.name]
    try:
        options = dataset.read_options(data.options)
    except ValidationError as error:
        raise ValueError(f"{where}{explain(error, dataset.options)}") from error
    source = dataset.inspect(options, data.folder)
    if data.unusable == "refuse":
        source.require_all_usable()
    return options, source


def data_spec(data: GridData, options: BaseModel, source: Source, image_size: int) -> DataSpec:
    return DataSpec(
        name=data.name,
        image_size=image_size,
        num_classes=source.num_classes,
        seed=data.seed,
        options=options.model_dump(mode="json"),
        fingerprint=source.fingerprint,
    )


def _plan(spec: TrialSpec, root: Path | None) -> Plan:
    """A trial as it enters the sweep directory; networks are built without memory, only to be measured."""
    intervention = INTERVENTIONS[spec.intervention]
    baseline = _baseline_of(spec)
    excluded = _undefined(spec) or intervention.meaningless(baseline)
    net = baseline if excluded else _changed(spec)
    if isinstance(net, str):
        excluded, net = net, baseline
    positions = range(1, len(net.final_convs) + 1)
    return Plan(
        spec=spec,
        root=None if root is None else str(root),
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        layers=net.final_convs,
        expected=tuple(intervention.finding(spec.architecture, position) for position in positions),
        excluded=excluded,
    )


def _undefined(spec: TrialSpec) -> str | None:
    """Why a cell is undefined, or None: models from elsewhere have only a few interventions."""
    defined = architecture_named(spec.architecture).interventions
    if defined is None or spec.intervention in defined:
        return None
    return f"only {', '.join(defined[:-1])} and {defined[-1]} are defined for {spec.architecture}"


def _baseline_of(spec: TrialSpec) -> ConvNet:
    """The architecture of a spec, unchanged.

    Raises:
        ValueError: the architecture can't take images of that size.
    """
    net = _ran_on_meta(spec.architecture, "baseline", spec.data.num_classes, spec.data.image_size)
    if isinstance(net, ConvNet):
        return net
    raise ValueError(
        f"{spec.architecture} can't take images of {spec.data.image_size} pixels; raise data.image_size ({net})"
    )


def _changed(spec: TrialSpec) -> ConvNet | str:
    """The network of a spec, or why none of its forward passes can succeed."""
    if INTERVENTIONS[spec.intervention].change_network is keep_network:
        return _baseline_of(spec)
    net = _ran_on_meta(spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size)
    return net if isinstance(net, ConvNet) else f"it can't take images of {spec.data.image_size} pixels ({net})"


class _ShapesAlone(TorchFunctionMode):
    """Makes batch norms return their input: shapes stay the same, and each costs PyTorch 4 ms on the meta device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if function is torch.nn.functional.batch_norm else function(*args, **(kwargs or {}))


@lru_cache(maxsize=256)
def _ran_on_meta(architecture: str, intervention: str, num_classes: int, image_size: int) -> ConvNet | str:
    """A network built and run once without memory, or PyTorch's error where a map is too small for a layer."""
    try:
        with torch.device("meta"), _ShapesAlone(), torch.no_grad():
            net = models.build(architecture, intervention, num_classes, image_size, seed=0)
            net(torch.zeros(2, 3, image_size, image_size))
    except RuntimeError as error:
        return " ".join(str(error).split())
    return net
