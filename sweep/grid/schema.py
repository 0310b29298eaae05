"""Grids as a researcher writes them, and what they may contain."""

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, JsonValue, ValidationError, field_validator, model_validator

from models.architectures import ARCHITECTURES, architecture_named
from models.interventions import INTERVENTIONS
from models.names import require_known
from sweep.data.registry import DATASETS
from sweep.grid.settings import Analysis, TrialResources
from sweep.spec import SEEDS, Frozen, Recipe, Resources


def _known(kind: str, allowed: dict[str, Any]) -> AfterValidator:
    def check(name: str) -> str:
        require_known(kind, name, allowed)
        return name

    return AfterValidator(check)


def _known_architecture(name: str) -> str:
    architecture_named(name)
    return name


def _folder_name(name: str) -> str:
    """A sweep is a folder of this name, and its jobs are named after it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"{_shown(name)} may hold letters, digits, '.', '_' and '-', and begins with one of the first two"
        )
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{_shown(name)} is too long: a sweep's name has {_LONGEST_NAME} characters at most")
    return name


class GridData(Frozen):
    """Which data set; `image_size` is in pixels (default: the architecture's).

    `root` is the folder it is read from, or where it lies prepared: a set, or a folder or URL of sets.

    Picture files that are `unusable` are left out and listed, or refused.
    """

    name: Annotated[str, _known("data set", DATASETS)]
    root: str | None = None
    image_size: int | None = Field(None, ge=8)
    seed: int = Field(0, ge=0, lt=SEEDS)
    unusable: Literal["leave_out", "refuse"] = "leave_out"
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        return Path(self.root).expanduser().resolve() if self.root else None

    @property
    def location(self) -> str | None:
        """`root` as other machines understand it: a URL unchanged, a path made absolute."""
        return self.root if self.root and "://" in self.root else str(self.folder) if self.root else None


class _WrittenRecipe(Recipe):
    """A recipe as it is written: a single number is the batch size for all epochs."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _one_phase(cls, value: Any) -> Any:
        return [{"from_epoch": 0, "size": value}] if isinstance(value, int) else value


class GridRecipe(_WrittenRecipe):
    """A recipe for all of a grid's architectures; `of` gives some of them their own values."""

    of: dict[Annotated[str, AfterValidator(_known_architecture)], dict[str, JsonValue]] = Field(default_factory=dict)

    def of_architecture(self, name: str) -> Recipe:
        """The recipe of one architecture, without the others' values."""
        values = self.model_dump(exclude={"of"}) | self.of.get(name, {})
        return Recipe.model_validate(_WrittenRecipe.model_validate(values).model_dump())

    @model_validator(mode="after")
    def _valid_for_each(self) -> Self:
        _require_valid(self.of, self.of_architecture, _WrittenRecipe)
        return self


def _require_valid(names: Iterable[str], of_architecture: Callable[[str], Any], model: type[BaseModel]) -> None:
    """Raise a ValueError that names the architecture whose own values are wrong, and what is wrong with them."""
    for name in names:
        try:
            of_architecture(name)
        except ValidationError as error:
            raise ValueError(f"of.{name}: {explain(error, model)}") from error


class GridResources(TrialResources):
    """What each of a grid's trials takes, with names of architectures that exist."""

    of: dict[Annotated[str, AfterValidator(_known_architecture)], dict[str, JsonValue]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _valid_for_each(self) -> Self:
        _require_valid(self.of, self.of_architecture, Resources)
        return self


_LONGEST_NAME = 100  # characters
_LONGEST_INPUT = 80  # characters of a wrong value that an error shows
Seeds = tuple[Annotated[int, Field(ge=0, lt=SEEDS)], ...]


_MOST_TRIALS = 100_000  # each is a folder of the sweep; typing errors make more


class Grid(Frozen):
    """Architectures x interventions x seeds on one data set with one recipe.

    `architectures` and `interventions` may be `all`, which means all that the project names itself, without timm's;
    `seeds_of` gives some interventions their own seeds.
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    architectures: tuple[Annotated[str, AfterValidator(_known_architecture)], ...] = Field(min_length=1)
    interventions: tuple[Annotated[str, _known("intervention", INTERVENTIONS)], ...] = Field(min_length=1)
    seeds: Seeds = Field((0,), min_length=1)
    seeds_of: dict[Annotated[str, _known("intervention", INTERVENTIONS)], Seeds] = Field(default_factory=dict)
    data: GridData
    recipe: GridRecipe
    analysis: Analysis = Analysis()
    resources: GridResources = GridResources()

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
            repeated = sorted(str(value) for value, times in Counter(values).items() if times > 1)
            if repeated:
                more = f" and {len(repeated) - 5} others" if len(repeated) > 5 else ""
                raise ValueError(f"{key} names {', '.join(repeated[:5])}{more} more than once")
        return self

    @model_validator(mode="after")
    def _of_a_size_to_plan(self) -> Self:
        seeds = sum(len(self.seeds_of.get(intervention, self.seeds)) for intervention in self.interventions)
        trials = len(self.architectures) * seeds
        if trials > _MOST_TRIALS:
            raise ValueError(
                f"architectures x interventions x seeds is {trials:,} trials, and a grid has {_MOST_TRIALS:,} at most; "
                "name fewer, and launch the rest as another grid"
            )
        return self


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A validation's first error as one line: where, what, and what is allowed."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = list(_model_at(model, first["loc"][:-1]).model_fields)
        if not allowed:
            return f"unknown key {where!r}; no keys are allowed here"
        nearest = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1, cutoff=0.0)[0]
        return f"unknown key {where!r}; did you mean {nearest!r}? Allowed: {', '.join(allowed)}"
    if first["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        shown = _shown(first["input"])
        nearest = difflib.get_close_matches(shown, allowed, n=1, cutoff=0.0)[0]
        return f"{where}: unknown value {shown}; did you mean {nearest!r}? Allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    message = _KINDS.get(first["type"]) or first["msg"].replace("Input should be", "must be")
    return f"{where}: {message}, not {_shown(first['input'])}"


def _shown(value: Any) -> str:
    """A wrong value, or as much of it as fits in a line."""
    return reprlib.repr(value)[:_LONGEST_INPUT]


_WHOLE, _NUMBER, _MAPPING = "must be a whole number", "must be a number", "must be a mapping of keys to values"
_KINDS = {
    "tuple_type": "must be a list, such as [0, 1]",
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": "must be a finite number",
    "string_type": "must be text",
    "model_type": _MAPPING, "dict_type": _MAPPING, "model_attributes_type": _MAPPING,
}  # fmt: skip
"""Messages for a value of the wrong kind, by pydantic's name for the error."""


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that validates the value at a location."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return model
