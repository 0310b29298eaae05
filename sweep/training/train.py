"""Train one trial. Runs without Ray: Ray Tune, the tests and a plain loop call the same function.

A trial that is run again resumes from its last valid checkpoint and ends bit for bit where an uninterrupted run ends
(same hardware and library versions): order and augmentation of a step depend on the step alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from upath import UPath

from models.interventions import INTERVENTIONS, Intervention
from sweep.data.arrays import Batch
from sweep.data.prepare import PreparedData
from sweep.spec import TrialSpec
from sweep.store.checkpoint import newest_resumable, read_checkpoint
from sweep.store.kept import SAVE_EVERY_S
from sweep.store.log import logger
from sweep.store.manifest import (
    EpochRow,
    TornCheckpointError,
    checkpoint_steps,
    read_progress,
    remove_checkpoint,
)
from sweep.store.trial_dir import TrialDir
from sweep.training.keeper import Keeper
from sweep.training.memory import OutOfMemoryError, told_of_memory
from sweep.training.randomness import Stream, epoch_order, generator
from sweep.training.run import VAL_BATCH, Run, evaluate
from sweep.training.schedule import Schedule

_SMALLEST_PART = 2  # images that batch norm can average over


class OnEpoch(Protocol):
    """Called after each epoch: its row, and the checkpoint's folder if its weights are kept for the analysis."""

    def __call__(self, row: EpochRow, kept: UPath | None) -> None: ...


Stop = Callable[[int], bool]
"""Called after each step with the number of steps done; says whether to save and stop."""


def ignore(row: EpochRow, kept: UPath | None) -> None:
    """An OnEpoch that does nothing."""


def never(step: int) -> bool:
    """A Stop that never stops."""
    return False


class StoppedError(RuntimeError):
    """Training was asked to stop; its state is saved."""


def train(
    spec: TrialSpec,
    data: PreparedData,
    trial_dir: UPath,
    report: OnEpoch = ignore,
    stop: Stop = never,
    save_every_s: float = SAVE_EVERY_S,
) -> list[EpochRow]:
    """Train a trial to its end, from its last valid checkpoint if there is one, and return the rows of all its epochs.

    Writes `epochs.jsonl` and `checkpoints/` in `trial_dir`.

    Raises:
        DivergedError: the loss became NaN or infinite; the message names the step.
        StoppedError: `stop` said so; a checkpoint of the step reached has been written.
        OutOfMemoryError: a step does not fit in memory, and the recipe forbids splitting it, or it can't be split.
    """
    for row, kept in course(spec, data, trial_dir, stop, save_every_s):
        report(row, kept)
    return TrialDir(trial_dir).epochs()


def course(
    spec: TrialSpec, data: PreparedData, trial_dir: UPath, stop: Stop = never, save_every_s: float = SAVE_EVERY_S
) -> Iterator[tuple[EpochRow, UPath | None]]:
    """`train` epoch by epoch: yields each epoch's row, and the checkpoint's folder if its weights are kept.

    If a step runs out of memory and the recipe allows splitting, the interrupted epoch starts over.
    """
    micro_batches, trial = 1, TrialDir(trial_dir)
    while True:
        try:
            yield from _course(spec, data, trial, stop, save_every_s, micro_batches)
        except OutOfMemoryError:
            smallest = min(phase.size for phase in spec.recipe.batch_size)
            micro_batches *= 2
            if spec.recipe.out_of_memory == "fail" or smallest // micro_batches < _SMALLEST_PART:
                raise
            logger.info(f"out of memory: splits steps into {micro_batches} parts from the end of the last epoch")
            _back_to_an_epochs_end(trial.checkpoints)
        else:
            return
        torch.cuda.empty_cache()  # only here, where the error no longer holds the step's tensors


def _course(
    spec: TrialSpec, data: PreparedData, trial: TrialDir, stop: Stop, save_every_s: float, micro_batches: int
) -> Iterator[tuple[EpochRow, UPath | None]]:
    intervention = INTERVENTIONS[spec.intervention]
    schedule = Schedule(spec.recipe, len(data.train_images))
    keeper = Keeper(trial.checkpoints, spec.recipe.epochs, save_every_s)
    if _restore_finished(trial, schedule.steps if intervention.trained else 0):
        keeper.finish()
        return
    labels = intervention.relabel(data.train_labels, generator(spec.data_seed, Stream.LABELS, 0))
    data = replace(data, train_labels=labels)
    run = Run(spec)
    checkpoint = next(newest_resumable(trial.checkpoints), None)
    if checkpoint is not None:
        run.load(checkpoint)
        logger.info(f"resumes from the checkpoint of step {run.step}")
    run.micro_batches = max(run.micro_batches, micro_batches)

    def finish_epoch(lr: float | None) -> tuple[EpochRow, UPath | None]:
        row = run.epoch_row(lr)
        with told_of_memory(run.step):
            at_a_time = max(1, VAL_BATCH // run.micro_batches)
            found = evaluate(run.net, data, intervention, spec.recipe, run.device, at_a_time)
        run.rows.append(row | found)
        run.start_epoch()
        trial.write_epochs(run.rows)
        return run.rows[-1], keeper.save_epoch(run)

    if not run.rows:
        yield finish_epoch(lr=None)
    for epoch in range(run.epoch, spec.recipe.epochs if intervention.trained else 0):
        order = epoch_order(spec.data_seed, epoch, schedule.images)
        size = schedule.batch_size(epoch)
        for index in range(run.step - schedule.first_step(epoch), schedule.steps_in(epoch)):
            with told_of_memory(run.step + 1):
                batch = _batch(run, data, order[index * size : (index + 1) * size], intervention)
                run.learn(batch, schedule.learning_rate(epoch, index))
            if stop(run.step):
                keeper.save(run)
                raise StoppedError(f"stopped at step {run.step}")
            if keeper.due():
                keeper.save(run)
        run.epoch += 1
        yield finish_epoch(lr=schedule.learning_rate(epoch, schedule.steps_in(epoch) - 1))
    keeper.finish()


def _restore_finished(trial: TrialDir, last_step: int) -> bool:
    """Whether there is a valid checkpoint of the last step; if so, its rows are the trial's."""
    try:
        rows = read_checkpoint(trial.checkpoints / str(last_step)).progress.rows
    except TornCheckpointError:
        return False
    if last_step not in [row["step"] for row in rows]:
        return False
    if trial.epochs() != rows:
        trial.write_epochs(rows)
    return True


def _back_to_an_epochs_end(checkpoints: UPath) -> None:
    """Remove the checkpoints of the unfinished epoch: when they were written must not affect what follows."""
    for step in checkpoint_steps(checkpoints):
        folder = checkpoints / str(step)
        with suppress(TornCheckpointError):
            if read_progress(folder).images == 0:
                return
        remove_checkpoint(folder)


def _batch(run: Run, data: PreparedData, indices: Tensor, intervention: Intervention) -> Batch:
    """The images and labels of one step, augmented; all randomness is a function of data seed and step."""
    draw = generator(run.spec.data_seed, Stream.AUGMENT, run.step)
    windows = torch.empty((len(indices), 3, *[run.spec.data.image_size] * 2), dtype=torch.uint8)
    data.train_images.copy(indices, data.training_corners(len(indices), draw), windows)
    images, labels = data.training_batch(windows.to(run.device), data.train_labels[indices].to(run.device), draw)
    images = intervention.augment(intervention.transform(images), draw)
    return images.contiguous(memory_format=torch.channels_last), labels
