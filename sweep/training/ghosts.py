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
        self._before: list[list[Tensor]] = []
        self._parts = 0

    def begin_step(self) -> None:
        self._before = [[buffer.clone() for buffer in _statistics(norm)] for norm in self._norms]
        self._parts = 0

    def begin_part(self) -> None:
        """From the second part on, each moves the mean of those before it by its share."""
        self._parts += 1
        for norm in self._norms:
            norm.momentum = 1 / self._parts

    def end_step(self, ranks: Ranks) -> None:
        now = [buffer for norm in self._norms for buffer in _statistics(norm)]
        if ranks.size > 1 and now:
            means = ranks.reduced(torch.cat(now), "sum").div_(ranks.size)
            torch._foreach_copy_(now, list(means.split([len(buffer) for buffer in now])))
        for norm, before, share in zip(self._norms, self._before, self._shares, strict=True):
            for buffer, old in zip(_statistics(norm), before, strict=True):
                buffer.copy_(torch.lerp(old, buffer, share))
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(self._parts - 1)
            norm.momentum = share


def _statistics(norm: _BatchNorm) -> list[Tensor]:
    """Mean and variance, each [channels]."""
    return [buffer for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
