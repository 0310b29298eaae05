"""A process as it was before a trial, so that the next one in it finds what the first one found."""

import ctypes
import gc
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_MOST_GROWTH = 256 * 2**20  # bytes that a process may keep more than after its first trial


class Surroundings:
    """What a trial could leave changed in its process, as it is when this object is made."""

    def __init__(self) -> None:
        self._environment, self._folder = dict(os.environ), _folder()
        self._filters, self._path = list(warnings.filters), list(sys.path)
        self._threads = set(threading.enumerate())
        self._torch = _torch_settings()
        self._random = random.getstate()
        self._after_first: int | None = None
        gc.freeze()  # what has been imported stays: looking through it after each trial would take 0.1 s

    def restored(self) -> bool:
        """Put everything back; False if the process holds memory or threads that a trial has left behind."""
        os.environ.clear()
        os.environ.update(self._environment)
        if self._folder is not None:
            with suppress(OSError):
                os.chdir(self._folder)
        warnings.filters[:] = self._filters  # type: ignore[index]  # typed as a sequence, and a list
        sys.path[:] = self._path
        random.setstate(self._random)
        for setting, value in self._torch:
            setting(value)
        _give_memory_back()
        held = _anonymous_bytes()
        if self._after_first is None:
            self._after_first = held
            self._threads |= set(threading.enumerate())  # libraries start theirs when they are first used
            gc.freeze()  # what the first trial has imported
        left = {thread for thread in threading.enumerate() if thread.is_alive()} - self._threads
        return not left and held <= self._after_first + _MOST_GROWTH


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109  # Path.cwd() would be made absolute again
    except OSError:  # it has been removed
        return None


def _torch_settings() -> list[tuple[Callable[[Any], object], Any]]:
    """Settings of torch for the whole process, each with what it is now."""
    if "torch" not in sys.modules:
        return []
    import numpy as np
    import torch

    def deterministic(how: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(how[0], warn_only=how[1])

    def set_attribute(owner: Any, name: str) -> tuple[Callable[[Any], object], Any]:
        return lambda value: setattr(owner, name, value), getattr(owner, name)

    strict = torch.are_deterministic_algorithms_enabled()
    return [
        (deterministic, (strict, torch.is_deterministic_algorithms_warn_only_enabled())),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (torch.set_grad_enabled, torch.is_grad_enabled()),
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        (torch.autograd.set_detect_anomaly, torch.is_anomaly_enabled()),
        (torch.set_rng_state, torch.get_rng_state()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002  # the global one is what a trial could change
        set_attribute(torch.backends.cudnn, "benchmark"),
        set_attribute(torch.backends.cudnn, "deterministic"),
        set_attribute(torch.backends.cudnn, "allow_tf32"),
        set_attribute(torch.backends.cuda.matmul, "allow_tf32"),
        set_attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    ]


def _give_memory_back() -> None:
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if (dynamo := sys.modules.get("torch._dynamo")) is not None:
        dynamo.reset()
    with suppress(OSError, AttributeError):  # glibc alone
        ctypes.CDLL(None).malloc_trim(0)


def _anonymous_bytes() -> int:
    """Memory of this process that no file backs; 0 where the system doesn't tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
