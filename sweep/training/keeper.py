"""Write the checkpoints of a running trial, and clean up the old ones."""

import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from upath import UPath

from analysis.write import is_local, remove_unfinished
from sweep.store.checkpoint import write_checkpoint
from sweep.store.files import remove_files, remove_folder
from sweep.store.kept import SAVE_EVERY_S, epochs_to_keep, is_kept
from sweep.store.manifest import MANIFEST, TRAINING, Progress, disown_training_state, read_manifest

_FULL = 2  # checkpoints to resume from: if the newest is torn, the one before it is used


class Savable(Protocol):
    """What a checkpoint is made of."""

    epoch: int
    saved_s: float

    def progress(self) -> Progress: ...
    def model_state(self) -> dict[str, Tensor]: ...
    def training_state(self) -> dict[str, Tensor]: ...
    def metadata(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class _Known:
    """A checkpoint's files; what can only be read from them is None until then."""

    files: Set[str]
    digests: Mapping[str, str] | None = None
    kept: bool | None = None


class Keeper:
    """Writes the checkpoints of one trial and cleans up the old ones; where it doesn't write, it only takes part.

    `stored` are the files that are there at first (`checkpoint_files`); what it writes itself, it does not read again.
    """

    def __init__(
        self,
        checkpoints: UPath,
        epochs: int,
        stored: Mapping[int, Set[str]],
        save_every_s: float = SAVE_EVERY_S,
        writes: bool = True,
    ) -> None:
        self._writes = writes
        self._checkpoints = checkpoints
        self._epochs = epochs
        self._kept_epochs = set(epochs_to_keep(epochs))
        self._known = {step: _Known(files) for step, files in stored.items()}
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
        if self._writes:
            self._free(list(self._known))

    def save(self, run: Savable) -> None:
        """Save in the middle of an epoch."""
        self._save(run)

    def _save(self, run: Savable) -> UPath:
        progress = run.progress()
        folder = self._checkpoints / str(progress.step)
        if not self._writes:
            return folder
        began = time.monotonic()
        last = progress.epoch == self._epochs  # nothing will be resumed from it, and `finish` cleans up
        training = {} if last else run.training_state()
        digests = write_checkpoint(folder, progress, run.model_state(), training, run.metadata())
        kept = progress.images == 0 and progress.epoch in self._kept_epochs
        self._known[progress.step] = _Known({*digests, MANIFEST}, digests, kept)
        self._saved_at = time.monotonic()
        if not last:
            self._tidy(progress.step)
        run.saved_s += self._saved_at - began
        return folder

    def _tidy(self, newest: int) -> None:
        full = [step for step, known in self._known.items() if step < newest and {MANIFEST, TRAINING} <= known.files]
        self._free(sorted(full, reverse=True)[_FULL - 1 :])

    def _free(self, steps: Iterable[int]) -> None:
        """Free what neither the analysis nor a resume needs, in few requests.

        Manifests go first, so that no reader takes the rest for valid.
        """
        manifests, rest, folders = [], [], []
        for step in steps:
            folder, known = self._checkpoints / str(step), self._known[step]
            if self._is_kept(step):
                rest += self._without_training_state(step)
            else:
                manifests += [folder / MANIFEST] if MANIFEST in known.files else []
                rest += [folder / name for name in sorted(known.files - {MANIFEST})]
                folders.append(folder)
                del self._known[step]
        remove_files(manifests)
        remove_files(rest)
        for folder in folders:
            if is_local(folder):  # an object store has no folders
                remove_folder(folder)

    def _without_training_state(self, step: int) -> list[UPath]:
        """Take the training state out of a checkpoint's manifest; returns its file, which may then be removed."""
        folder, known = self._checkpoints / str(step), self._known[step]
        remove_unfinished(folder)
        if TRAINING not in known.files:
            return []
        digests = read_manifest(folder) if known.digests is None else known.digests
        left = disown_training_state(folder, digests)
        self._known[step] = _Known(known.files - {TRAINING}, left, kept=True)
        return [folder / TRAINING]

    def _is_kept(self, step: int) -> bool:
        known = self._known[step]
        if known.kept is None:
            return MANIFEST in known.files and is_kept(self._checkpoints / str(step), self._kept_epochs)
        return known.kept
