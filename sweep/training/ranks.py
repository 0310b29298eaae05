"""The processes that train one trial together, one for each GPU; a trial on one GPU or on CPUs has just one.

Rank 0 writes; all of them read. What they decide, they decide together, since each waits for the others in every step.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_PATIENCE = timedelta(minutes=30)  # for the slowest rank, which may have to validate or save


@dataclass(frozen=True)
class Ranks:
    """One of `size` processes; without a process group where it is the only one."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def own(self, items: range) -> range:
        """This rank's share of some items, consecutive ones; their number is a multiple of `size` or the last ones get
        fewer."""
        share = -(-len(items) // self.size)
        return items[self.rank * share : (self.rank + 1) * share]

    def highest(self, number: int) -> int:
        """The highest number of any rank."""
        return number if self.size == 1 else int(self.reduced(torch.tensor(number), "max").item())

    def reduced(self, tensor: Tensor, how: str) -> Tensor:
        """The sum, `max` or `min` over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}[how])
        return tensor

    def unsynchronised(self, parallel: nn.Module, unless: bool) -> AbstractContextManager[None]:
        """Where gradients are added up but not yet averaged over the ranks."""
        if unless or not isinstance(parallel, DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], parallel.no_sync())

    def parallel(self, net: nn.Module, device: torch.device) -> nn.Module:
        """The network whose backward passes average the gradients of all ranks."""
        if self.size == 1:
            return net
        # With `find_unused_parameters`, gradients stay in the buckets of the first step. They are regrouped after it
        # otherwise, also after a resume: then the sums over three or more ranks would be added up in another order.
        return DistributedDataParallel(
            net,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=True,
        )


ALONE = Ranks()


@contextmanager
def joined(rank: int, size: int, address: str) -> Iterator[Ranks]:
    """Join the processes of a trial on one node; `address` is HOST:PORT, on which rank 0 listens."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")  # else by the host's name
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, init_method=f"tcp://{address}", rank=rank, world_size=size, timeout=_PATIENCE,
        device_id=torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None,
    )  # fmt: skip
    yield Ranks(rank, size)
    # After an error the others may wait in a collective, and NCCL would wait for them here: processes end instead.
    dist.destroy_process_group()
