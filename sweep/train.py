"""Train one trial. Runs without Ray: Ray Tune, the tests and a plain loop call the same function.

A trial that is run again goes on from its last valid checkpoint and ends bit for bit where an uninterrupted run ends
(same hardware and library versions): order and augmentation of a step depend on the step alone.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from upath import UPath

import models
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS, Intervention
from sweep.checkpoint import Checkpoint, Progress, TornCheckpointError, newest_resumable, read_checkpoint
from sweep.data.arrays import Batch
from sweep.data.prepare import PreparedData
from sweep.keep import Keeper
from sweep.randomness import Stream, epoch_order, generator, seed_at
from sweep.schedule import Schedule
from sweep.spec import Recipe, TrialSpec
from sweep.store import EpochRow, TrialDir

_CHECK_LOSS_EVERY = 50  # steps; reading the loss makes a GPU wait
_VAL_BATCH = 250


class Report(Protocol):
    """Told after each epoch: its row, and the checkpoint's folder if its weights are kept for the analysis."""

    def __call__(self, row: EpochRow, kept: UPath | None) -> None: ...


def ignore(row: EpochRow, kept: UPath | None) -> None:
    """Report to nobody."""


def never() -> bool:
    """Do not stop before the end."""
    return False


class DivergedError(RuntimeError):
    """The loss is not a finite number."""


class StoppedError(RuntimeError):
    """Training was asked to stop; its state is saved."""


def train(
    spec: TrialSpec,
    data: PreparedData,
    trial_dir: UPath,
    report: Report = ignore,
    stop: Callable[[], bool] = never,
) -> list[EpochRow]:
    """Train a trial to its end, from its last valid checkpoint if there is one, and give the rows of all its epochs.

    Writes `epochs.jsonl` and `checkpoints/` in `trial_dir`; `stop` is asked after each step.

    Raises:
        DivergedError: the loss became NaN or infinite; the message names the step.
        StoppedError: `stop` said so; a checkpoint of the step reached has been written.
    """
    intervention = INTERVENTIONS[spec.intervention]
    schedule = Schedule(spec.recipe, len(data.train_images))
    trial = TrialDir(trial_dir)
    keeper = Keeper(trial.checkpoints, spec.recipe.epochs)
    last_step = schedule.steps if intervention.trained else 0
    if _is_complete(trial, last_step):
        return trial.epochs()
    labels = intervention.relabel(data.train_labels, generator(spec.data_seed, Stream.LABELS, 0))
    data = replace(data, train_labels=labels)
    run = Run(spec)
    checkpoint = next(newest_resumable(trial.checkpoints), None)
    if checkpoint is not None:
        run.load(checkpoint)
    # An epoch's row is written before its checkpoint: rows past the checkpoint are dropped and made again.
    rows = [row for row in trial.epochs() if checkpoint and int(row["step"] or 0) <= run.step]

    def finish_epoch(lr: float | None) -> None:
        rows.append(run.epoch_row(lr) | evaluate(run.net, data, intervention, spec.recipe, run.device))
        trial.write_epochs(rows)
        run.start_epoch()
        report(rows[-1], keeper.save_epoch(run))

    if not rows:
        finish_epoch(lr=None)
    for epoch in range(run.epoch, spec.recipe.epochs if intervention.trained else 0):
        order = epoch_order(spec.data_seed, epoch, schedule.images)
        size = schedule.batch_size(epoch)
        for index in range(run.step - schedule.first_step(epoch), schedule.steps_in(epoch)):
            batch = _batch(run, data, order[index * size : (index + 1) * size], intervention)
            run.learn(batch, schedule.learning_rate(epoch, index))
            if stop():
                keeper.save(run)
                raise StoppedError(f"stopped at step {run.step}")
            if keeper.due():
                keeper.save(run)
        run.epoch += 1
        finish_epoch(lr=schedule.learning_rate(epoch, schedule.steps_in(epoch) - 1))
    keeper.finish()
    return rows


class Run:
    """The state of one trial in memory: network, optimizer, where training stands, sums over the unfinished epoch."""

    def __init__(self, spec: TrialSpec) -> None:
        self.spec = spec
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.deterministic = True
        net = models.build(
            spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, spec.init_seed
        )
        self.net: ConvNet = net.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.net, spec.recipe)
        self.step = 0
        self.epoch = 0
        self.images = 0
        self.wall_s = 0.0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._diverged_at = torch.full((), torch.inf, dtype=torch.float64, device=self.device)

    def learn(self, batch: Batch, lr: float) -> None:
        """One optimizer step."""
        began = time.perf_counter()
        images, labels = batch
        self.net.train()
        torch.manual_seed(seed_at(self.spec.data_seed, Stream.DROPOUT, self.step))
        with autocast(self.spec.recipe, self.device):
            logits = self.net(images)
            loss = cross_entropy(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        self.images += len(images)
        loss = loss.detach().double()
        self._loss_sum += loss * len(images)
        self._correct += (logits.detach().argmax(1) == labels).sum()
        self._diverged_at = torch.where(loss.isfinite(), self._diverged_at, self._diverged_at.clamp(max=self.step))
        if self.step % _CHECK_LOSS_EVERY == 0:
            self.require_finite()
        self.wall_s += time.perf_counter() - began

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
        self.wall_s = progress.wall_s
        self._loss_sum.fill_(progress.loss_sum)
        self._correct.fill_(progress.correct)
        for name, parameter in self.net.named_parameters():
            buffer = checkpoint.training[name].to(self.device, memory_format=torch.preserve_format)
            self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)


def evaluate(
    net: ConvNet, data: PreparedData, intervention: Intervention, recipe: Recipe, device: torch.device
) -> EpochRow:
    """Loss and accuracy over the validation images, which the intervention turns as it turns training images."""
    net.eval()
    loss_sum, correct = 0.0, 0
    with torch.no_grad(), autocast(recipe, device):
        for images, labels in zip(data.val_images.split(_VAL_BATCH), data.val_labels.split(_VAL_BATCH), strict=True):
            images = intervention.transform(data.validation_images(images.to(device)))
            labels = labels.to(device)
            logits = net(images.contiguous(memory_format=torch.channels_last)).float()
            loss_sum += cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(1) == labels).sum().item())
    if not math.isfinite(loss_sum):
        raise DivergedError("the validation loss is not a finite number; lower recipe.lr")
    return {"val_loss": loss_sum / len(data.val_labels), "val_accuracy": correct / len(data.val_labels)}


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """The recipe's precision for forward passes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def _is_complete(trial: TrialDir, last_step: int) -> bool:
    """Whether the last epoch's row and a valid checkpoint of its weights are there."""
    if last_step not in [row["step"] for row in trial.epochs()]:
        return False
    try:
        return read_checkpoint(trial.checkpoints / str(last_step)).progress.step == last_step
    except TornCheckpointError:
        return False


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
