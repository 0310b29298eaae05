"""Write the checkpoints of a running trial, and clean up the old ones."""

import time
from typing import Protocol

from torch import Tensor
from upath import UPath

from sweep.store.checkpoint import write_checkpoint
from sweep.store.files import remove_folder, remove_unfinished
from sweep.store.kept import SAVE_EVERY_S, epochs_to_keep, is_kept
from sweep.store.manifest import (
    MANIFEST,
    Progress,
    checkpoint_steps,
    drop_training_state,
    has_training_state,
    remove_checkpoint,
)

_FULL = 2  # checkpoints to resume from: if the newest is torn, the one before it is used


class Savable(Protocol):
    """What a checkpoint is made of."""

    epoch: int
    saved_s: float

    def progress(self) -> Progress: ...
    def model_state(self) -> dict[str, Tensor]: ...
    def training_state(self) -> dict[str, Tensor]: ...
    def metadata(self) -> dict[str, str]: ...


class Keeper:
    """Writes the checkpoints of one trial and cleans up the old ones; where it doesn't write, it only takes part."""

    def __init__(
        self, checkpoints: UPath, epochs: int, save_every_s: float = SAVE_EVERY_S, writes: bool = True
    ) -> None:
        self._writes = writes
        self._checkpoints = checkpoints
        self._kept_epochs = set(epochs_to_keep(epochs))
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether the last checkpoint is older than the interval."""
        return self._writes and time.monotonic() - self._saved_at >= self._save_every_s

    def save_epoch(self, run: Savable) -> UPath | None:
        """Save at an epoch's end; returns the checkpoint's folder if its weights are kept for the analysis."""
        folder = self._save(run)
        return folder if run.epoch in self._kept_epochs else None

    def finish(self) -> None:
        """Keep only what the analysis reads, once a trial is finished."""
        for folder in self._checkpoints.iterdir() if self._writes else ():
            if (folder / MANIFEST).exists():
                remove_unfinished(folder)
                self._give_back(folder)
            else:
                remove_folder(folder)

    def save(self, run: Savable) -> None:
        """Save in the middle of an epoch."""
        self._save(run)

    def _save(self, run: Savable) -> UPath:
        progress = run.progress()
        folder = self._checkpoints / str(progress.step)
        if not self._writes:
            return folder
        began = time.monotonic()
        write_checkpoint(folder, progress, run.model_state(), run.training_state(), run.metadata())
        self._saved_at = time.monotonic()
        self._tidy(progress.step)
        run.saved_s += self._saved_at - began
        return folder

    def _tidy(self, newest: int) -> None:
        older = [step for step in checkpoint_steps(self._checkpoints) if step < newest]
        full = [step for step in older if has_training_state(self._checkpoints / str(step))]
        for step in full[_FULL - 1 :]:
            self._give_back(self._checkpoints / str(step))

    def _give_back(self, folder: UPath) -> None:
        """Free what neither the analysis nor a resume needs."""
        if is_kept(folder, self._kept_epochs):
            drop_training_state(folder)
        else:
            remove_checkpoint(folder)
