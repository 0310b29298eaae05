"""TrialSpec: everything that changes a trial's result, and nothing else; Plan: a trial as planned.

Resources (GPUs, CPUs, threads) and paths are not part of a spec: the same one has the same id on every machine.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

SCHEMA: Literal[1] = 1
SEEDS = 2**63  # seeds are below it: the tables hold them as 64-bit integers
EPOCHS = 100_000  # at most: each checkpoint holds the rows of all epochs before it
USUAL_FLIP: Literal["left_right"] = "left_right"  # of training images, where a data set's options don't say another
_MOST_CPUS, _MOST_GPUS = 1024, 64  # of the largest machines; more is a typo


class Frozen(BaseModel):
    """Base of all specs: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BatchPhase(Frozen):
    """From epoch `from_epoch` (counted from 0) on, each step takes `size` images."""

    from_epoch: int = Field(ge=0)
    size: int = Field(ge=2)


class Recipe(Frozen):
    """How a network is trained: SGD with momentum, its learning rate set by the share of training done.

    `weight_decay_body` applies to all but the head, `weight_decay_head` to the head; batch norm and biases decay too.
    `one_cycle`: cosine from lr/25 up to lr over the first 30% of training, cosine down to lr/250000 over the rest
    (Smith and Topin 2018, with PyTorch's defaults). `bf16` runs forward passes under autocast. `out_of_memory`: a step
    that does not fit in memory makes the trial fail, or is split: the trial goes back to the end of its last epoch and
    then takes half the images at a time, as many per step as before; batch norm sees the smaller batches.
    `ghost_batch`: batch norm averages over this many images at a time instead of over a whole step's, and its running
    statistics move once a step, by the mean over them; required on several GPUs, whose number then changes no result.
    `tf32` multiplies float32 numbers with 10 bits of mantissa where a GPU can. `deterministic: false` lets a GPU add in
    any order, so that a resumed trial is no longer bit for bit an uninterrupted one. `compile` is a mode of
    torch.compile; `reduce-overhead` records CUDA graphs.
    """

    epochs: int = Field(ge=1, le=EPOCHS)
    batch_size: tuple[BatchPhase, ...]
    optimizer: Literal["sgd"] = "sgd"
    lr: float = Field(gt=0)
    lr_schedule: Literal["one_cycle", "constant"] = "one_cycle"
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool = True
    weight_decay_body: float = Field(ge=0)
    weight_decay_head: float = Field(ge=0)
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    out_of_memory: Literal["fail", "split"] = "fail"
    ghost_batch: int | None = Field(None, ge=2)
    deterministic: bool = True
    compile: Literal["none", "default", "reduce-overhead"] = "none"

    @model_serializer(mode="wrap")
    def _plain_where_nothing_is_new(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A field added since schema 1 is written only where it is not the default, so that older ids do not change."""
        values: dict[str, Any] = serialize(self)
        for name in ("out_of_memory", "ghost_batch", "deterministic", "compile"):
            if name in values and values[name] == type(self).model_fields[name].default:
                del values[name]
        return values

    @property
    def key(self) -> str:
        """Equal for equal recipes."""
        return _digest(self.model_dump(mode="json"))

    def require_images(self, images: int) -> None:
        """Refuse a number of training images that is too small for a single step.

        Raises:
            ValueError: a batch is larger.
        """
        largest = max(phase.size for phase in self.batch_size)
        if images < largest:
            raise ValueError(
                f"batch size {largest} is larger than the {images} training images; "
                "lower recipe.batch_size or use more images"
            )

    def images_seen(self, images: int) -> int:
        """How many of `images` training images all epochs together take; an incomplete batch is left out."""
        ends = [*(phase.from_epoch for phase in self.batch_size[1:]), self.epochs]
        return sum(
            max(0, min(end, self.epochs) - phase.from_epoch) * (images // phase.size) * phase.size
            for phase, end in zip(self.batch_size, ends, strict=True)
        )

    @model_validator(mode="after")
    def _phases_in_order(self) -> Self:
        starts = [phase.from_epoch for phase in self.batch_size]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError("batch_size phases must start at epoch 0 and be in ascending order")
        return self

    @model_validator(mode="after")
    def _graphs_of_whole_steps(self) -> Self:
        if self.compile == "reduce-overhead" and (self.ghost_batch or self.out_of_memory == "split"):
            raise ValueError(
                "compile: reduce-overhead records whole steps, and ghost_batch and out_of_memory: split take them in "
                "parts; use compile: default"
            )
        return self

    @model_validator(mode="after")
    def _whole_ghost_batches(self) -> Self:
        for phase in self.batch_size:
            if self.ghost_batch and phase.size % self.ghost_batch:
                raise ValueError(f"batch_size {phase.size} is not a multiple of ghost_batch {self.ghost_batch}")
        return self


class DataSpec(Frozen):
    """Which images a trial sees, and how they are changed in training.

    `fingerprint` identifies the content of the folder they come from, if any.
    """

    name: str
    image_size: int = Field(ge=8)
    num_classes: int = Field(ge=2)
    seed: int = Field(0, ge=0, lt=SEEDS)
    options: dict[str, JsonValue]
    fingerprint: str | None

    @property
    def key(self) -> str:
        """Equal for equal images that are changed alike in training."""
        return f"{self.name}-{self.image_size}-{_digest(self.model_dump(mode='json'))}"

    @property
    def prepared(self) -> Self:
        """The set as it is prepared, whose key names it in a cache: flips come later, and all share its images."""
        return self.model_copy(update={"options": without_flip(self.options)})


class TrialSpec(Frozen):
    """One cell of a grid with one seed.

    The revisions are those of the definitions that the names stood for when the trial was planned.
    """

    architecture: str
    intervention: str
    data: DataSpec
    recipe: Recipe
    init_seed: int = Field(ge=0, lt=SEEDS)
    data_seed: int = Field(ge=0, lt=SEEDS)
    architecture_revision: int = Field(1, ge=1)
    intervention_revision: int = Field(1, ge=1)
    schema_version: Literal[1] = SCHEMA

    @model_serializer(mode="wrap")
    def _revisions_where_mended(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A first revision is not written, so that ids of what never changed stay the same."""
        values: dict[str, Any] = serialize(self)
        for key in ("architecture_revision", "intervention_revision"):
            if values.get(key) == 1:
                del values[key]
        return values

    @property
    def trial_id(self) -> str:
        """A readable prefix and the hash of the canonical JSON of the whole spec; safe as the name of a folder."""
        prefix = re.sub(r"[^A-Za-z0-9._-]", "-", f"{self.architecture}-{self.intervention}-s{self.init_seed}")
        return f"{prefix}-{_digest(self.model_dump(mode='json'))}"


class Resources(Frozen):
    """What one trial takes while it runs.

    `gpus` is a share of one GPU, which small trials may use together, or a number of whole ones, all of one node, each
    with a process of its own. `cpus` are those of the whole trial, spread evenly over its processes; each process has
    as many threads as CPUs. `accelerator` is the kind of GPU in Ray's words, such as H100; a trial without GPUs ignores
    it. Trials of higher `priority` start first. A checkpoint is written at each epoch's end and every `save_every_s`
    seconds in between.
    """

    cpus: int = Field(1, ge=1, le=_MOST_CPUS)
    gpus: float = Field(0, ge=0, le=_MOST_GPUS)
    accelerator: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    priority: int = Field(0, ge=-1000, le=1000)
    save_every_s: float = Field(300.0, gt=0)

    @property
    def processes(self) -> int:
        """One for each whole GPU, else one."""
        return max(1, int(self.gpus))

    @property
    def cpus_per_process(self) -> int:
        """Also its number of threads."""
        return self.cpus // self.processes

    @field_validator("gpus")
    @classmethod
    def _a_share_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"must be a share of one GPU (0 to 1) or a whole number, not {gpus:g}")
        return gpus

    @model_validator(mode="after")
    def _cpus_for_each_process(self) -> Self:
        if self.cpus % self.processes:
            enough = -(-self.cpus // self.processes) * self.processes
            raise ValueError(
                f"{self.cpus} CPUs can't be spread evenly over {self.processes} GPUs; "
                f"set cpus to a multiple of gpus, such as {enough}"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A trial as planned: its spec, and what else is needed to run it and to read its results.

    `root` is the folder its images come from and `resources` what it takes to run, both as of the last launch that
    named the trial; `images` is how many it trains on in all epochs together. Trials planned by older versions lack
    both, as do those of a data set that doesn't say its size. `layers` are the convs to analyse, the last one first,
    `expected` the finding for each, `primary` the direction in which the last one's score is the trial's primary
    endpoint (None in plans of older versions); `excluded` is the reason why the cell makes no sense, or None.
    """

    spec: TrialSpec
    root: str | None
    parameters: int
    layers: tuple[str, ...]
    expected: tuple[str, ...]
    excluded: str | None = None
    resources: Resources | None = None
    images: int | None = None
    primary: str | None = None

    @property
    def trial_id(self) -> str:
        return self.spec.trial_id

    def to_json(self) -> dict[str, Any]:
        return {
            "trial_id": self.trial_id,
            "spec": self.spec.model_dump(mode="json"),
            "root": self.root,
            "parameters": self.parameters,
            "layers": list(self.layers),
            "expected": list(self.expected),
            "excluded": self.excluded,
            "resources": None if self.resources is None else self.resources.model_dump(mode="json"),
            "images": self.images,
            "primary": self.primary,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` returned.

        Raises:
            ValueError: the spec was written by another version, or its content does not match its id.
        """
        version = values["spec"].get("schema_version")
        if version != SCHEMA:
            raise ValueError(
                f"trial {values['trial_id']} has spec version {version}, but this version reads {SCHEMA}; "
                "use the version that wrote it, or launch into new storage"
            )
        spec = TrialSpec.model_validate(values["spec"])
        if spec.trial_id != values["trial_id"]:
            raise ValueError(f"spec.json of {values['trial_id']} was changed by hand; restore it, or remove the trial")
        resources = values.get("resources")
        return cls(
            spec=spec,
            root=values["root"],
            parameters=values["parameters"],
            layers=tuple(values["layers"]),
            expected=tuple(values["expected"]),
            excluded=values["excluded"],
            resources=None if resources is None else Resources.model_validate(resources),
            images=values.get("images"),
            primary=values.get("primary"),
        )


def without_flip(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The options of a data set that change its images before they are stored."""
    return {name: value for name, value in options.items() if name != "flip"}


def _digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
