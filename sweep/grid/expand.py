"""From a grid to the full list of trials that it means."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch.overrides import TorchFunctionMode

import models
from models.architectures import architecture_named
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS, keep_network
from sweep.data.augment import Flipped
from sweep.data.place import as_folder
from sweep.data.registry import DATASETS, Source, source_of_set
from sweep.data.set_index import Sets, find_sets
from sweep.grid.mistakes import explain
from sweep.grid.schema import Grid, GridData
from sweep.spec import DataSpec, Plan, Recipe, Resources, TrialSpec, without_flip


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
    found = find_data(grid.data, f"grid {grid.name}: in data.options: ")
    plans = []
    for architecture in grid.architectures:
        built = architecture_named(architecture)
        data, root, source = found.at(grid.data.image_size or built.image_size)
        recipe = grid.recipe.of_architecture(architecture)
        resources = grid.resources.of_architecture(architecture)
        plans += [
            _plan(
                TrialSpec(
                    architecture=architecture,
                    intervention=intervention,
                    data=data,
                    recipe=recipe,
                    init_seed=seed,
                    data_seed=seed,
                    architecture_revision=built.revision,
                    intervention_revision=INTERVENTIONS[intervention].revision,
                ),
                root,
                resources,
                source.train_images,
            )
            for intervention in grid.interventions
            for seed in grid.seeds_of.get(intervention, grid.seeds)
        ]
    return Expansion(plans, source)


def require_steps(expansion: Expansion) -> None:
    """Refuse trials that could not take a step: their batches are too large, or can't be split by the number of GPUs.

    Raises:
        ValueError: there is such a trial.
    """
    seen = {(plan.spec.recipe, plan.resources): plan for plan in expansion.plans if plan.excluded is None}
    for (recipe, resources), plan in seen.items():
        if expansion.source.train_images is not None:
            recipe.require_images(expansion.source.train_images)
        if resources is not None and resources.processes > 1:
            _require_parts(recipe, resources.processes, plan.spec.architecture)


def _require_parts(recipe: Recipe, gpus: int, architecture: str) -> None:
    """Each GPU takes its share of a batch, in groups of `ghost_batch` images over which batch norm averages."""
    group = recipe.ghost_batch
    if group is None:
        raise ValueError(
            f"{architecture} on {gpus} GPUs needs recipe.ghost_batch, the number of images for which batch norm takes "
            "its statistics, so that the result doesn't depend on the number of GPUs; set it, or lower resources.gpus"
        )
    for phase in recipe.batch_size:
        if phase.size % (gpus * group):
            raise ValueError(
                f"{architecture}: a batch of {phase.size} images can't be split by the number of GPUs, {gpus}, into "
                f"groups of recipe.ghost_batch={group}; make recipe.batch_size a multiple of {gpus * group}"
            )


@dataclass(frozen=True, kw_only=True)
class FoundData:
    """What lies at a grid's `data.root`: prepared sets, or what a data set reads itself."""

    data: GridData
    options: BaseModel
    sets: Sets | None

    def at(self, image_size: int) -> tuple[DataSpec, str | None, Source]:
        """The spec of images of so many pixels, where they come from, and what was found there.

        Raises:
            ValueError: no such set is prepared there, or pictures that were refused were left out.
        """
        if self.sets is None:
            return self._spec(image_size), self.data.location, self._pictures
        options = self.options.model_dump(mode="json")
        folder, index = self.sets.choose(self.data.name, image_size, self.data.seed, without_flip(options))
        source = source_of_set(index)
        if self.data.unusable == "refuse":
            source.require_all_usable()
        return index.spec.model_copy(update={"options": options}), str(folder), source

    @cached_property
    def _pictures(self) -> Source:
        source = DATASETS[self.data.name].inspect(self.options, self.data.folder)
        if self.data.unusable == "refuse":
            source.require_all_usable()
        return source

    def _spec(self, image_size: int) -> DataSpec:
        return DataSpec(
            name=self.data.name,
            image_size=image_size,
            num_classes=self._pictures.num_classes,
            seed=self.data.seed,
            options=self.options.model_dump(mode="json"),
            fingerprint=self._pictures.fingerprint,
        )


def find_data(data: GridData, where: str) -> FoundData:
    """Look at a data set's options and root; `where` begins the message about a wrong option.

    Raises:
        ValueError: an option is wrong, or the root is a URL without prepared sets.
    """
    options = read_options(data, where)
    sets = None if data.location is None else find_sets(as_folder(data.location))
    return FoundData(data=data, options=options, sets=sets)


def read_options(data: GridData, where: str) -> BaseModel:
    """A data set's options; `where` begins the message about a wrong one.

    Raises:
        ValueError: one is wrong.
    """
    dataset = DATASETS[data.name]
    try:
        return dataset.read_options(data.options)
    except ValidationError as error:
        raise ValueError(f"{where}{explain(error, dataset.options)}") from error


def _plan(spec: TrialSpec, root: str | None, resources: Resources, train_images: int | None) -> Plan:
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
        root=root,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        layers=net.final_convs,
        expected=tuple(intervention.finding(spec.architecture, position) for position in positions),
        excluded=excluded,
        resources=resources,
        images=_images(spec, train_images) if excluded is None else 0,
        primary=intervention.primary,
    )


def _images(spec: TrialSpec, train_images: int | None) -> int | None:
    """How many images a trial trains on; None where the data set doesn't say how many it has."""
    if not INTERVENTIONS[spec.intervention].trained:
        return 0
    return None if train_images is None else spec.recipe.images_seen(train_images)


def _undefined(spec: TrialSpec) -> str | None:
    """Why a cell is undefined, or None: models and data from elsewhere know only a few interventions."""
    defined = architecture_named(spec.architecture).interventions
    if defined is not None and spec.intervention not in defined:
        return f"only {', '.join(defined[:-1])} and {defined[-1]} are defined for {spec.architecture}"
    if flip := INTERVENTIONS[spec.intervention].flip:
        if not issubclass(DATASETS[spec.data.name].options, Flipped):
            return f"the data set {spec.data.name} has no option flip"
        if asked := spec.data.options.get("flip"):
            return f"{spec.intervention} flips {flip} whatever data.options.flip is, here {asked}"
    return None


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
