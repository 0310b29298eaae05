"""Which checkpoints of a trial are written and which are kept.

The last two full ones are for resuming; weights alone are kept at log-spaced epochs, so that the analysis
shows when banding appears.
"""

import math
from collections.abc import Collection, Set

from upath import UPath

from sweep.spec import Resources
from sweep.store.manifest import (
    TornCheckpointError,
    checkpoint_steps,
    read_progress,
)

SAVE_EVERY_S = Resources().save_every_s


def kept_checkpoints(checkpoints: UPath, epochs: int, without: Collection[int] = ()) -> list[UPath]:
    """Folders of the checkpoints that the analysis looks at, newest first, `without` those of some steps."""
    kept_epochs = set(epochs_to_keep(epochs))
    folders = [checkpoints / str(step) for step in checkpoint_steps(checkpoints) if step not in without]
    return [folder for folder in folders if is_kept(folder, kept_epochs)]


def is_kept(folder: UPath, kept_epochs: Set[int]) -> bool:
    """Whether a checkpoint is valid and stands at the end of one of the epochs to keep."""
    try:
        progress = read_progress(folder)
    except TornCheckpointError:
        return False
    return progress.images == 0 and progress.epoch in kept_epochs


def epochs_to_keep(epochs: int) -> list[int]:
    """Log-spaced numbers of finished epochs whose weights are kept for the analysis: 0, 1, 2, 4, ..., the last."""
    powers = [2**k for k in range(math.ceil(math.log2(epochs)) + 1) if 2**k < epochs] if epochs > 1 else []
    return [0, *powers, epochs]
