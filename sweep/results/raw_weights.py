"""One neuron's weights, read from a checkpoint by their range of bytes alone. Needs no torch.

Axis letters: `c` input channels, `y x` kernel rows and columns.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from upath import UPath

from analysis.write import is_local
from sweep.store.manifest import MODEL
from sweep.store.trial_dir import TrialDir

_FIRST = 64 * 2**10  # bytes: the first request brings the whole header of most networks
_HEADER_LIMIT = 16 * 2**20
_NEURON_LIMIT = 16 * 2**20
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


class UnreadableWeightsError(ValueError):
    """A neuron's weights can't be read; the message says why."""


@dataclass(frozen=True)
class StrongInputs:
    """The inputs of a neuron with the largest norms: their channels, kernels and shares of all squared weights."""

    channels: Int[np.ndarray, " m"]
    kernels: Float[np.ndarray, "m y x"]
    shares: Float[np.ndarray, " m"]
    inputs: int


def strongest_inputs(weights: Float[np.ndarray, "c y x"], most: int) -> StrongInputs:
    """The at most `most` inputs that a neuron listens to most, the strongest first."""
    squares = np.square(weights.astype(np.float64)).sum(axis=(1, 2))
    channels = np.argsort(-squares, kind="stable")[:most]
    total = squares.sum() or 1.0
    return StrongInputs(channels, weights[channels], squares[channels] / total, len(weights))


def read_neuron(trial: TrialDir, step: int, layer: str, neuron: int) -> Float[np.ndarray, "c y x"]:
    """The weights of one neuron of a checkpoint's conv, in two requests to the storage.

    Raises:
        UnreadableWeightsError: the checkpoint was removed, is damaged, or holds no such neuron.
    """
    file = trial.checkpoints / str(step) / MODEL
    try:
        return _read(file, f"{layer}.weight", neuron)
    except FileNotFoundError as error:
        raise UnreadableWeightsError(f"the weights of step {step} were removed") from error
    except UnreadableWeightsError:
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:  # a header with other contents
        raise UnreadableWeightsError(f"{file} is damaged: {error}") from error


def _read(file: UPath, name: str, neuron: int) -> Float[np.ndarray, "c y x"]:
    tensors, data_start = _header(file)
    if name not in tensors:
        raise UnreadableWeightsError(f"{file} has no tensor {name}")
    dtype, shape, first = _described(tensors[name], file)
    if len(shape) != 4 or not 0 <= neuron < shape[0]:
        raise UnreadableWeightsError(f"{name} of {file} has the shape {list(shape)}, so no neuron {neuron}")
    size = math.prod(shape[1:]) * dtype.itemsize
    if size > _NEURON_LIMIT:
        raise UnreadableWeightsError(
            f"a neuron of {name} has {size / 2**20:.0f} MiB of weights; at most {_NEURON_LIMIT // 2**20} MiB are shown"
        )
    start = data_start + first + neuron * size
    data = _range(file, start, start + size)
    if len(data) != size:
        raise UnreadableWeightsError(f"{file} is truncated")
    return np.frombuffer(data, dtype=dtype).reshape(shape[1:]).astype(np.float32)


def _header(file: UPath) -> tuple[dict[str, Any], int]:
    """The tensors that a safetensors file describes, and where its data begins."""
    begin = _range(file, 0, _FIRST)
    length = int.from_bytes(begin[:8], "little")
    if not 2 <= length <= _HEADER_LIMIT:
        raise UnreadableWeightsError(f"{file} is damaged: it has no header of a safetensors file")
    if 8 + length > len(begin):
        begin += _range(file, len(begin), 8 + length)
    return dict(json.loads(begin[8 : 8 + length])), 8 + length


def _described(entry: Any, file: UPath) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Type, shape and first byte of a tensor."""
    if entry["dtype"] not in _DTYPES:
        raise UnreadableWeightsError(f"{file} holds {entry['dtype']} numbers, which are not shown")
    shape, (first, last) = entry["shape"], entry["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, first, last)):
        raise UnreadableWeightsError(f"{file} is damaged: its header gives no shapes")
    return np.dtype(_DTYPES[entry["dtype"]]), tuple(shape), first


def _range(file: UPath, start: int, end: int) -> bytes:
    if not is_local(file):
        return bytes(file.fs.cat_file(file.path, start=start, end=end))
    with Path(file.path).open("rb") as stream:
        stream.seek(start)
        return stream.read(end - start)
