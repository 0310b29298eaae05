"""Tell a lack of memory from other errors, whether PyTorch, its CPU allocator or a CUDA library raises it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SAID = ("allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""Parts of the plain RuntimeErrors that some of them raise."""


class OutOfMemoryError(RuntimeError):
    """A step does not fit in memory."""


@contextmanager
def told_of_memory(step: int) -> Iterator[None]:
    """Raise an OutOfMemoryError with a cure if a step's work does not fit in memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(s in str(error) for s in _SAID):
            raise
        raise OutOfMemoryError(
            f"out of memory at step {step}; lower recipe.batch_size, or split steps with "
            "--set recipe.out_of_memory=split"
        ) from error
