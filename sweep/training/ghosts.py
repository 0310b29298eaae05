"""Batch norm over parts of a step, whose running statistics don't depend on which process saw which part."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sweep.training.ranks import Ranks


class RunningStatistics:
    """Moves the running statistics of a network once a step, by the mean over all parts that its ranks went through."""

    def __init__(self, net: nn.Module) -> None:
        self._norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
        self._shares = [0.1 if norm.momentum is None else norm.momentum for norm in self._norms]
        self._before: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._parts = 0

    def begin_step(self) -> None:
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        self._parts = 0
        for norm in self._norms:
            norm.momentum = 1.0  # each part leaves its own statistics; one number, since torch.compile knows it

    def end_part(self) -> None:
        self._parts += 1
        if self._norms:
            torch._foreach_add_(self._sums, self._buffers)

    def end_step(self, ranks: Ranks) -> None:
        if not self._norms:
            return
        means = ranks.reduced(torch.cat(self._sums), "sum").div_(self._parts * ranks.size)
        parts = means.split([len(buffer) for buffer in self._sums])
        shares = [share for norm, share in zip(self._norms, self._shares, strict=True) for _ in _statistics(norm)]
        for buffer, old, mean, share in zip(self._buffers, self._before, parts, shares, strict=True):
            buffer.copy_(torch.lerp(old, mean, share))
        for norm, share in zip(self._norms, self._shares, strict=True):
            norm.momentum = share
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(self._parts - 1)

    @property
    def _buffers(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in _statistics(norm)]


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    """Mean and variance, each [channels]."""
    return [buffer for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
