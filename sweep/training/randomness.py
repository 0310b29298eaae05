"""Randomness that is counted, not carried: every draw is a function of a seed and a position.

A trial resumed at step t therefore draws what an uninterrupted one draws at step t, with no random state to save.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Generator, Tensor


class Stream(IntEnum):
    """Independent streams of one seed; the numbers are part of every trial's result and never change."""

    ORDER = 1
    AUGMENT = 2
    LABELS = 3
    DROPOUT = 4


def seed_at(seed: int, stream: Stream, *position: int) -> int:
    """A seed for one position of one stream: an epoch, a step, or a step and one of its ghost batches."""
    state = np.random.SeedSequence([seed, int(stream), *position]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))  # torch takes seeds below 2^63


def generator(seed: int, stream: Stream, *position: int) -> Generator:
    """A CPU generator for one position of one stream."""
    return torch.Generator().manual_seed(seed_at(seed, stream, *position))


def epoch_order(data_seed: int, epoch: int, images: int) -> Tensor:
    """The order int64[images] in which an epoch goes through the training images."""
    return torch.randperm(images, generator=generator(data_seed, Stream.ORDER, epoch))
