"""Batches on the device before they are needed: gathered and cut in uint8 by threads, copied while the GPU computes.

Axis letters: `b` images of a batch, `s` side of a window.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int64, UInt8
from torch import Generator, Tensor

from sweep.data.augment import cut_windows
from sweep.data.images import Images

_AHEAD = 3  # batches: one that is computed on, one on its way to the device, one being gathered
_RESIDENT_SHARE = 0.2  # of a GPU's free memory that stored images may take; trials that share it start one by one
_CHUNK = 2048  # images copied at a time when all of them go to the GPU


@dataclass(frozen=True)
class Wanted:
    """Images by number, where their windows are cut, and the generator for what else is random about them."""

    numbers: Int64[Tensor, " b"]
    corners: Int64[Tensor, "b 2"]
    draw: Generator


@dataclass(frozen=True)
class Loaded:
    """Windows and labels on the device, and the generator that has drawn the windows' corners."""

    windows: UInt8[Tensor, "b 3 s s"]
    labels: Int64[Tensor, " b"]
    draw: Generator


class Loader:
    """Loads windows of stored images in the order in which they are wanted; a context, since it has threads.

    Images that fit stay on a GPU. `waited_s` is the time for which the user of the batches had to wait.
    """

    def __init__(
        self, images: Images, labels: Int64[Tensor, " n"], side: int, device: torch.device, threads: int = 1
    ) -> None:
        self._images, self._labels, self._side, self._device = images, labels, side, device
        self._threads = threads
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._copying = ThreadPoolExecutor(threads, thread_name_prefix="gather")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._resident = _resident(images, device)
        if self._stream is not None:  # its last copy may still run
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.shutdown(cancel_futures=True)
        self._copying.shutdown()

    def batches(self, wanted: Iterable[Wanted]) -> Iterator[Loaded]:
        """What is wanted, in order."""
        waiting: deque[Future[tuple[Loaded, torch.cuda.Event | None]]] = deque()
        for each in wanted:
            waiting.append(self._ahead.submit(self._load, each))
            if len(waiting) == _AHEAD:
                yield self._taken(waiting.popleft())
        while waiting:
            yield self._taken(waiting.popleft())

    def _taken(self, future: "Future[tuple[Loaded, torch.cuda.Event | None]]") -> Loaded:
        began = time.perf_counter()
        loaded, copied = future.result()
        self.waited_s += time.perf_counter() - began
        if copied is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            for tensor in (loaded.windows, loaded.labels):
                tensor.record_stream(stream)  # else its memory may be used again before the network has read it
        return loaded

    def _load(self, wanted: Wanted) -> tuple[Loaded, torch.cuda.Event | None]:
        if self._stream is None:
            return Loaded(self._gathered(wanted, pinned=False), self._labels[wanted.numbers], wanted.draw), None
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if self._resident is None:
                windows = self._gathered(wanted, pinned=True).to(self._device, non_blocking=True)
            else:
                numbers, corners = (_sent(tensor, self._device) for tensor in (wanted.numbers, wanted.corners))
                windows = cut_windows(self._resident[numbers], corners, self._side)
            labels = _sent(self._labels[wanted.numbers], self._device)
            copied = torch.cuda.Event()
            copied.record()
        return Loaded(windows, labels, wanted.draw), copied

    def _gathered(self, wanted: Wanted, pinned: bool) -> UInt8[Tensor, "b 3 s s"]:
        shape = (len(wanted.numbers), 3, self._side, self._side)
        windows = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        self._images.copy(wanted.numbers, wanted.corners, windows, self._copying, self._threads)
        return windows


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


def _resident(images: Images, device: torch.device) -> UInt8[Tensor, "n 3 h w"] | None:
    """All images on the GPU, if they take little of its memory; None otherwise."""
    if device.type != "cuda" or images.nbytes > _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    stored = torch.empty((len(images), 3, *images.side), dtype=torch.uint8, device=device)
    for start in range(0, len(images), _CHUNK):
        which = slice(start, min(start + _CHUNK, len(images)))
        stored[which] = images[which].to(device)
    return stored
