"""A checkpoint counts only when it is whole; whatever is done to its bytes, the one before it is used."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from sweep.store.checkpoint import newest_resumable, read_checkpoint, write_checkpoint
from sweep.store.files import write_json
from sweep.store.manifest import Progress, TornCheckpointError, checkpoint_steps, drop_training_state

FILES = ("model.safetensors", "training.safetensors", "progress.json", "manifest.json")


def write(folder: UPath, step: int) -> UPath:
    progress = Progress(step=step, epoch=1, images=16, loss_sum=0.1 + 0.2, correct=3, wall_s=1.5, rows=[])
    tensors = {"conv.weight": torch.full((2, 2), float(step)), "bn.count": torch.tensor(step)}
    write_checkpoint(folder / str(step), progress, tensors, {"conv.weight": torch.ones(2, 2)}, {"final_convs": "[]"})
    return folder / str(step)


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(UPath(tmp_path), 7))
    assert checkpoint.progress.loss_sum == 0.1 + 0.2
    assert checkpoint.model["bn.count"].item() == 7
    assert torch.equal(checkpoint.training["conv.weight"], torch.ones(2, 2))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), where=st.floats(0, 1), harm=st.sampled_from(["cut", "flip", "remove"]))
def test_any_harm_to_the_newest_leaves_the_one_before_it(
    tmp_path_factory: pytest.TempPathFactory, name: str, where: float, harm: str
) -> None:
    folder = UPath(tmp_path_factory.mktemp("checkpoints"))
    write(folder, 3)
    file = write(folder, 9) / name
    data = bytearray(file.read_bytes())
    position = min(int(where * len(data)), len(data) - 2)  # the manifest ends in a newline that carries nothing
    if harm == "cut":
        file.write_bytes(data[:position])
    elif harm == "flip":
        data[position] ^= 0x10
        file.write_bytes(data)
    else:
        file.unlink()
    assert next(newest_resumable(folder)).progress.step == 3


def test_any_manifest_is_a_valid_one_or_none(tmp_path: Path) -> None:
    folder = UPath(tmp_path)
    write(folder, 3)
    manifest = write(folder, 9) / "manifest.json"

    @settings(max_examples=300)
    @given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), st.just(b"[" * 100_000)))
    def is_passed_over(content: bytes) -> None:
        manifest.write_bytes(content)
        assert next(newest_resumable(folder)).progress.step == 3

    is_passed_over()


def test_kept_weights_stay_readable_without_their_training_state(tmp_path: Path) -> None:
    folder = write(UPath(tmp_path), 3)
    drop_training_state(folder)
    assert not (folder / "training.safetensors").exists()
    assert read_checkpoint(folder).training == {}
    assert list(newest_resumable(UPath(tmp_path))) == []


def test_folders_without_a_manifest_do_not_count(tmp_path: Path) -> None:
    write(UPath(tmp_path), 3)
    (write(UPath(tmp_path), 9) / "manifest.json").unlink()
    (tmp_path / "notes").mkdir()
    assert checkpoint_steps(UPath(tmp_path)) == [3]


def test_another_version_is_refused_in_words(tmp_path: Path) -> None:
    folder = write(UPath(tmp_path), 3)
    content = {"format": 99, "sha256": {}}
    check = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    write_json(folder / "manifest.json", content | {"check": check})
    with pytest.raises(ValueError, match="format 99, but this version reads 2; update"):
        read_checkpoint(folder)


def test_a_torn_checkpoint_says_which_file(tmp_path: Path) -> None:
    folder = write(UPath(tmp_path), 3)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(TornCheckpointError, match=r"model\.safetensors is corrupt"):
        read_checkpoint(folder)


def test_checkpoints_work_on_an_object_store() -> None:
    folder = UPath("memory://checkpoints-test/trial")
    write(folder, 3)
    write(folder, 9)
    assert checkpoint_steps(folder) == [9, 3]
    assert next(newest_resumable(folder)).progress.step == 9
