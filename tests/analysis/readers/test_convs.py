"""Reading weights from files of others, safely."""

import argparse
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from upath import UPath

from analysis.readers.convs import final_convs, spatial_convs

STATE = {
    "features.0.weight": torch.randn(4, 3, 5, 5),
    "features.0.bias": torch.randn(4),
    "features.1.weight": torch.randn(8, 4, 1, 1),
    "features.2.weight": torch.randn(8, 1, 3, 3),
    "features.3.weight": torch.randn(8, 8, 1, 7),
    "classifier.weight": torch.randn(10, 8),
}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"_orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict_ema": state, "state_dict": {name: value * 0 for name, value in state.items()}},
        lambda state: {
            "ema": {"decay": 0.9, "module": state},
            "model": {name: -value for name, value in state.items()},
        },
        lambda state: {
            "ema": {"decay": 0.9},
            "model": state,
            "optimizer": {"state": {0: {"m": torch.zeros(1, 1, 1, 1)}}},
        },
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},  # Lightning
        lambda state: {f"module.{name.replace('s.', 's._orig_mod.')}": value for name, value in state.items()},
        lambda state: {"features": {name[9:]: value for name, value in state.items() if name[0] == "f"}},
        lambda state: state | {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_found_in_their_usual_wrappers(tmp_path: Path, wrap, zipped: bool) -> None:
    torch.save(wrap(STATE), tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    convs = spatial_convs(tmp_path / "model.pt")
    assert [conv.layer for conv in convs] == [f"features.{i}" for i in range(4)]
    assert torch.equal(convs[0].read(), STATE["features.0.weight"])


def test_layers_that_have_no_bands_are_named_with_their_reason(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    reasons = {conv.layer: conv.skipped for conv in spatial_convs(tmp_path / "model.safetensors")}
    assert reasons["features.0"] is None
    assert "1x1" in str(reasons["features.1"])
    assert "depthwise" in str(reasons["features.2"])
    assert "1x7" in str(reasons["features.3"])


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("pos_embed", torch.zeros(1, 8, 7, 7), "not named"),
        ("conv.kernel", torch.zeros(3, 3, 4, 8), "not named"),
        ("wave.weight", torch.zeros(8, 4, 3), "one-dimensional"),
        ("clip.weight", torch.zeros(8, 4, 3, 3, 3), "three-dimensional"),
        ("bits.weight", torch.zeros(8, 4, 3, 3, dtype=torch.int8), "int8"),
        ("none.weight", torch.zeros(0, 4, 3, 3), "empty"),
        ("grey.weight", torch.zeros(8, 1, 3, 3), "two features"),
        ("decoder.deconv1.weight", torch.zeros(8, 4, 3, 3), "named like a transposed"),
    ],
)
def test_what_is_no_spatial_conv_is_shown_with_the_reason(tmp_path: Path, name: str, tensor, reason: str) -> None:
    torch.save({name: tensor}, tmp_path / "model.pt")
    (conv,) = spatial_convs(tmp_path / "model.pt")
    assert reason in str(conv.skipped)
    assert conv.shape == tuple(tensor.shape)


def test_a_transposed_conv_shows_by_its_bias(tmp_path: Path) -> None:
    torch.save({"up.weight": torch.zeros(8, 4, 2, 2), "up.bias": torch.zeros(4)}, tmp_path / "model.pt")
    (conv,) = spatial_convs(tmp_path / "model.pt")
    assert "its bias of 4" in str(conv.skipped)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_floats_of_all_kinds_are_read(tmp_path: Path, name: str, kind: torch.dtype) -> None:
    state = {"c.weight": STATE["features.0.weight"].to(kind)}
    torch.save(state, tmp_path / "model.pt")
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    (conv,) = spatial_convs(tmp_path / name)
    assert conv.skipped is None
    assert torch.equal(conv.read().float(), state["c.weight"].float())


def test_a_model_in_shards_is_read_through_its_index(tmp_path: Path) -> None:
    names = list(STATE)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, held in shards.items():
        safetensors.torch.save_file({name: STATE[name] for name in held}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: shard for shard, held in shards.items() for name in held}}))
    convs = spatial_convs(index)
    assert [conv.layer for conv in convs] == [f"features.{i}" for i in range(4)]
    assert all(torch.equal(conv.read(), STATE[f"{conv.layer}.weight"]) for conv in convs)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no file .*b\.safetensors"):
        spatial_convs(index)
    index.write_text(json.dumps({"weight_map": {"c.weight": "../a.safetensors"}}))
    with pytest.raises(ValueError, match="not a file beside it"):
        spatial_convs(index)


def test_only_the_layer_that_is_asked_for_is_read(tmp_path: Path, monkeypatch) -> None:
    state = {"big.weight": torch.zeros(256, 256, 3, 3), "small.weight": torch.ones(4, 4, 3, 3)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    taken: list[int] = []
    real = torch.frombuffer
    monkeypatch.setattr(torch, "frombuffer", lambda data, **kind: (taken.append(len(data)), real(data, **kind))[1])
    small = next(conv for conv in spatial_convs(tmp_path / "model.safetensors") if conv.layer == "small")
    assert torch.equal(small.read(), state["small.weight"])
    assert taken == [4 * 4 * 3 * 3 * 4]


def test_a_checkpoint_on_an_object_store_is_read_by_ranges() -> None:
    file = UPath("memory://read/model.safetensors")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(safetensors.torch.save(STATE, {"final_convs": json.dumps(["features.0"])}))
    assert final_convs(file) == ["features.0"]
    convs = spatial_convs(file)
    assert all(torch.equal(conv.read(), STATE[f"{conv.layer}.weight"]) for conv in convs)


def test_the_convs_that_a_checkpoint_names_are_read_from_its_metadata(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(STATE, file, {"final_convs": json.dumps(["features.0"])})
    assert final_convs(file) == ["features.0"]
    safetensors.torch.save_file(STATE, file)
    assert final_convs(file) is None


class Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_a_file_that_would_run_code_runs_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "model.pt").open("wb") as file:
        pickle.dump({"state_dict": Malicious()}, file, protocol=2)
    with pytest.raises(ValueError, match="none of its 0 tensors"):
        spatial_convs(tmp_path / "model.pt")
    torch.save({"state_dict": Malicious()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="none of its 0 tensors"):
        spatial_convs(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [0, 4, 100, 1000])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_cut_short_is_called_damaged(tmp_path: Path, name: str, size: int) -> None:
    torch.save(STATE, tmp_path / "model.pt")
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=name):
        spatial_convs(file)


@pytest.mark.parametrize(
    ("name", "complaint"), [("gone.pt", "no file"), ("model.x", "endings"), ("flat.pt", "none of")]
)
def test_files_without_convolutions_say_so(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "model.x").write_bytes(b"\x01\x02\x03\x04")
    torch.save({"classifier.weight": torch.zeros(2, 2)}, tmp_path / "flat.pt")
    with pytest.raises(ValueError, match=complaint):
        spatial_convs(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry | {"shape": [4, 3, 5, 6]},
        lambda entry: entry | {"data_offsets": [10**9, 10**9 + 1200]},
        lambda entry: entry | {"data_offsets": [-1200, 0]},
        lambda _: {"dtype": "F32"},
        lambda _: [],
    ],
)
def test_a_safetensors_header_that_does_not_fit_its_data_is_called_damaged(tmp_path: Path, change) -> None:
    entry = {"dtype": "F32", "shape": [4, 3, 5, 5], "data_offsets": [0, 1200]}
    header = json.dumps({"c.weight": change(entry)}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1200))
    with pytest.raises(ValueError, match="damaged"):
        spatial_convs(file)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page"),
        (b"", "is empty"),
    ],
)
def test_what_only_stands_for_the_weights_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        spatial_convs(tmp_path / "model.pt")


def test_averages_that_are_not_there_do_not_hide_the_model(tmp_path: Path) -> None:
    torch.save({"ema": {"decay": torch.tensor(0.9)}, "model": {"a.weight": torch.randn(4, 4, 3, 3)}}, tmp_path / "m.pt")
    assert [conv.layer for conv in spatial_convs(tmp_path / "m.pt")] == ["a"]


@pytest.mark.parametrize("ending", ["pt", "safetensors", "onnx"])
def test_damaged_bytes_are_read_or_refused_in_words(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"model.{ending}"
    weights = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    if ending == "onnx":
        pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
        from tests.analysis.readers.test_onnx_file import node, saved

        saved(file, [node("Conv", "a.weight")], {"a.weight": weights.numpy()})
    elif ending == "pt":
        torch.save({"a.weight": weights}, file)
    else:
        safetensors.torch.save_file({"a.weight": weights}, file)
    whole = file.read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        harmed = bytearray(whole)
        for place in draw.integers(0, len(whole), 1 + int(draw.integers(8))):
            harmed[place] = draw.integers(256)
        file.write_bytes(harmed)
        try:
            for conv in spatial_convs(file):
                if conv.skipped is None:
                    conv.read()
        except ValueError:
            refused += 1
    assert refused > 0
