"""The state of one trial in memory, and what one step does to it."""

import json
import math
import os
import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import models
from models.convnet import ConvNet
from models.interventions import Intervention
from sweep.data.arrays import Batch
from sweep.data.prepare import PreparedData
from sweep.spec import Recipe, TrialSpec
from sweep.store.checkpoint import Checkpoint
from sweep.store.manifest import EpochRow, Progress
from sweep.training.randomness import Stream, seed_at

_CHECK_LOSS_EVERY = 50  # steps; reading the loss makes a GPU wait
VAL_BATCH = 250  # images in a validation batch; changes no result


class DivergedError(RuntimeError):
    """The loss is not a finite number; a retry would diverge too."""


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
        """One optimizer step; after an error the state is inconsistent: load a checkpoint."""
        began = time.perf_counter()
        self.net.train()
        # Dropout draws from PyTorch's global generator: seeded by the step, it draws the same after a resume.
        torch.manual_seed(seed_at(self.spec.data_seed, Stream.DROPOUT, self.step))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._descend(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        self.images += len(batch[0])
        self._loss_sum += loss * len(batch[0])
        # Kept on the device and read now and then: `.item()` at each step would make a GPU wait.
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
            (loss * share).backward()  # gradients add up to those of the whole batch's mean loss
            total += loss.detach().double() * share
            self._correct += (logits.detach().argmax(1) == labels).sum()
        return total

    def require_finite(self) -> None:
        """Raise a DivergedError if any loss so far was not finite."""
        step = self._diverged_at.item()
        if step != torch.inf:
            raise DivergedError(f"the loss was not a finite number at step {step:.0f}; lower recipe.lr")

    def epoch_row(self, lr: float | None) -> EpochRow:
        """The training half of an epoch's row; null if no step was taken."""
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
        """Reset the sums of the epoch before."""
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
        """What an analysis needs to know besides the weights; one key, as safetensors writes several in any order."""
        return {"final_convs": json.dumps(self.net.final_convs)}

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore a checkpoint's state."""
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
    at_a_time: int = VAL_BATCH,
) -> EpochRow:
    """Loss and accuracy over the validation images, which the intervention transforms like training images."""
    net.eval()
    loss_sum, correct = 0.0, 0
    with torch.no_grad(), autocast(recipe, device):
        for start in range(0, len(data.val_labels), at_a_time):
            which = slice(start, start + at_a_time)
            labels = data.val_labels[which].to(device)
            images = intervention.transform(data.validation_images(data.val_images[which].to(device)))
            logits = net(images.contiguous(memory_format=torch.channels_last)).float()
            loss_sum += cross_entropy(logits, labels, reduction="sum").item()
            correct += int((logits.argmax(1) == labels).sum().item())
    if not math.isfinite(loss_sum):
        raise DivergedError("the validation loss is not a finite number; lower recipe.lr")
    return {"val_loss": loss_sum / len(data.val_labels), "val_accuracy": correct / len(data.val_labels)}


def _ask_for_determinism() -> None:
    """Make a GPU add in the same order each time, where PyTorch can; it warns where it can't (reflect padding)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory costs time, and nothing here reads it before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """The recipe's precision for forward passes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def _optimizer(net: ConvNet, recipe: Recipe) -> torch.optim.SGD:
    groups = [
        {"params": list(net.features.parameters()), "weight_decay": recipe.weight_decay_body},
        {"params": list(net.head.parameters()), "weight_decay": recipe.weight_decay_head},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
