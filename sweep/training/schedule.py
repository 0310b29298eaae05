"""What happens when in a training run: steps of each epoch, learning rates, checkpoints kept for the analysis."""

import math
from dataclasses import dataclass

from sweep.spec import Recipe


@dataclass(frozen=True)
class Schedule:
    """The steps of a recipe over `images` training images; an epoch's last incomplete batch is left out."""

    recipe: Recipe
    images: int

    def __post_init__(self) -> None:
        self.recipe.require_images(self.images)

    def batch_size(self, epoch: int) -> int:
        """Images per step in an epoch."""
        return [phase.size for phase in self.recipe.batch_size if phase.from_epoch <= epoch][-1]

    def steps_in(self, epoch: int) -> int:
        """Steps of one epoch."""
        return self.images // self.batch_size(epoch)

    def first_step(self, epoch: int) -> int:
        """Steps done when an epoch begins."""
        phases = self.recipe.batch_size
        ends = [*(phase.from_epoch for phase in phases[1:]), epoch]
        return sum(
            max(0, min(end, epoch) - phase.from_epoch) * (self.images // phase.size)
            for phase, end in zip(phases, ends, strict=True)
        )

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.first_step(self.recipe.epochs)

    def learning_rate(self, epoch: int, step_in_epoch: int) -> float:
        """The learning rate of one step; a function of the share of epochs done, whatever the batch sizes."""
        done = (epoch + step_in_epoch / self.steps_in(epoch)) / self.recipe.epochs
        return self.recipe.lr * _FACTORS[self.recipe.lr_schedule](done)


def one_cycle(done: float) -> float:
    """Factor on the highest learning rate after a share `done` of training, in [0, 1].

    Source: Smith and Topin 2018 (arXiv:1708.07120), with the defaults of torch.optim.lr_scheduler.OneCycleLR.
    """
    rise, start, end = 0.3, 1 / 25, 1 / 250_000
    if done < rise:
        return _cosine(start, 1.0, done / rise)
    return _cosine(1.0, end, (done - rise) / (1 - rise))


def constant(done: float) -> float:
    """The same learning rate throughout."""
    return 1.0


_FACTORS = {"one_cycle": one_cycle, "constant": constant}


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
