"""The tensors of any checkpoint, opened without running code in it or reading more than is asked for.

A file's bytes decide what it is. A folder is accepted where a library keeps a model in one.
"""

from upath import UPath

from analysis.readers import kinds
from analysis.readers.entry import AnyPath, Entries, Weights, in_natural_order, one_line
from analysis.readers.names import plainly_named
from analysis.readers.safetensors_file import safetensors_weights, shards_of
from analysis.readers.torch_file import torch_weights

_READERS = {
    kinds.SAFETENSORS: safetensors_weights,
    kinds.TORCH: torch_weights,
}
_IN_FOLDERS = (
    "model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin", "weights.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.bin",
    "model.onnx",
)  # fmt: skip
"""Hugging Face's names and others', the preferred one first."""
_NOT_READ = {
    "saved_model.pb": "a TensorFlow SavedModel; export it to ONNX (tf2onnx)",
    "tf_model.h5": "a Keras model; export it to ONNX (tf2onnx), or save it as safetensors",
    "flax_model.msgpack": "a Flax model; save it as safetensors (safetensors.flax)",
    "checkpoint": "a TensorFlow checkpoint; export it to ONNX (tf2onnx)",
    ".metadata": "a distributed PyTorch checkpoint; convert it to one file with "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch",
    "_METADATA": "an Orbax (JAX) checkpoint; save it as safetensors (safetensors.flax)",
}


def weights_of(file: UPath) -> Weights:
    """All tensors of a checkpoint under their plain names.

    Raises:
        ValueError: the file is missing, unsupported or damaged.
    """
    kind = kinds.kind_of_file(file)
    if kind is not kinds.INDEX:
        return _plain(_of_one_file(file, kind))
    parts = []
    for shard in shards_of(file):
        if not shard.exists():
            raise ValueError(f"there is no file {shard}, which {file.name} names; download it too")
        parts.append(_of_one_file(shard, kinds.kind_of_file(shard)))
    entries: Entries = {}
    for part in parts:
        entries |= part.entries
    metadata = parts[0].metadata if parts else {}
    return _plain(Weights(entries=in_natural_order(entries), metadata=metadata))


def file_within(path: AnyPath) -> UPath:
    """The file that a path means: itself, or the one that holds the model in a folder.

    Raises:
        ValueError: there is none, or more than one.
    """
    place = UPath(path)
    if not place.exists():
        raise ValueError(f"there is no file {place}")
    if not place.is_dir():
        return place
    found = model_in(place)
    if found is not None:
        return found
    names = {file.name for file in place.iterdir()}
    for name, what in _NOT_READ.items():
        if name in names:
            raise ValueError(f"{place} is {what}")
    several = sorted(name for name in names if name.lower().endswith(kinds.ENDINGS))
    if several:
        raise ValueError(f"{place} holds several checkpoints, give one: {one_line(', '.join(several))}")
    raise ValueError(f"{place} holds no checkpoint that can be read, such as {', '.join(_IN_FOLDERS[:2])}")


def model_in(folder: UPath) -> UPath | None:
    """The file of a folder's model: one with a usual name, or the only one that can be read; else None."""
    names = {file.name.lower(): file for file in folder.iterdir()}
    usual = next((names[name] for name in _IN_FOLDERS if name in names), None)
    if usual is not None:
        return usual
    likely = [file for name, file in names.items() if name.endswith(kinds.ENDINGS) and file.is_file()]
    return likely[0] if len(likely) == 1 else None


def holds_usual_model(folder: UPath) -> bool:
    """Whether a folder has a file with one of the usual model names."""
    return any(file.name.lower() in _IN_FOLDERS for file in folder.iterdir())


def looks_like_a_model(folder: UPath) -> bool:
    """Whether a folder has any file that `file_within` would take or can name."""
    return any(file.name.lower().endswith(kinds.ENDINGS) or file.name in _NOT_READ for file in folder.iterdir())


def _of_one_file(file: UPath, kind: kinds.Kind) -> Weights:
    kinds.require_readable(file, kind)
    reader = _READERS.get(kind)
    if reader is None:
        raise ValueError(f"{file} is not a shard of weights")
    return reader(file)


def _plain(weights: Weights) -> Weights:
    return Weights(entries=plainly_named(weights.entries), metadata=weights.metadata)
