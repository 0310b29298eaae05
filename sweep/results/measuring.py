"""Measure something once on the network of each trial's newest checkpoint, and gather it in a table. Needs no Ray."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import models
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.images import Images
from sweep.data.prepare import PreparedData, prepare
from sweep.results.compact import gather, measured_rows
from sweep.results.tables import Row, TableName
from sweep.spec import Plan, TrialSpec
from sweep.store.checkpoint import read_checkpoint
from sweep.store.files import write_json
from sweep.store.manifest import checkpoint_steps
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """`measure` returns rows of `table`, without trial and step, of a network, its data, its spec and `images`.

    `done` is the word for a trial that has been measured.
    """

    table: TableName
    done: str
    measure: Callable[[ConvNet, PreparedData, TrialSpec, int], list[Row]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result for one trial: `outcome` is what was done, there already, no checkpoint, or the error's last line."""

    trial_id: str
    outcome: str
    failed: bool = False


def measure_sweep(sweep: SweepDir, measurement: Measurement, images: int) -> Iterator[Measured]:
    """Measure each trial whose newest checkpoint is not measured yet, and gather the table at the end.

    `images` is how many images each trial is measured on. A trial that fails is reported with its error, and the others
    go on.
    """
    try:
        for trial in sweep.trials():
            yield _measured(trial, measurement, images)
    finally:
        gather(sweep, measurement.table)


def chosen_images(data: PreparedData, images: Images, spec: TrialSpec, number: int) -> Float[Tensor, "b 3 s s"]:
    """So many images, evenly spaced, as folders are ordered by class, and changed as in validation."""
    every = torch.linspace(0, len(images) - 1, min(number, len(images))).long()
    return INTERVENTIONS[spec.intervention].transform(data.validation_images(images.gather(every)))


def _measured(trial: TrialDir, measurement: Measurement, images: int) -> Measured:
    steps = checkpoint_steps(trial.checkpoints) if trial.checkpoints.is_dir() else []
    if not steps:
        return Measured(trial_id=trial.trial_id, outcome="no checkpoint")
    known = measured_rows(trial, measurement.table)
    if known and (known[0]["step"], known[0].get("asked")) == (steps[0], images):
        return Measured(trial_id=trial.trial_id, outcome="there already")
    try:
        plan = trial.plan()
        data = prepare(plan.spec.data, plan.root)
        rows = measurement.measure(_network(trial, plan, steps[0]), data, plan.spec, images)
        facts = {"trial_id": plan.trial_id, "step": steps[0]}
        write_json(trial.measured_file(measurement.table), [facts | row | {"asked": images} for row in rows])
    except (ValueError, OSError, RuntimeError) as error:  # a corrupt checkpoint, missing data, no memory
        said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        return Measured(trial_id=trial.trial_id, outcome=said, failed=True)
    return Measured(trial_id=trial.trial_id, outcome=measurement.done)


def _network(trial: TrialDir, plan: Plan, step: int) -> ConvNet:
    spec = plan.spec
    net = models.build(
        spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, spec.init_seed
    )
    net.load_state_dict(read_checkpoint(trial.checkpoints / str(step)).model)
    return net
