"""A file is what its bytes say; what isn't read is named with a cure; a folder is the model in it."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from analysis.readers.convs import final_convs, is_checkpoint, spatial_convs

STATE = {"a.weight": torch.randn(4, 3, 5, 5), "b.weight": torch.randn(6, 4, 3, 3)}
ENDINGS = ["safetensors", "pt", "pth", "bin", "ckpt", "onnx", "h5", "keras", "SAFETENSORS", "dat"]


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", "is a web page"),
        (b"\xef\xbb\xbf<html>", "is a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is XML"),
        (b'{"error": "Repository not found"}', "is JSON"),
        (b"Entry not found", "holds text"),
        (b"", "is empty"),
        (bytes(600), "zeros"),
        (b"GGUF\x03\0\0\0", "is a GGUF file"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (arrays(), r"a NumPy archive \(\.npz\)"),
        (zipped(a=b"b"), "a zip archive of 1 files"),
        (zipped(a=b"b")[:-30], "truncated"),
        (tarred(), "a tar archive"),
        (gzip.compress(b"a", mtime=0), "compressed with gzip"),
        (b"\x7fELF", "a program"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (zipped(**{"model.weights.h5": b""}), "a Keras model"),
    ],
)
def test_what_is_no_weights_is_named_under_every_name(
    tmp_path: Path, ending: str, content: bytes, complaint: str
) -> None:
    file = tmp_path / f"net.{ending}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as refused:
        spatial_convs(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["m.msgpack", "m.ckpt.index", "m.ckpt.data-00000-of-00001", "saved_model.pb"])
def test_kinds_without_a_mark_are_named_by_their_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x84\xa1\x00\xff")
    with pytest.raises(ValueError, match=r"TensorFlow|Flax"):
        spatial_convs(tmp_path / name)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors"])
def test_any_name_will_do(tmp_path: Path, ending: str, kind: str) -> None:
    file = tmp_path / f"net.{ending}"
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, file, {"final_convs": '["b"]'})
    else:
        torch.save(STATE, file, _use_new_zipfile_serialization=kind == "torch")
    assert [conv.layer for conv in spatial_convs(file)] == ["a", "b"]
    assert final_convs(file) == (["b"] if kind == "safetensors" else None)


@pytest.mark.parametrize("stated", ["5", '{"a": 1}', "[1]", "[" * 10_000, "nonsense"])
def test_a_harmed_list_of_final_convs_is_told(tmp_path: Path, stated: str) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "net.safetensors", {"final_convs": stated})
    with pytest.raises(ValueError, match="is damaged"):
        final_convs(tmp_path / "net.safetensors")


def sharded(folder: Path, ending: str) -> None:
    for i, (name, value) in enumerate(STATE.items()):
        shard = folder / f"model-0000{i}.{ending}"
        save = safetensors.torch.save_file if ending == "safetensors" else torch.save
        save({name: value}, shard)
    names = {name: f"model-0000{i}.{ending}" for i, name in enumerate(STATE)}
    index = "model.safetensors.index.json" if ending == "safetensors" else "pytorch_model.bin.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=2))


@pytest.mark.parametrize(
    "filled",
    [
        lambda folder: safetensors.torch.save_file(STATE, folder / "model.safetensors"),
        lambda folder: torch.save(STATE, folder / "pytorch_model.bin"),
        lambda folder: torch.save(STATE, folder / "mine.pt"),
        lambda folder: sharded(folder, "safetensors"),
        lambda folder: sharded(folder, "bin"),
    ],
)
def test_a_folder_is_the_model_in_it(tmp_path: Path, filled) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.x").touch()
    filled(tmp_path)
    assert is_checkpoint(str(tmp_path))
    assert [conv.layer for conv in spatial_convs(tmp_path)] == ["a", "b"]
    (tmp_path / "sweep.yaml").touch()
    assert not is_checkpoint(str(tmp_path))  # a sweep's folder


def test_a_folder_by_a_bare_name_may_be_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    torch.save(STATE, tmp_path / "demo" / "mine.pt")
    assert not is_checkpoint("demo")
    assert is_checkpoint("./demo")
    safetensors.torch.save_file(STATE, tmp_path / "demo" / "model.safetensors")
    assert is_checkpoint("demo")


def test_folders_of_other_kinds_say_what_they_are(tmp_path: Path) -> None:
    for name, complaint in (("saved_model.pb", "SavedModel"), ("checkpoint", "TensorFlow checkpoint")):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=complaint):
            spatial_convs(tmp_path)
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="holds no checkpoint"):
        spatial_convs(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save(STATE, tmp_path / name)
    with pytest.raises(ValueError, match=r"several checkpoints, give one: a\.pt, b\.pt"):
        spatial_convs(tmp_path)


def test_a_pointer_among_the_shards_is_named(tmp_path: Path) -> None:
    sharded(tmp_path, "safetensors")
    (tmp_path / "model-00001.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"model-00001\.safetensors is a Git LFS pointer"):
        spatial_convs(tmp_path)


def test_an_index_that_names_an_index_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for shard in (index.name, "other.json", ".", "..", "", "/etc/passwd"):
        index.write_text(json.dumps({"weight_map": {"a": shard}}))
        shutil.copy(index, tmp_path / "other.json")
        with pytest.raises(ValueError, match=str(tmp_path)):
            spatial_convs(index)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [-4, -1, 1, 1], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [true, 4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 16]}}',
        b'{"a": {"dtype": "F32", "shape": ' + b"1" * 5000 + b"}}",
        b'{"a": {"dtype": [], "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [' + b"9" * 4000 + b'], "data_offsets": [0, 16]}}',
        b'{"a": ' + b"[" * 100_000,
        b'{"__metadata__": 5}',
        b'{"__metadata__": {"format": 1}}',
        b"{" + b" " * 40_000_000,
        b"[]",
        b"5",
        b"\xff\xfe",
    ],
)
def test_headers_that_lie_end_in_one_line(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(ValueError, match="is damaged") as refused:
        spatial_convs(file)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
