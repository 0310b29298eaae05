"""How fast a trial trains, from a few of its steps."""

import tempfile
import time
from contextlib import suppress
from dataclasses import replace

import torch
from upath import UPath

from sweep.data.images import Images
from sweep.data.prepare import prepare
from sweep.spec import Plan
from sweep.training.machine import Arithmetic
from sweep.training.train import StoppedError, course

_WARM_UP = 3  # steps: the first ones choose algorithms and fill caches
_STEPS, _LONGEST_S = 20, 60.0  # what is timed: this many steps, or fewer if they take long
_FEW = 8  # validation images; what is timed are training steps


class _Clock:
    """Stops training when enough steps are timed."""

    def __init__(self) -> None:
        self._began: tuple[int, float] | None = None
        self.steps, self.seconds = 0, 0.0

    def stop(self, step: int) -> bool:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._began is None:
            self._began = (step, now) if step >= _WARM_UP else None
            return False
        self.steps, self.seconds = step - self._began[0], now - self._began[1]
        return self.steps >= _STEPS or self.seconds >= _LONGEST_S


def measure(plan: Plan) -> tuple[float, str]:
    """Training images per second of a planned trial in this process, and the device that it ran on.

    It reads the trial's own data, which is prepared first, and takes batches as large as the recipe's first ones. Of a
    trial on several GPUs one is used. What it writes is thrown away.

    Raises:
        ValueError: the trial has too few steps to time any.
    """
    spec, resources = plan.spec, plan.resources
    torch.set_num_threads(1 if resources is None else resources.cpus_per_process)
    data = prepare(spec.data, plan.root)
    few = replace(data, val_images=Images([data.val_images[:_FEW].numpy()]), val_labels=data.val_labels[:_FEW])
    clock = _Clock()
    with tempfile.TemporaryDirectory(prefix="sweep-speed-") as folder, suppress(StoppedError):
        for _ in course(spec, few, UPath(folder), clock.stop):
            if clock.steps:  # the next epoch may have batches of another size
                break
    if not clock.steps:
        raise ValueError(
            f"{spec.architecture} can't be timed: an epoch of {len(data.train_images)} images has too few steps"
        )
    return clock.steps * spec.recipe.batch_size[0].size / clock.seconds, Arithmetic.here().device
