"""One neuron's weights are read by their range of bytes, whatever else a checkpoint holds; what is wrong is said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from upath import UPath

from sweep.results.raw_weights import UnreadableWeightsError, read_neuron, strongest_inputs
from sweep.store.trial_dir import TrialDir
from tests.counting import CountedS3, counted_s3

LAYER = "features.3b.conv"
WEIGHTS = np.random.default_rng(0).normal(size=(7, 4, 3, 5)).astype(np.float32)


def written(folder: Path, tensors: dict[str, np.ndarray]) -> TrialDir:
    """A trial with one checkpoint, of step 8."""
    file = folder / "checkpoints" / "8" / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(tensors, file)
    return TrialDir(UPath(folder))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_neuron_is_read_from_among_others(tmp_path: Path, dtype: type) -> None:
    tensors = {"a.bias": np.ones(3, dtype=np.float32), f"{LAYER}.weight": WEIGHTS.astype(dtype)}
    trial = written(tmp_path, tensors | {"z.weight": np.zeros((2, 2), dtype=np.float32)})
    for neuron in (0, 3, 6):
        read = read_neuron(trial, 8, LAYER, neuron)
        assert read.dtype == np.float32
        assert np.array_equal(read, WEIGHTS[neuron].astype(dtype).astype(np.float32))


def test_a_header_of_any_length_is_read(tmp_path: Path) -> None:
    many = {f"some.module.with.a.long.name.{number}": np.zeros(1, dtype=np.float32) for number in range(2000)}
    trial = written(tmp_path, many | {f"{LAYER}.weight": WEIGHTS})
    assert (trial.checkpoints / "8" / "model.safetensors").stat().st_size > 130_000
    assert np.array_equal(read_neuron(trial, 8, LAYER, 6), WEIGHTS[6])


@pytest.fixture
def server(object_store: int) -> Iterator[CountedS3]:
    with counted_s3(object_store) as made:
        yield made


@pytest.mark.slow
def test_an_object_store_is_asked_twice(server: CountedS3, tmp_path: Path) -> None:
    local = written(tmp_path, {f"{LAYER}.weight": WEIGHTS})
    storage = UPath("s3://runs/sweep/trials/t")
    storage.fs.makedirs("runs", exist_ok=True)
    file = storage / "checkpoints" / "8" / "model.safetensors"
    storage.fs.pipe_file(file.path, (local.checkpoints / "8" / "model.safetensors").read_bytes())
    server.requests.clear()
    assert np.array_equal(read_neuron(TrialDir(storage), 8, LAYER, 5), WEIGHTS[5])
    assert server.counts() == {"GET": 2}
    with pytest.raises(UnreadableWeightsError, match="the weights of step 9 were removed"):
        read_neuron(TrialDir(storage), 9, LAYER, 5)


@pytest.mark.parametrize(
    ("step", "layer", "neuron", "said"),
    [
        (9, LAYER, 0, "the weights of step 9 were removed"),
        (8, "other", 0, "has no tensor other.weight"),
        (8, LAYER, 7, r"the shape \[7, 4, 3, 5\], so no neuron 7"),
        (8, LAYER, -1, "no neuron -1"),
        (8, "flat", 0, r"the shape \[9\]"),
        (8, "whole", 0, "holds I64 numbers"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, step: int, layer: str, neuron: int, said: str) -> None:
    others = {"flat.weight": np.zeros(9, dtype=np.float32), "whole.weight": np.zeros((2, 2, 2, 2), dtype=np.int64)}
    trial = written(tmp_path, {f"{LAYER}.weight": WEIGHTS} | others)
    with pytest.raises(UnreadableWeightsError, match=said):
        read_neuron(trial, step, layer, neuron)


def described(shape: list[Any], offsets: list[Any]) -> bytes:
    header = json.dumps({f"{LAYER}.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no header"),
        (b"version https://git-lfs.github.com", "no header"),
        ((99).to_bytes(8, "little") + b"no JSON", "is damaged"),
        ((2).to_bytes(8, "little") + b"[]", "has no tensor"),
        (described([2, 2, 2, 2], [0, 64]), "is truncated"),
        (described([2, 2, 2, -2], [0, 64]), "its header gives no shapes"),
        (described([2, 2, 2, 2], [0]), "is damaged"),
        (described([2, 2**14, 2**14, 1], [0, 2**31]), "has 1024 MiB of weights"),
    ],
)
def test_a_damaged_file_is_said_to_be(tmp_path: Path, content: bytes, said: str) -> None:
    trial = written(tmp_path, {})
    (trial.checkpoints / "8" / "model.safetensors").write_bytes(content)
    with pytest.raises(UnreadableWeightsError, match=said):
        read_neuron(trial, 8, LAYER, 0)


def test_the_strongest_inputs_come_first() -> None:
    weights = np.zeros((4, 2, 2), dtype=np.float32)
    weights[2, 0, 0], weights[1, 1, 1], weights[3] = -3, 1, 0.5
    strong = strongest_inputs(weights, 2)
    assert strong.channels.tolist() == [2, 1]
    assert strong.shares.tolist() == pytest.approx([9 / 11, 1 / 11])
    assert strong.kernels[0, 0, 0] == -3
    assert strong.inputs == 4


def test_a_neuron_without_weights_has_no_strong_inputs() -> None:
    assert strongest_inputs(np.zeros((3, 2, 2), dtype=np.float32), 8).shares.tolist() == [0, 0, 0]
