"""Measure something once on the network of each trial's newest checkpoint, and gather it in a table. Needs no Ray."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

import models
from analysis.picture import png
from analysis.write import write_bytes
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.images import Images
from sweep.data.prepare import PreparedData, prepare
from sweep.results.compact import gather, measured_rows
from sweep.results.tables import Row, TableName
from sweep.spec import Plan, TrialSpec
from sweep.store.checkpoint import read_checkpoint
from sweep.store.files import files_below, remove_file, remove_folder, write_json
from sweep.store.manifest import checkpoint_steps
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """`measure` returns rows of `table`, without trial and step, of a network, its data, its spec and `images`.

    `done` is the word for a trial that has been measured. `draw`, if any, makes a picture for each layer of the rows.
    """

    table: TableName
    done: str
    measure: Callable[[ConvNet, PreparedData, TrialSpec, int], list[Row]]
    draw: Callable[[PreparedData, TrialSpec, list[Row]], Mapping[str, Image.Image]] | None = None


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


def chosen_numbers(images: Images, number: int) -> Int64[Tensor, " b"]:
    """The numbers of so many images, evenly spaced, as folders are ordered by class."""
    return evenly(len(images), number)


def evenly(of: int, number: int) -> Int64[Tensor, " b"]:
    """So many numbers below `of`, or all, from first to last."""
    return torch.linspace(0, of - 1, min(number, of)).long()


def chosen_images(data: PreparedData, images: Images, spec: TrialSpec, number: int) -> Float[Tensor, "b 3 s s"]:
    """So many images, evenly spaced, and changed as in validation."""
    return seen_images(data, images, spec, chosen_numbers(images, number))


def seen_images(
    data: PreparedData, images: Images, spec: TrialSpec, numbers: Int64[Tensor, " b"]
) -> Float[Tensor, "b 3 s s"]:
    """Images by number, as a trial's network sees them in validation."""
    return INTERVENTIONS[spec.intervention].transform(data.validation_images(images.gather(numbers)))


def _measured(trial: TrialDir, measurement: Measurement, images: int) -> Measured:
    steps = checkpoint_steps(trial.checkpoints) if trial.checkpoints.is_dir() else []
    if not steps:
        return Measured(trial_id=trial.trial_id, outcome="no checkpoint")
    if _is_there(trial, measurement, steps[0], images):
        return Measured(trial_id=trial.trial_id, outcome="there already")
    try:
        plan = trial.plan()
        data = prepare(plan.spec.data, plan.root)
        rows = measurement.measure(_network(trial, plan, steps[0]), data, plan.spec, images)
        if measurement.draw is not None:
            _replace_pictures(trial, measurement.table, steps[0], measurement.draw(data, plan.spec, rows))
        facts = {"trial_id": plan.trial_id, "step": steps[0]}
        write_json(trial.measured_file(measurement.table), [facts | row | {"asked": images} for row in rows])
    except (ValueError, OSError, RuntimeError) as error:  # a corrupt checkpoint, missing data, no memory
        said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        return Measured(trial_id=trial.trial_id, outcome=said, failed=True)
    return Measured(trial_id=trial.trial_id, outcome=measurement.done)


def _is_there(trial: TrialDir, measurement: Measurement, step: int, images: int) -> bool:
    """Whether a trial has been measured at this step and on so many images, with all pictures there."""
    known = measured_rows(trial, measurement.table)
    if not known or (known[0].get("step"), known[0].get("asked")) != (step, images):
        return False
    drawn = {trial.measured_picture(measurement.table, step, row["layer"]).name for row in known}
    return measurement.draw is None or drawn <= files_below(trial.measured_pictures(measurement.table) / str(step))


def _replace_pictures(trial: TrialDir, table: TableName, step: int, pictures: Mapping[str, Image.Image]) -> None:
    """Write the pictures of a step in place of all others.

    The file of the rows goes first: if interrupted in between, nothing is measured, rather than something else.
    """
    remove_file(trial.measured_file(table))
    remove_folder(trial.measured_pictures(table))
    for layer, picture in pictures.items():
        write_bytes(trial.measured_picture(table, step, layer), png(picture))


def _network(trial: TrialDir, plan: Plan, step: int) -> ConvNet:
    spec = plan.spec
    net = models.build(
        spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, spec.init_seed
    )
    net.load_state_dict(read_checkpoint(trial.checkpoints / str(step)).model)
    return net
