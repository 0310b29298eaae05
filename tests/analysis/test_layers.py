"""A checkpoint in, scores and arrays out; what goes wrong is told in the rows."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from analysis.layers import analyze_checkpoint, analyze_file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(8, 6, 5, 5, generator=generator) for name in ("a.conv.weight", "b.conv.weight")}
    state["b.conv.weight"][3, 0, 0, 0] = torch.nan
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, file, {"final_convs": json.dumps(["b.conv", "a.conv"])})
    return file


def test_rows_and_arrays_of_each_final_conv(checkpoint: Path, tmp_path: Path) -> None:
    rows = analyze_checkpoint(checkpoint, tmp_path / "out")
    assert rows == json.loads((tmp_path / "out" / "layers.json").read_text())
    failed, good = rows
    assert (failed["layer"], failed["position"], failed["verdict"]) == ("b.conv", 1, None)
    assert "1 of 1200 weights are NaN" in failed["error"]
    assert (good["layer"], good["position"], good["verdict"], good["error"]) == ("a.conv", 2, "none", None)
    assert good["horizontal_low"] <= good["horizontal"] <= good["horizontal_high"]
    with np.load(tmp_path / "out" / "a.conv.npz") as arrays:
        assert arrays["reduced"].shape == (8, 5, 5, 3)
        assert sorted(arrays["order"]) == list(range(8))
        assert arrays["horizontal"].shape == arrays["vertical"].shape == (8,)


def test_an_unreadable_file_is_a_row_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    rows = analyze_checkpoint(tmp_path / "model.safetensors", tmp_path / "out")
    assert len(rows) == 1
    assert "damaged" in rows[0]["error"]


def test_a_wrong_layer_name_lists_the_right_ones(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"no layer 'a.con'; did you mean 'a.conv'\? Layers: a.conv, b.conv"):
        analyze_file(checkpoint, ["a.con"])


def test_one_layer_of_a_file(checkpoint: Path) -> None:
    (result,) = analyze_file(checkpoint, ["a.conv"])
    assert result.shape == (8, 6, 5, 5)
    assert result.verdict == "none"
