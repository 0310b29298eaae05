"""Train one trial. Runs without Ray: Ray Tune, the tests and a plain loop call the same function.

A trial that is run again goes on from its last valid checkpoint and ends bit for bit where an uninterrupted run ends
(same hardware and library versions): order and augmentation of a step depend on the step alone.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from upath import UPath

import models
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS, Intervention
from sweep.data.arrays import Batch
from sweep.data.prepare import PreparedData
from sweep.spec import Recipe, TrialSpec
from sweep.store.checkpoint import Checkpoint, newest_resumable, read_checkpoint
from sweep.store.kept import SAVE_EVERY_S
from sweep.store.log import logger
from sweep.store.manifest import (
    EpochRow,
    Progress,
    TornCheckpointError,
    checkpoint_steps,
    read_progress,
    remove_checkpoint,
)
from sweep.store.trial_dir import TrialDir
from sweep.training.keeper import Keeper
from sweep.training.memory import OutOfMemoryError, told_of_memory
from sweep.training.randomness import Stream, epoch_order, generator, seed_at
from sweep.training.schedule import Schedule

_CHECK_LOSS_EVERY = 50  # steps; reading the loss makes a GPU wait
_VAL_BATCH = 250
_SMALLEST_PART = 2  # images that batch norm can average over


class Report(Protocol):
    """Told after each epoch: its row, and the checkpoint's folder if its weights are kept for the analysis."""

    def __call__(self, row: EpochRow, kept: UPath | None) -> None: ...


Stop = Callable[[int], bool]
"""Asked after each step, with the number of steps done, whether to save and stop."""


def ignore(row: EpochRow, kept: UPath | None) -> None:
    """Report to nobody."""


def never(step: int) -> bool:
    """Do not stop before the end."""
    return False


class DivergedError(RuntimeError):
    """The loss is not a finite number; training again would come to the same."""


class StoppedError(RuntimeError):
    """Training was asked to stop; its state is saved."""


def train(
    spec: TrialSpec,
    data: PreparedData,
    trial_dir: UPath,
    report: Report = ignore,
    stop: Stop = never,
    save_every_s: float = SAVE_EVERY_S,
) -> list[EpochRow]:
    """Train a trial to its end, from its last valid checkpoint if there is one, and give the rows of all its epochs.

    Writes `epochs.jsonl` and `checkpoints/` in `trial_dir`.

    Raises:
        DivergedError: the loss became NaN or infinite; the message names the step.
        StoppedError: `stop` said so; a checkpoint of the step reached has been written.
        OutOfMemoryError: a step does not fit in memory, and the recipe does not let it be split, or it can't be.
    """
    for row, kept in course(spec, data, trial_dir, stop, save_every_s):
        report(row, kept)
    return TrialDir(trial_dir).epochs()


def course(
    spec: TrialSpec, data: PreparedData, trial_dir: UPath, stop: Stop = never, save_every_s: float = SAVE_EVERY_S
) -> Iterator[tuple[EpochRow, UPath | None]]:
    """`train` epoch by epoch: gives each epoch's row, and the checkpoint's folder if its weights are kept.

    An epoch that a step without enough memory cut short is given once more, where the recipe lets steps be split.
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
            logger.info(f"out of memory: steps are split into {micro_batches} parts from the last epoch's end on")
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
        logger.info(f"goes on from the checkpoint of step {run.step}")
    run.micro_batches = max(run.micro_batches, micro_batches)

    def finish_epoch(lr: float | None) -> tuple[EpochRow, UPath | None]:
        row = run.epoch_row(lr)
        with told_of_memory(run.step):
            at_a_time = max(1, _VAL_BATCH // run.micro_batches)
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


class Run:
    """The state of one trial in memory: network, optimizer, where training stands, sums over the unfinished epoch.

    `micro_batches` is the number of parts into which a step's images are split to fit in memory.
    """

    def __init__(self, spec: TrialSpec) -> None:
        self.spec = spec
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            _ask_for_determinism()
        net = models.build(
            spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, spec.init_seed
        )
        self.net: ConvNet = net.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.net, spec.recipe)
        self.step = 0
        self.epoch = 0
        self.images = 0
        self.wall_s = 0.0
        self.rows: list[EpochRow] = []
        self.micro_batches = 1
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._diverged_at = torch.full((), torch.inf, dtype=torch.float64, device=self.device)

    def learn(self, batch: Batch, lr: float) -> None:
        """One optimizer step; after an error the state is no longer whole, load a checkpoint."""
        began = time.perf_counter()
        self.net.train()
        torch.manual_seed(seed_at(self.spec.data_seed, Stream.DROPOUT, self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._descend(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        self.images += len(batch[0])
        self._loss_sum += loss * len(batch[0])
        self._diverged_at = torch.where(loss.isfinite(), self._diverged_at, self._diverged_at.clamp(max=self.step))
        if self.step % _CHECK_LOSS_EVERY == 0:
            self.require_finite()
        self.wall_s += time.perf_counter() - began

    def forward(self, images: Tensor) -> Tensor:
        """Logits [b, classes] of a part of a step's images."""
        logits: Tensor = self.net(images)
        return logits

    def _descend(self, batch: Batch) -> Tensor:
        """Gradients of a step, and its mean loss float64[]."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = zip(*(tensor.tensor_split(self.micro_batches) for tensor in batch), strict=True)
        for images, labels in parts:
            share = len(images) / len(batch[0])
            with autocast(self.spec.recipe, self.device):
                logits = self.forward(images)
                loss = cross_entropy(logits, labels)
            (loss * share).backward()
            total += loss.detach().double() * share
            self._correct += (logits.detach().argmax(1) == labels).sum()
        return total

    def require_finite(self) -> None:
        """Raise a DivergedError if any loss so far was not finite."""
        step = self._diverged_at.item()
        if step != torch.inf:
            raise DivergedError(f"the loss was not a finite number at step {step:.0f}; lower recipe.lr")

    def epoch_row(self, lr: float | None) -> EpochRow:
        """The training half of an epoch's row; null where no step was taken."""
        self.require_finite()
        images = self.images or None
        return {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": self._loss_sum.item() / images if images else None,
            "train_accuracy": self._correct.item() / images if images else None,
            "learning_rate": lr,
            "wall_s": round(self.wall_s, 3),
        }

    def start_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.images = 0
        self._loss_sum.zero_()
        self._correct.zero_()

    def progress(self) -> Progress:
        self.require_finite()
        return Progress(
            step=self.step,
            epoch=self.epoch,
            images=self.images,
            loss_sum=self._loss_sum.item(),
            correct=int(self._correct.item()),
            wall_s=self.wall_s,
            rows=list(self.rows),
            micro_batches=self.micro_batches,
        )

    def model_state(self) -> dict[str, Tensor]:
        return dict(self.net.state_dict())

    def training_state(self) -> dict[str, Tensor]:
        """Momentum of each parameter, by the parameter's name; nothing before the first step."""
        if self.step == 0:
            return {}
        named = {id(parameter): name for name, parameter in self.net.named_parameters()}
        state: dict[str, Tensor] = {}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state[named[id(parameter)]] = self.optimizer.state[parameter]["momentum_buffer"]
        return state

    def metadata(self) -> dict[str, str]:
        """What an analysis needs to know beside the weights; one key, since safetensors writes several in any order."""
        return {"final_convs": json.dumps(self.net.final_convs)}

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's state."""
        self.net.load_state_dict(checkpoint.model)
        progress = checkpoint.progress
        self.step, self.epoch, self.images = progress.step, progress.epoch, progress.images
        self.wall_s, self.rows = progress.wall_s, list(progress.rows)
        self.micro_batches = progress.micro_batches
        self._loss_sum.fill_(progress.loss_sum)
        self._correct.fill_(progress.correct)
        for name, parameter in self.net.named_parameters():
            buffer = checkpoint.training[name].to(self.device, memory_format=torch.preserve_format)
            self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)


def evaluate(
    net: ConvNet,
    data: PreparedData,
    intervention: Intervention,
    recipe: Recipe,
    device: torch.device,
    at_a_time: int = _VAL_BATCH,
) -> EpochRow:
    """Loss and accuracy over the validation images, which the intervention turns as it turns training images."""
    net.eval()
    loss_sum, correct = 0.0, 0
    with torch.no_grad(), autocast(recipe, device):
        for images, labels in zip(data.val_images.split(at_a_time), data.val_labels.split(at_a_time), strict=True):
            images = intervention.transform(data.validation_images(images.to(device)))
            labels = labels.to(device)
            logits = net(images.contiguous(memory_format=torch.channels_last)).float()
            loss_sum += cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(1) == labels).sum().item())
    if not math.isfinite(loss_sum):
        raise DivergedError("the validation loss is not a finite number; lower recipe.lr")
    return {"val_loss": loss_sum / len(data.val_labels), "val_accuracy": correct / len(data.val_labels)}


def _ask_for_determinism() -> None:
    """Have a GPU add in the same order each time, wherever PyTorch can; it warns of what can't (reflect padding)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory costs time, and nothing here reads it before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """The recipe's precision for forward passes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def _restore_finished(trial: TrialDir, last_step: int) -> bool:
    """Whether a valid checkpoint of the last step is there; then its rows are the trial's."""
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
    """Remove the checkpoints of the unfinished epoch: when they were written must not matter to what comes next."""
    for step in checkpoint_steps(checkpoints):
        folder = checkpoints / str(step)
        with suppress(TornCheckpointError):
            if read_progress(folder).images == 0:
                return
        remove_checkpoint(folder)


def _batch(run: Run, data: PreparedData, indices: Tensor, intervention: Intervention) -> Batch:
    """The images and labels of one step, augmented; all randomness is a function of data seed and step."""
    draw = generator(run.spec.data_seed, Stream.AUGMENT, run.step)
    stored, labels = data.train_images[indices].to(run.device), data.train_labels[indices].to(run.device)
    images, labels = data.training_batch(stored, labels, draw)
    images = intervention.augment(intervention.transform(images), draw)
    return images.contiguous(memory_format=torch.channels_last), labels


def _optimizer(net: ConvNet, recipe: Recipe) -> torch.optim.SGD:
    groups = [
        {"params": list(net.features.parameters()), "weight_decay": recipe.weight_decay_body},
        {"params": list(net.head.parameters()), "weight_decay": recipe.weight_decay_head},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
