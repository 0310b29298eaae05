"""A grid as far as it can be checked without torch, which takes seconds to load: not the names and data it gives."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sweep.grid.mistakes import explain, shown
from sweep.grid.settings import Analysis, TrialResources
from sweep.spec import SEEDS, Frozen, Recipe

_LONGEST_NAME = 100  # characters
_MOST_TRIALS = 100_000  # each is a folder of the sweep; typing errors make more
ALL = "all"
Seeds = tuple[Annotated[int, Field(ge=0, lt=SEEDS)], ...]


def _folder_name(name: str) -> str:
    """A sweep is a folder of this name, and its jobs are named after it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"{shown(name)} may hold letters, digits, '.', '_' and '-', and begins with one of the first two"
        )
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{shown(name)} is too long: a sweep's name has {_LONGEST_NAME} characters at most")
    return name


def require_valid(names: Iterable[str], of_architecture: Callable[[str], Any], model: type[BaseModel]) -> None:
    """Raise a ValueError that names the architecture whose own values are wrong, and what is wrong with them."""
    for name in names:
        try:
            of_architecture(name)
        except ValidationError as error:
            raise ValueError(f"of.{name}: {explain(error, model)}") from error


class _WrittenRecipe(Recipe):
    """A recipe as it is written: a single number is the batch size for all epochs."""

    @field_validator("batch_size", mode="before")
    @classmethod
    def _one_phase(cls, value: Any) -> Any:
        return [{"from_epoch": 0, "size": value}] if isinstance(value, int) else value


class TrialRecipe(_WrittenRecipe):
    """A recipe for all of a grid's architectures; `of` gives some of them their own values."""

    of: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)

    def of_architecture(self, name: str) -> Recipe:
        """The recipe of one architecture, without the others' values."""
        values = self.model_dump(exclude={"of"}) | self.of.get(name, {})
        return Recipe.model_validate(_WrittenRecipe.model_validate(values).model_dump())

    @model_validator(mode="after")
    def _valid_for_each(self) -> Self:
        require_valid(self.of, self.of_architecture, _WrittenRecipe)
        return self


class Outline(Frozen):
    """The keys of a grid, how many trials it makes, and how they are trained; `Grid` knows what they may name."""

    name: Annotated[str, AfterValidator(_folder_name)]
    architectures: tuple[str, ...] = Field(min_length=1)
    interventions: tuple[str, ...] = Field(min_length=1)
    seeds: Seeds = Field((0,), min_length=1)
    seeds_of: dict[str, Seeds] = Field(default_factory=dict)
    data: Any
    recipe: TrialRecipe
    analysis: Analysis = Analysis()
    resources: TrialResources = TrialResources()

    @field_validator("architectures", "interventions", mode="before")
    @classmethod
    def _all_names(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ARG003  # `Grid` asks which field it is
        return [ALL] if value == ALL else value

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
        at_least = "at least " if ALL in self.architectures + self.interventions else ""
        if trials > _MOST_TRIALS:
            raise ValueError(
                f"architectures x interventions x seeds is {at_least}{trials:,} trials, and a grid has "
                f"{_MOST_TRIALS:,} at most; name fewer, and launch the rest as another grid"
            )
        return self
