"""Grids: what a researcher writes, and the full list of trials that it means."""

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import torch
import yaml
from pydantic import AfterValidator, BaseModel, Field, JsonValue, ValidationError, field_validator, model_validator

import models
from models.architectures import ARCHITECTURES, architecture_named
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from models.names import require_known
from sweep.data.registry import DATASETS, Source
from sweep.spec import SEEDS, DataSpec, Frozen, Plan, Recipe, TrialSpec
from sweep.store.kept import SAVE_EVERY_S


def _known(kind: str, allowed: dict[str, Any]) -> AfterValidator:
    def check(name: str) -> str:
        require_known(kind, name, allowed)
        return name

    return AfterValidator(check)


def _known_architecture(name: str) -> str:
    architecture_named(name)
    return name


class GridData(Frozen):
    """Which data set; `root` is the folder it is read from, `image_size` in pixels (default: the architecture's)."""

    name: Annotated[str, _known("data set", DATASETS)]
    root: str | None = None
    image_size: int | None = Field(None, ge=8)
    seed: int = Field(0, ge=0, lt=SEEDS)
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        return Path(self.root).expanduser().resolve() if self.root else None


class GridRecipe(Recipe):
    """A recipe as it is written: one number is a batch size for all epochs."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _one_phase(cls, value: Any) -> Any:
        return [{"from_epoch": 0, "size": value}] if isinstance(value, int) else value


class Analysis(Frozen):
    """Actors that analyse checkpoints while training goes on; `cpus` and `gpus` are each actor's share.

    `actors: auto` means as many as fit into a quarter of the cluster (one for each 4 CPUs where both shares are 0).
    `layers` is the final convs that each architecture names, or every conv that can be scored, the final ones first.
    """

    actors: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    cpus: float = Field(0.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    layers: Literal["final", "all"] = "final"


class Resources(Frozen):
    """What one trial occupies: CPUs, which are its threads too, and at most one GPU, which small trials may share.

    A checkpoint is written at each epoch's end and every `save_every_s` seconds in between.
    """

    cpus: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0, le=1)
    save_every_s: float = Field(SAVE_EVERY_S, gt=0)


_LARGEST_IMAGES = 224  # pixels; what all architectures but simplified_mini see
Seeds = tuple[Annotated[int, Field(ge=0, lt=SEEDS)], ...]


class Grid(Frozen):
    """Architectures x interventions x seeds on one data set with one recipe.

    `architectures` and `interventions` may be `all`, which stands for those that the project names itself, without
    timm's; `seeds_of` gives single interventions seeds of their own.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    architectures: tuple[Annotated[str, AfterValidator(_known_architecture)], ...] = Field(min_length=1)
    interventions: tuple[Annotated[str, _known("intervention", INTERVENTIONS)], ...] = Field(min_length=1)
    seeds: Seeds = Field((0,), min_length=1)
    seeds_of: dict[Annotated[str, _known("intervention", INTERVENTIONS)], Seeds] = Field(default_factory=dict)
    data: GridData
    recipe: GridRecipe
    analysis: Analysis = Analysis()
    resources: Resources = Resources()

    @field_validator("architectures", mode="before")
    @classmethod
    def _all_architectures(cls, value: Any) -> Any:
        return list(ARCHITECTURES) if value == "all" else value

    @field_validator("interventions", mode="before")
    @classmethod
    def _all_interventions(cls, value: Any) -> Any:
        return list(INTERVENTIONS) if value == "all" else value

    @model_validator(mode="after")
    def _no_repetition(self) -> Self:
        lists = {key: getattr(self, key) for key in ("architectures", "interventions", "seeds")}
        for key, values in (lists | {f"seeds_of.{name}": seeds for name, seeds in self.seeds_of.items()}).items():
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(f"{key} names {', '.join(repeated)} more than once")
        return self


@dataclass(frozen=True)
class Expansion:
    """All trials of a grid, excluded cells among them, and what was found where the images come from."""

    plans: list[Plan]
    source: Source


def grid_names() -> list[str]:
    """Names of the grids that come with the project."""
    return _yaml_names(files("sweep.grids"))


def preset_names(key: str) -> list[str]:
    """Names of the recipes or data that come with the project."""
    return _yaml_names(files("sweep.presets") / key)


def load_grid(name_or_file: str, settings: list[str]) -> Grid:
    """Read a grid by its name or from a YAML file, with `key=value` settings over it.

    Raises:
        ValueError: it is unknown, or a key or value in it is wrong; one line with the allowed ones and the nearest.
    """
    document = _read_document(name_or_file)
    _fill_presets(document)
    for setting in settings:
        _apply(document, setting)
        _fill_presets(document)
    try:
        return Grid.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"grid {name_or_file}: {explain(error, Grid)}") from error


def expand(grid: Grid) -> Expansion:
    """The full product of a grid.

    Raises:
        ValueError: the data's options or source are wrong.
    """
    options, source = _inspected(grid.data, f"grid {grid.name}: in data.options: ")
    recipe = Recipe.model_validate(grid.recipe.model_dump())
    plans = []
    for architecture in grid.architectures:
        size = grid.data.image_size or architecture_named(architecture).image_size
        data = _data_spec(grid.data, options, source, size)
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


def load_data(name: str, root: str | None, settings: list[str]) -> tuple[GridData, DataSpec]:
    """A data set by itself, with settings such as `image_size=224` or `options.val_share=0.2`, and what a trial sees.

    Raises:
        ValueError: a name or a value is wrong, or the folder does not hold such a data set.
    """
    document: dict[str, Any] = {"data": name if name in preset_names("data") else {"name": name}}
    _fill_presets(document)
    document["data"] |= {} if root is None else {"root": root}
    for setting in settings:
        _apply(document["data"], setting)
    try:
        data = GridData.model_validate(document["data"])
    except ValidationError as error:
        raise ValueError(f"data set {name}: {explain(error, GridData)}") from error
    options, source = _inspected(data, f"data set {name}: in options: ")
    return data, _data_spec(data, options, source, data.image_size or _LARGEST_IMAGES)


def _inspected(data: GridData, place: str) -> tuple[BaseModel, Source]:
    """A data set's options and what is found where its images come from."""
    dataset = DATASETS[data.name]
    try:
        options = dataset.options.model_validate(data.options)
    except ValidationError as error:
        raise ValueError(f"{place}{explain(error, dataset.options)}") from error
    return options, dataset.inspect(options, data.folder)


def _data_spec(data: GridData, options: BaseModel, source: Source, image_size: int) -> DataSpec:
    return DataSpec(
        name=data.name,
        image_size=image_size,
        num_classes=source.num_classes,
        seed=data.seed,
        options=options.model_dump(mode="json"),
        fingerprint=source.fingerprint,
    )


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of a validation as one line: where, what, and what would be allowed."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = list(_model_at(model, first["loc"][:-1]).model_fields)
        nearest = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1, cutoff=0.0)[0]
        return f"unknown key {place!r}; did you mean {nearest!r}? Allowed: {', '.join(allowed)}"
    if first["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        nearest = difflib.get_close_matches(str(first["input"]), allowed, n=1, cutoff=0.0)[0]
        return f"{place}: unknown value {first['input']!r}; did you mean {nearest!r}? Allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{place} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}, not {first['input']!r}" if first["type"] != "value_error" else f"{place}: {message}"


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


def _yaml_names(folder: Traversable) -> list[str]:
    return sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))


def _read_document(name_or_file: str) -> dict[str, Any]:
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file).expanduser()
        if not path.is_file():
            raise ValueError(f"there is no grid file {path}")
        text = path.read_text(encoding="utf-8")
    else:
        require_known("grid", name_or_file, grid_names())
        text = (files("sweep.grids") / f"{name_or_file}.yaml").read_text(encoding="utf-8")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"grid {name_or_file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ValueError(f"grid {name_or_file} must be a mapping of keys to values")
    return document


def _fill_presets(document: dict[str, Any]) -> None:
    """Put the shipped recipe or data of a name in the name's place."""
    for key in ("recipe", "data"):
        name = document.get(key)
        if isinstance(name, str):
            folder = files("sweep.presets") / key
            require_known(key, name, preset_names(key))
            document[key] = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))


def _apply(document: dict[str, Any], setting: str) -> None:
    """Put one `a.b=value` into a document; the value is read as YAML."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {setting!r} must look like recipe.epochs=3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"--set {setting!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    *parents, last = key.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
        if not isinstance(document, dict):
            raise ValueError(f"--set {setting!r}: {parent!r} has no keys below it")
    document[last] = value


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that validates the value at a location."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return model
