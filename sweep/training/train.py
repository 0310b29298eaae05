"""Train one trial. Runs without Ray: Ray Tune, the tests and a plain loop call the same function.

A trial that is run again resumes from its last valid checkpoint and ends bit for bit where an uninterrupted run ends
(same hardware and library versions): order and augmentation of a step depend on the step alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from upath import UPath

from models.interventions import INTERVENTIONS
from sweep.data.arrays import Batch
from sweep.data.prepare import PreparedData
from sweep.data.prepare import StoppedError as StoppedError
from sweep.spec import TrialSpec
from sweep.store.checkpoint import newest_resumable, read_checkpoint
from sweep.store.kept import SAVE_EVERY_S
from sweep.store.log import logger
from sweep.store.manifest import (
    MANIFEST,
    EpochRow,
    TornCheckpointError,
    checkpoint_files,
    checkpoint_steps,
    read_progress,
    remove_checkpoint,
)
from sweep.store.trial_dir import TrialDir
from sweep.training.keeper import Keeper
from sweep.training.loader import Loaded, Loader, Wanted
from sweep.training.memory import OutOfMemoryError, told_of_memory
from sweep.training.randomness import Stream, epoch_order, generator
from sweep.training.ranks import ALONE, Ranks
from sweep.training.run import VAL_BATCH, Run, evaluate
from sweep.training.schedule import Schedule

_SMALLEST_PART = 2  # images that batch norm can average over


class OnEpoch(Protocol):
    """Called after each epoch: its row, and the checkpoint's folder if its weights are kept for the analysis."""

    def __call__(self, row: EpochRow, kept: UPath | None) -> None: ...


Stop = Callable[[int], bool]
"""Called after each step with the number of steps done; says whether to save and stop."""


WriteRows = Callable[[list[EpochRow]], None]
"""Called with the rows of all finished epochs, whenever there is one more, to record them."""


def ignore(row: EpochRow, kept: UPath | None) -> None:
    """An OnEpoch that does nothing."""


def never(step: int) -> bool:
    """A Stop that never stops."""
    return False


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
    spec: TrialSpec,
    data: PreparedData,
    trial_dir: UPath,
    stop: Stop = never,
    save_every_s: float = SAVE_EVERY_S,
    ranks: Ranks = ALONE,
    write_rows: WriteRows | None = None,
) -> Iterator[tuple[EpochRow, UPath | None]]:
    """`train` epoch by epoch: yields each epoch's row, and the checkpoint's folder if its weights are kept.

    `write_rows` takes the place of writing `epochs.jsonl`: at each epoch's end, and when an attempt takes up an
    earlier one's rows.

    Several `ranks` go through it together, each with the same arguments; the first one writes. If a step runs out of
    memory and the recipe allows splitting, the interrupted epoch starts over; several ranks fail instead, since those
    that did not run out would wait for the one that did.
    """
    micro_batches, trial = 1, TrialDir(trial_dir)
    write_rows = write_rows or trial.write_epochs
    while True:
        try:
            yield from _Course(spec, data, trial, stop, save_every_s, micro_batches, ranks, write_rows).rows()
        except OutOfMemoryError:
            smallest = min(spec.recipe.ghost_batch or phase.size for phase in spec.recipe.batch_size)
            micro_batches *= 2
            if spec.recipe.out_of_memory == "fail" or smallest // micro_batches < _SMALLEST_PART or ranks.size > 1:
                raise
            logger.info(f"out of memory: splits steps into {micro_batches} parts from the end of the last epoch")
            _back_to_an_epochs_end(trial.checkpoints)
        else:
            return
        torch.cuda.empty_cache()  # only here, where the error no longer holds the step's tensors


class _Course:
    """One pass through a trial's epochs, from its last valid checkpoint."""

    def __init__(
        self,
        spec: TrialSpec,
        data: PreparedData,
        trial: TrialDir,
        stop: Stop,
        save_every_s: float,
        micro_batches: int,
        ranks: Ranks,
        write_rows: WriteRows,
    ) -> None:
        self._spec, self._trial, self._stop, self._ranks = spec, trial, stop, ranks
        self._write_rows = write_rows
        self._micro_batches = micro_batches
        self._intervention = INTERVENTIONS[spec.intervention]
        self._schedule = Schedule(spec.recipe, len(data.train_images))
        self._stored = checkpoint_files(trial.checkpoints)
        self._keeper = Keeper(trial.checkpoints, spec.recipe.epochs, self._stored, save_every_s, writes=ranks.first)
        labels = self._intervention.relabel(data.train_labels, generator(spec.data_seed, Stream.LABELS, 0))
        self._data = replace(data, train_labels=labels, flip=self._intervention.flip)

    def rows(self) -> Iterator[tuple[EpochRow, UPath | None]]:
        epochs = self._spec.recipe.epochs if self._intervention.trained else 0
        finished = self._restore_finished(self._schedule.first_step(epochs))
        if not self._ranks.highest(int(not finished)):  # all have read what the first one now cleans up
            self._keeper.finish()
            return
        run = self._resumed()
        data, size, threads = self._data, self._spec.data.image_size, torch.get_num_threads()
        with (
            Loader(data.train_images, data.train_labels, size, run.device, threads) as training,
            Loader(data.val_images, data.val_labels, size, run.device, threads) as validation,
        ):
            if not run.rows:
                yield self._finish_epoch(run, validation, lr=None)
            for epoch in range(run.epoch, epochs):
                self._train_epoch(run, training, epoch)
                run.epoch += 1
                last = self._schedule.learning_rate(epoch, self._schedule.steps_in(epoch) - 1)
                yield self._finish_epoch(run, validation, last)
        self._keeper.finish()

    def _restore_finished(self, last_step: int) -> bool:
        """Whether there is a valid checkpoint of the last step; if so, its rows are the trial's."""
        if MANIFEST not in self._stored.get(last_step, ()):
            return False
        try:
            rows = read_checkpoint(self._trial.checkpoints / str(last_step)).progress.rows
        except TornCheckpointError:
            return False
        if last_step not in [row["step"] for row in rows]:
            return False
        if self._ranks.first:
            self._write_rows(rows)
        return True

    def _resumed(self) -> Run:
        run = Run(self._spec, self._ranks)
        checkpoint = next(newest_resumable(self._trial.checkpoints, self._stored), None)
        if checkpoint is not None:
            run.load(checkpoint)
            if self._ranks.first:
                self._write_rows(run.rows)
            logger.info(f"resumes from the checkpoint of step {run.step}")
        if self._ranks.highest(run.step) != -self._ranks.highest(-run.step):
            raise RuntimeError("the trial's processes found checkpoints of different steps; they read it again")
        run.micro_batches = max(run.micro_batches, self._micro_batches)
        return run

    def _train_epoch(self, run: Run, loader: Loader, epoch: int) -> None:
        """The steps of an epoch that are still to do."""
        size = self._schedule.batch_size(epoch)
        todo = range(run.step - self._schedule.first_step(epoch), self._schedule.steps_in(epoch))
        order = epoch_order(self._spec.data_seed, epoch, self._schedule.images)
        batches = loader.batches(self._wanted(run, order[todo.start * size :], size, len(todo)))
        for index in todo:
            waited_s = loader.waited_s
            with told_of_memory(run.step + 1):
                parts = (self._augmented(batch) for batch in islice(batches, len(run.parts(size))))
                run.learn(parts, size, self._schedule.learning_rate(epoch, index))
            run.waited_s += loader.waited_s - waited_s
            stop_here = self._stop(run.step)
            said = self._ranks.highest(2 if stop_here else int(self._keeper.due()))
            if said:
                self._keeper.save(run)
            if said == 2:
                raise StoppedError(f"stopped at step {run.step}")

    def _wanted(self, run: Run, order: Tensor, size: int, steps: int) -> Iterator[Wanted]:
        """The parts of this rank, step by step; all randomness is a function of data seed, step and part."""
        part_size = self._spec.recipe.ghost_batch or size
        first = run.step
        for step in range(steps):
            for part in run.parts(size):
                position = (first + step,) if self._spec.recipe.ghost_batch is None else (first + step, part)
                draw = generator(self._spec.data_seed, Stream.AUGMENT, *position)
                start = step * size + part * part_size
                yield Wanted(order[start : start + part_size], self._data.training_corners(part_size, draw), draw)

    def _augmented(self, loaded: Loaded) -> Batch:
        images, labels = self._data.training_batch(loaded.windows, loaded.labels, loaded.draw)
        images = self._intervention.augment(self._intervention.transform(images), loaded.draw)
        return images.contiguous(memory_format=torch.channels_last), labels

    def _finish_epoch(self, run: Run, validation: Loader, lr: float | None) -> tuple[EpochRow, UPath | None]:
        row = run.epoch_row(lr)
        with told_of_memory(run.step):
            batches = validation.batches(self._validated(max(1, VAL_BATCH // run.micro_batches)))
            found = evaluate(run.net, self._data, batches, self._spec, run.device, self._ranks)
        run.rows.append(row | found)
        run.start_epoch()
        if self._ranks.first:
            self._write_rows(run.rows)
        return run.rows[-1], self._keeper.save_epoch(run)

    def _validated(self, at_a_time: int) -> Iterator[Wanted]:
        """This rank's share of the validation images, cut in the middle."""
        images = len(self._data.val_images)
        draw = torch.Generator()  # validation draws nothing
        for start in self._ranks.own(range(0, images, at_a_time)):
            numbers = torch.arange(start, min(start + at_a_time, images))
            yield Wanted(numbers, self._data.centre_corners(len(numbers)), draw)


def _back_to_an_epochs_end(checkpoints: UPath) -> None:
    """Remove the checkpoints of the unfinished epoch: when they were written must not affect what follows."""
    for step in checkpoint_steps(checkpoints):
        folder = checkpoints / str(step)
        with suppress(TornCheckpointError):
            if read_progress(folder).images == 0:
                return
        remove_checkpoint(folder)
