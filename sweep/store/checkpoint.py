"""Checkpoints: safetensors and JSON, valid only if their manifest exists and matches.

```
checkpoints/<step>/model.safetensors      parameters and buffers; metadata names the convs to analyse
                   training.safetensors   optimizer state (absent from checkpoints kept only for the analysis)
                   progress.json          where training stands, with the rows of the epochs done
                   manifest.json          sha256 of each file and of the manifest itself, written last
```
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass

import safetensors.torch
from torch import Tensor
from upath import UPath

from analysis.write import write_bytes
from sweep.store.log import logger
from sweep.store.manifest import (
    MANIFEST,
    MODEL,
    PROGRESS,
    TRAINING,
    Progress,
    TornCheckpointError,
    checkpoint_files,
    read_manifest,
    verified,
    write_manifest,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A valid checkpoint's content; `training` is empty where only the weights were kept."""

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    progress: Progress


def write_checkpoint(
    folder: UPath,
    progress: Progress,
    model: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> dict[str, str]:
    """Write all files, the manifest last, and return its digests; a checkpoint of the same step is replaced."""
    files = {
        MODEL: safetensors.torch.save(_plain(model), dict(metadata)),
        PROGRESS: json.dumps(asdict(progress), allow_nan=False).encode(),
    }
    if training:
        files[TRAINING] = safetensors.torch.save(_plain(training))
    for name, data in files.items():
        write_bytes(folder / name, data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    write_manifest(folder, digests)
    return digests


def read_checkpoint(folder: UPath) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        TornCheckpointError: a file is missing or differs from its sha256.
        ValueError: it was written by a newer version of this project.
    """
    manifest = read_manifest(folder)
    files = {name: verified(folder / name, digest) for name, digest in manifest.items()}
    return Checkpoint(
        model=safetensors.torch.load(files[MODEL]),
        training=safetensors.torch.load(files[TRAINING]) if TRAINING in files else {},
        progress=Progress(**json.loads(files[PROGRESS])),
    )


def newest_resumable(checkpoints: UPath, stored: Mapping[int, Set[str]] | None = None) -> Iterator[Checkpoint]:
    """Valid checkpoints with training state, newest first; torn ones are skipped.

    `stored` are the files that are there, if they have been listed (`checkpoint_files`).
    """
    files = checkpoint_files(checkpoints) if stored is None else stored
    for step in sorted(files, reverse=True):
        if not {MANIFEST, TRAINING} <= files[step]:
            continue
        try:
            yield read_checkpoint(checkpoints / str(step))
        except TornCheckpointError as error:
            logger.info(f"skips a corrupt checkpoint: {error}")


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: on the CPU, contiguous, sharing no memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
