"""Stored images, read by number from memory-mapped shards; a batch's windows are cut while they are copied.

Axis letters: `n` images, `h w` stored rows and columns, `b` images of a batch, `s` side of the window taken.
"""

import mmap
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


class Images:
    """Images uint8[n, 3, h, w] that may be larger than memory.

    They are spread over `shards`; `rows` chooses images of all shards counted through (default: all, in order).
    """

    def __init__(
        self, shards: Sequence[UInt8[np.ndarray, "_ 3 h w"]], rows: Int64[np.ndarray, " n"] | None = None
    ) -> None:
        self._shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows
        self.side = (int(shards[0].shape[2]), int(shards[0].shape[3]))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Size of all images in bytes."""
        return len(self) * 3 * self.side[0] * self.side[1]

    def __getitem__(self, which: slice) -> UInt8[Tensor, "b 3 h w"]:
        """Whole images."""
        numbers = torch.arange(*which.indices(len(self)))
        return self.gather(numbers)

    def gather(self, numbers: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 h w"]:
        """Whole images by number."""
        out = torch.empty((len(numbers), 3, *self.side), dtype=torch.uint8)
        self.copy(numbers, torch.zeros(len(numbers), 2, dtype=torch.int64), out)
        return out

    def copy(
        self,
        numbers: Int64[Tensor, " b"],
        corners: Int64[Tensor, "b 2"],
        out: UInt8[Tensor, "b 3 s1 s2"],
        pool: Executor | None = None,
        threads: int = 1,
    ) -> None:
        """Copy a window of each image into `out`; `corners` are its top row and left column."""
        target, rows = out.numpy(), self._rows[numbers.numpy()]
        where = np.searchsorted(self._starts, rows, side="right") - 1
        within = rows - self._starts[where]
        for shard, row in zip(where, within, strict=True):
            _announce(self._shards[shard], int(row))

        def part(of: slice) -> None:
            height, width = target.shape[2:]
            places = zip(where[of], within[of], corners[of].tolist(), target[of], strict=True)
            for shard, row, (top, left), window in places:
                window[...] = self._shards[shard][row, :, top : top + height, left : left + width]

        if pool is None or threads == 1:
            part(slice(None))
            return
        bounds = np.linspace(0, len(rows), threads + 1).astype(int)
        list(pool.map(part, [slice(a, b) for a, b in pairwise(bounds)]))


def _announce(shard: np.ndarray, row: int) -> None:
    """Ask the kernel to read an image ahead; by itself it reads the wrong neighbours of a random access."""
    if not isinstance(shard, np.memmap):
        return
    mapped: mmap.mmap = shard._mmap  # type: ignore[attr-defined]
    size = shard[0].nbytes
    start = (shard.offset + row * size) // mmap.PAGESIZE * mmap.PAGESIZE
    with suppress(OSError, ValueError):
        mapped.madvise(mmap.MADV_WILLNEED, int(start), int(min(size + mmap.PAGESIZE, len(mapped) - start)))
