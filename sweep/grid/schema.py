"""Grids as a researcher writes them, and what they may contain."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo, field_validator, model_validator

from models.architectures import ARCHITECTURES, architecture_named
from models.interventions import INTERVENTIONS
from models.names import require_known
from sweep.data.registry import DATASETS
from sweep.grid.outline import ALL, Outline, Seeds, TrialRecipe, require_valid
from sweep.grid.settings import TrialResources
from sweep.spec import SEEDS, Frozen, Resources


def _known(kind: str, allowed: dict[str, Any]) -> AfterValidator:
    def check(name: str) -> str:
        require_known(kind, name, allowed)
        return name

    return AfterValidator(check)


def _known_architecture(name: str) -> str:
    architecture_named(name)
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


class GridRecipe(TrialRecipe):
    """A recipe for all of a grid's architectures, with names of architectures that exist."""

    of: dict[Annotated[str, AfterValidator(_known_architecture)], dict[str, JsonValue]] = Field(default_factory=dict)


class GridResources(TrialResources):
    """What each of a grid's trials takes, with names of architectures that exist."""

    of: dict[Annotated[str, AfterValidator(_known_architecture)], dict[str, JsonValue]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _valid_for_each(self) -> Self:
        require_valid(self.of, self.of_architecture, Resources)
        return self


class Grid(Outline):
    """Architectures x interventions x seeds on one data set with one recipe.

    `architectures` and `interventions` may be `all`, which means all that the project names itself, without timm's;
    `seeds_of` gives some interventions their own seeds.
    """

    architectures: tuple[Annotated[str, AfterValidator(_known_architecture)], ...] = Field(min_length=1)
    interventions: tuple[Annotated[str, _known("intervention", INTERVENTIONS)], ...] = Field(min_length=1)
    seeds_of: dict[Annotated[str, _known("intervention", INTERVENTIONS)], Seeds] = Field(default_factory=dict)
    data: GridData
    recipe: GridRecipe
    resources: GridResources = GridResources()

    @field_validator("architectures", "interventions", mode="before")
    @classmethod
    def _all_names(cls, value: Any, info: ValidationInfo) -> Any:
        known = ARCHITECTURES if info.field_name == "architectures" else INTERVENTIONS
        return list(known) if value == ALL else value
