"""The state of one trial in memory, and what one step does to it."""

import json
import math
import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import models
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.arrays import Batch
from sweep.data.prepare import PreparedData
from sweep.spec import Recipe, TrialSpec
from sweep.store.checkpoint import Checkpoint
from sweep.store.manifest import EpochRow, Progress
from sweep.training.ghosts import RunningStatistics
from sweep.training.loader import Loaded
from sweep.training.randomness import Stream, seed_at
from sweep.training.ranks import ALONE, Ranks

_CHECK_LOSS_EVERY = 50  # steps; reading the loss makes a GPU wait
VAL_BATCH = 250  # images in a validation batch; changes no result
_TOP = 5
_CPU = torch.device("cpu")


class DivergedError(RuntimeError):
    """The loss is not a finite number; a retry would diverge too."""


class Run:
    """The state of one trial in memory: network, optimizer, where training stands, sums over the unfinished epoch.

    A step's images are its parts one after the other: its ghost batches, or all of them at once. Each of the trial's
    `ranks` goes through its own parts. `micro_batches` is the number of pieces into which a part is split to fit in
    memory.
    """

    def __init__(self, spec: TrialSpec, ranks: Ranks = ALONE) -> None:
        self.spec, self.ranks = spec, ranks
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else _CPU
        if self.device.type == "cuda":
            _choose_arithmetic(spec.recipe)
        net = models.build(
            spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, spec.init_seed
        )
        self.net: ConvNet = net.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.net, spec.recipe, self.device)
        self._statistics = RunningStatistics(self.net)
        if spec.recipe.compile != "none":  # the same graphs, whatever this process has compiled or run before
            torch.compiler.reset()
            self.net.compile(mode=spec.recipe.compile, dynamic=False)
        self._parallel = ranks.parallel(self.net, self.device)
        self.step = 0
        self.epoch = 0
        self.images = 0
        self.wall_s = 0.0
        self.waited_s = 0.0
        self.saved_s = 0.0
        self.rows: list[EpochRow] = []
        self.micro_batches = 1
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._diverged_at = torch.full((), torch.inf, dtype=torch.float64, device=self.device)

    def parts(self, size: int) -> range:
        """Numbers of the parts of a step of `size` images that this rank goes through."""
        return self.ranks.own(range(size // (self.spec.recipe.ghost_batch or size)))

    def learn(self, parts: Iterable[Batch], size: int, lr: float) -> None:
        """One optimizer step over `size` images; after an error the state is inconsistent: load a checkpoint."""
        began = time.perf_counter()
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._descend(parts, size)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        self.images += size
        self._loss_sum += loss * size
        # Kept on the device and read now and then: `.item()` at each step would make a GPU wait.
        self._diverged_at = torch.where(loss.isfinite(), self._diverged_at, self._diverged_at.clamp(max=self.step))
        if self.step % _CHECK_LOSS_EVERY == 0:
            self.require_finite()
        self.wall_s += time.perf_counter() - began

    def forward(self, images: Tensor) -> Tensor:
        """Logits [b, classes] of some of a step's images."""
        logits: Tensor = self._parallel(images)
        return logits

    def _descend(self, parts: Iterable[Batch], size: int) -> Tensor:
        """Gradients of a step, and this rank's share of its mean loss, float64[]."""
        ghosts = self.spec.recipe.ghost_batch is not None
        numbers = self.parts(size)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        if ghosts:
            self._statistics.begin_step()
        for number, batch in zip(numbers, parts, strict=True):
            # Dropout draws from PyTorch's global generator: seeded by step and part, it draws the same after a resume.
            position = (self.step, number) if ghosts else (self.step,)
            torch.manual_seed(seed_at(self.spec.data_seed, Stream.DROPOUT, *position))
            total += self._descend_part(batch, size, last=number == numbers[-1])
        if ghosts:
            self._statistics.end_step(self.ranks)
        return total

    def _descend_part(self, batch: Batch, size: int, last: bool) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        pieces = list(zip(*(tensor.tensor_split(self.micro_batches) for tensor in batch), strict=True))
        for number, (images, labels) in enumerate(pieces, 1):
            share = len(images) / size
            with self.ranks.unsynchronised(self._parallel, unless=last and number == len(pieces)):
                with autocast(self.spec.recipe, self.device):
                    logits = self.forward(images)
                    loss = cross_entropy(logits, labels)
                if self.spec.recipe.ghost_batch is not None:
                    self._statistics.end_part()
                # Gradients add up to those of the mean loss of all images; those of several ranks are averaged.
                (loss * share * self.ranks.size).backward()
            total += loss.detach().double() * share
            self._correct += (logits.detach().argmax(1) == labels).sum()
        return total

    def require_finite(self) -> None:
        """Raise a DivergedError if any loss so far was not finite; all ranks raise it, or none."""
        step = self.ranks.reduced(self._diverged_at.clone(), "min").item()
        if step != torch.inf:
            raise DivergedError(f"the loss was not a finite number at step {step:.0f}; lower recipe.lr")

    def epoch_row(self, lr: float | None) -> EpochRow:
        """The training half of an epoch's row; null if no step was taken."""
        began = time.perf_counter()
        self.require_finite()  # waits for a GPU to finish the epoch
        loss_sum, correct = self._sums()
        images = self.images or None
        self.wall_s += time.perf_counter() - began
        before = self.rows[-1]["wall_s"] if self.rows else 0.0
        took_s = self.wall_s - (before or 0.0)
        return {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": loss_sum / images if images else None,
            "train_accuracy": correct / images if images else None,
            "learning_rate": lr,
            "wall_s": round(self.wall_s, 3),
            "images_per_s": round(images / took_s, 1) if images and took_s > 0 else None,
            "wait_s": round(self.waited_s, 3),
            "compute_s": round(max(0.0, took_s - self.waited_s), 3),
            "save_s": round(self.saved_s, 3),
            "gpu_mib": round(torch.cuda.max_memory_allocated() / 2**20) if self.device.type == "cuda" else None,
        }

    def start_epoch(self) -> None:
        """Reset the sums of the epoch before."""
        self.images = 0
        self.waited_s = self.saved_s = 0.0
        self._loss_sum.zero_()
        self._correct.zero_()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def progress(self) -> Progress:
        """Where training stands; all ranks call this together."""
        self.require_finite()
        loss_sum, correct = self._sums()
        return Progress(
            step=self.step,
            epoch=self.epoch,
            images=self.images,
            loss_sum=loss_sum,
            correct=correct,
            wall_s=self.wall_s,
            rows=list(self.rows),
            micro_batches=self.micro_batches,
            waited_s=self.waited_s,
            saved_s=self.saved_s,
        )

    def _sums(self) -> tuple[float, int]:
        """Loss and hits of the unfinished epoch, of all ranks together."""
        loss_sum, correct = (self.ranks.reduced(each.clone(), "sum") for each in (self._loss_sum, self._correct))
        return loss_sum.item(), int(correct.item())

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
        self.waited_s, self.saved_s = progress.waited_s, progress.saved_s
        self.micro_batches = progress.micro_batches
        if self.ranks.first:  # the sums of all ranks are added up
            self._loss_sum.fill_(progress.loss_sum)
            self._correct.fill_(progress.correct)
        for name, parameter in self.net.named_parameters():
            buffer = checkpoint.training[name].to(self.device, memory_format=torch.preserve_format)
            self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)


def evaluate(
    net: ConvNet, data: PreparedData, batches: Iterable[Loaded], spec: TrialSpec, device: torch.device, ranks: Ranks
) -> EpochRow:
    """Loss and accuracies over batches of validation images, which the intervention transforms like training images.

    Each rank has its own batches; the result is that of all of them together.
    """
    net.eval()
    transform = INTERVENTIONS[spec.intervention].transform
    sums, seen = torch.zeros(3, dtype=torch.float64, device=device), 0
    with torch.no_grad(), autocast(spec.recipe, device):
        for batch in batches:
            images = transform(data.validation_images(batch.windows))
            logits = net(images.contiguous(memory_format=torch.channels_last)).float()
            loss = cross_entropy(logits, batch.labels, reduction="sum")
            best = logits.topk(min(_TOP, logits.shape[1])).indices == batch.labels[:, None]
            hits = (logits.argmax(1) == batch.labels).sum()
            sums += torch.stack([loss.double(), hits.double(), best.sum().double()])
            seen += len(images)
    loss_sum, top_1, top_5, number = ranks.reduced(torch.cat([sums, sums.new_tensor([seen])]), "sum").tolist()
    if not math.isfinite(loss_sum):
        raise DivergedError("the validation loss is not a finite number; lower recipe.lr")
    return {"val_loss": loss_sum / number, "val_accuracy": top_1 / number, "val_top5_accuracy": top_5 / number}


def _choose_arithmetic(recipe: Recipe) -> None:
    """Set what a GPU may do with the order and the precision of its sums.

    PyTorch warns where it has no deterministic kernel (reflect padding).
    """
    # PyTorch's own default multiplies float32 numbers in convolutions as TF32.
    torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"
    torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
    torch.backends.cudnn.benchmark = not recipe.deterministic  # chooses the fastest kernel, each time anew
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Filling new memory costs time, and nothing here reads it before it is written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """The recipe's precision for forward passes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


def _optimizer(net: ConvNet, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    groups = [
        {"params": list(net.features.parameters()), "weight_decay": recipe.weight_decay_body},
        {"params": list(net.head.parameters()), "weight_decay": recipe.weight_decay_head},
    ]
    fused = True if device.type == "cuda" else None  # on a CPU it would give other bits, and no speed
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused)
