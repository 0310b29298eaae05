"""A checkpoint without its tensors: what its manifest promises, where training stands, what may be removed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from upath import UPath

from analysis.write import read_bytes
from sweep.store.files import files_below, remove_file, remove_folder, write_json

EpochRow = dict[str, float | int | None]
MEASURED = frozenset({"wall_s", "images_per_s", "wait_s", "compute_s", "save_s", "gpu_mib"})
"""What a row says of the machine; the rest of it is the same in each attempt at a trial."""

FORMAT = 2


MODEL, TRAINING, PROGRESS, MANIFEST = "model.safetensors", "training.safetensors", "progress.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training stands after `step` steps; the sums are those of the unfinished epoch.

    `rows` are those of the finished epochs; `micro_batches` the parts into which each step's images are split;
    `waited_s` and `saved_s` the time spent on waiting for data and on saving.
    """

    step: int
    epoch: int
    images: int
    loss_sum: float
    correct: int
    wall_s: float
    rows: list[EpochRow]
    micro_batches: int = 1
    waited_s: float = 0.0
    saved_s: float = 0.0


class TornCheckpointError(ValueError):
    """A checkpoint is incomplete or its bytes are not those that were written."""


def checkpoint_files(checkpoints: UPath) -> dict[int, set[str]]:
    """Names of the files of each checkpoint by step, newest first, with those that have no manifest."""
    return by_step(files_below(checkpoints))


def by_step(names: Iterable[str]) -> dict[int, set[str]]:
    """Names such as `<step>/<file>`, those of each step together, the newest step first."""
    found: dict[int, set[str]] = {}
    for name in names:
        folder, _, file = name.partition("/")
        if folder.isdecimal() and file:
            found.setdefault(int(folder), set()).add(file)
    return dict(sorted(found.items(), reverse=True))


def checkpoint_steps(checkpoints: UPath) -> list[int]:
    """Steps of the checkpoints that have a manifest, newest first; their bytes are not checked."""
    return [step for step, files in checkpoint_files(checkpoints).items() if MANIFEST in files]


def has_training_state(folder: UPath) -> bool:
    """Whether training can resume from a checkpoint; its bytes are not checked."""
    return (folder / TRAINING).exists()


def read_progress(folder: UPath) -> Progress:
    """Where training stood at a checkpoint; reads and verifies only this file.

    Raises:
        TornCheckpointError: it is missing or differs from its sha256.
    """
    return Progress(**json.loads(verified(folder / PROGRESS, read_manifest(folder).get(PROGRESS, ""))))


def drop_training_state(folder: UPath) -> None:
    """Keep a checkpoint's weights for the analysis and free the space of its training state.

    The manifest is rewritten first, so that an interruption leaves an unused file, not a torn checkpoint.
    """
    disown_training_state(folder, read_manifest(folder))
    remove_file(folder / TRAINING)


def disown_training_state(folder: UPath, digests: Mapping[str, str]) -> dict[str, str]:
    """Write a manifest with all `digests` but the training state's, whose file may then be removed; returns those."""
    left = {name: digest for name, digest in digests.items() if name != TRAINING}
    write_manifest(folder, left)
    return left


def remove_checkpoint(folder: UPath) -> None:
    """Remove a checkpoint, its manifest first, so that no reader takes the rest for valid."""
    remove_file(folder / MANIFEST)
    remove_folder(folder)


def write_manifest(folder: UPath, digests: dict[str, str]) -> None:
    content = {"format": FORMAT, "sha256": digests}
    write_json(folder / MANIFEST, content | {"check": _check(content)})


def read_manifest(folder: UPath) -> dict[str, str]:
    try:
        manifest: dict[str, Any] = json.loads(read_bytes(folder / MANIFEST))
        content = {"format": manifest["format"], "sha256": manifest["sha256"]}
        whole = manifest["check"] == _check(content)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TornCheckpointError(f"{folder} has no readable manifest: {error}") from error
    if not whole:
        raise TornCheckpointError(f"{folder / MANIFEST} is corrupt: its own sha256 differs")
    if content["format"] != FORMAT:
        raise ValueError(
            f"{folder} has checkpoint format {content['format']}, but this version reads {FORMAT}; update the project"
        )
    return dict(content["sha256"])


def _check(content: dict[str, Any]) -> str:
    """What tells a manifest of another version from a damaged one."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def verified(path: UPath, digest: str) -> bytes:
    try:
        data = read_bytes(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise TornCheckpointError(f"{path} is missing") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise TornCheckpointError(f"{path} is corrupt: its sha256 differs from the manifest's")
    return data
