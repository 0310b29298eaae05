"""The parts of a grid that say how it is run, not what is trained. Knows neither torch nor what a grid may name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sweep.spec import Frozen, Plan, Resources


class Analysis(Frozen):
    """Actors that analyse checkpoints while training goes on; `cpus` and `gpus` are each actor's share.

    `actors: auto` means as many as fit into a quarter of the cluster (one for each 4 CPUs where both shares are 0).
    `layers` is the final convs that each architecture names, or every conv that can be scored, the final ones first.
    """

    actors: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    cpus: float = Field(0.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    layers: Literal["final", "all"] = "final"


class TrialResources(Resources):
    """What each of a grid's trials takes; `of` gives those of some architectures their own values."""

    of: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)

    def of_architecture(self, name: str) -> Resources:
        """What a trial of one architecture takes, without the others' values."""
        return Resources.model_validate(self.model_dump(exclude={"of"}) | self.of.get(name, {}))

    def of_plan(self, plan: Plan) -> Resources:
        """What a planned trial takes: its own resources, or where an older version planned it, those given here."""
        return plan.resources or self.of_architecture(plan.spec.architecture)


class Settings(BaseModel):
    """How a grid is run, taken from its document, which says more."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    resources: TrialResources = TrialResources()
    analysis: Analysis = Analysis()


def settings_of(grid: dict[str, Any]) -> Settings:
    """The settings of a grid's document.

    Raises:
        ValidationError: they are not valid.
    """
    return Settings.model_validate(grid)
