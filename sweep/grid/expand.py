"""From a grid to the full list of trials that it means."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError

import models
from models.architectures import architecture_named
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.registry import DATASETS, Source
from sweep.grid.schema import Grid, GridData, explain
from sweep.spec import DataSpec, Plan, Recipe, TrialSpec


@dataclass(frozen=True)
class Expansion:
    """All trials of a grid, excluded cells among them, and what was found where the images come from."""

    plans: list[Plan]
    source: Source


def expand(grid: Grid) -> Expansion:
    """The full product of a grid.

    Raises:
        ValueError: the data's options or source are wrong.
    """
    options, source = inspected(grid.data, f"grid {grid.name}: in data.options: ")
    recipe = Recipe.model_validate(grid.recipe.model_dump())
    plans = []
    for architecture in grid.architectures:
        size = grid.data.image_size or architecture_named(architecture).image_size
        data = data_spec(grid.data, options, source, size)
        plans += [
            _plan(
                TrialSpec(
                    architecture=architecture,
                    intervention=intervention,
                    data=data,
                    recipe=recipe,
                    init_seed=seed,
                    data_seed=seed,
                ),
                grid.data.folder,
            )
            for intervention in grid.interventions
            for seed in grid.seeds_of.get(intervention, grid.seeds)
        ]
    return Expansion(plans, source)


def inspected(data: GridData, place: str) -> tuple[BaseModel, Source]:
    """A data set's options and what is found where its images come from."""
    dataset = DATASETS[data.name]
    try:
        options = dataset.read_options(data.options)
    except ValidationError as error:
        raise ValueError(f"{place}{explain(error, dataset.options)}") from error
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
    """A trial as it enters the sweep directory; networks are built without memory, for their facts alone."""
    intervention = INTERVENTIONS[spec.intervention]
    excluded = _undefined(spec) or intervention.meaningless(_facts_of(spec, "baseline"))
    net = _facts_of(spec, "baseline" if excluded else spec.intervention)
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
    """Why a cell has no definition, or None: models from elsewhere have a few interventions only."""
    defined = architecture_named(spec.architecture).interventions
    if defined is None or spec.intervention in defined:
        return None
    return f"only {', '.join(defined[:-1])} and {defined[-1]} are defined for {spec.architecture}"


def _facts_of(spec: TrialSpec, intervention: str) -> ConvNet:
    return _network_on_meta(spec.architecture, intervention, spec.data.num_classes, spec.data.image_size)


@lru_cache(maxsize=256)
def _network_on_meta(architecture: str, intervention: str, num_classes: int, image_size: int) -> ConvNet:
    try:
        with torch.device("meta"):
            return models.build(architecture, intervention, num_classes, image_size, seed=0)
    except RuntimeError as error:  # a map that a layer would have to make smaller than one pixel
        said = " ".join(str(error).split())
        raise ValueError(
            f"{architecture} can't take images of {image_size} pixels; raise data.image_size ({said})"
        ) from error
