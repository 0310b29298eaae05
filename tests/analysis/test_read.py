"""Reading weights from files of others, safely."""

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from analysis.read import final_convs, spatial_convs

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
    ],
)
def test_state_dicts_are_found_in_their_usual_wrappers(tmp_path: Path, wrap) -> None:
    torch.save(wrap(STATE), tmp_path / "model.pt")
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


def test_the_convs_that_a_checkpoint_names_are_read_from_its_metadata(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(STATE, file, {"final_convs": json.dumps(["features.0"])})
    assert final_convs(file) == ["features.0"]
    safetensors.torch.save_file(STATE, file)
    assert final_convs(file) is None


class Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "model.pt").open("wb") as file:
        pickle.dump({"state_dict": Malicious()}, file, protocol=2)
    with pytest.raises(ValueError, match=r"run code|damaged"):
        spatial_convs(tmp_path / "model.pt")
    torch.save({"state_dict": Malicious()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="run code"):
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
    ("name", "complaint"), [("gone.pt", "no file"), ("model.h5", "endings"), ("flat.pt", "none of")]
)
def test_files_without_convolutions_say_so(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "model.h5").touch()
    torch.save({"classifier.weight": torch.zeros(2, 2)}, tmp_path / "flat.pt")
    with pytest.raises(ValueError, match=complaint):
        spatial_convs(tmp_path / name)
