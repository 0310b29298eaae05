"""A checkpoint in, scores and arrays out; what goes wrong is told in the rows."""

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from upath import UPath

from analysis.layers import analyze_checkpoint, analyze_convs, analyze_file, chosen_convs
from analysis.profile import KernelShape


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
    assert (good["dead"], good["zeros"], good["single_tap"]) == (0, 0, 0)
    assert good["middle_row"] == pytest.approx(1, abs=0.2)
    assert 0 <= good["asymmetry_left_right"] < 0.2
    assert np.sum(json.loads(good["row_profile"]), axis=0) == pytest.approx([1, 1, 1], abs=1e-3)
    assert failed.keys() == good.keys()
    with np.load(tmp_path / "out" / "a.conv.npz") as arrays:
        assert arrays["reduced"].shape == (8, 5, 5, 3)
        assert sorted(arrays["order"]) == list(range(8))
        assert arrays["horizontal"].shape == arrays["vertical"].shape == (8,)


def test_an_unreadable_file_is_a_row_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    rows = analyze_checkpoint(tmp_path / "model.safetensors", tmp_path / "out")
    assert len(rows) == 1
    assert "damaged" in rows[0]["error"]


def test_a_damaged_file_of_an_object_store_is_named_as_it_was_given() -> None:
    file = UPath("memory://damaged/model.safetensors")
    file.write_bytes(b"no tensors")
    (row,) = analyze_checkpoint(file, file.parent / "out")
    assert f"{file} is damaged" in row["error"]


def test_an_analysed_checkpoint_is_not_analysed_again(checkpoint: Path, tmp_path: Path) -> None:
    rows = analyze_checkpoint(checkpoint, tmp_path / "out")
    checkpoint.unlink()
    assert analyze_checkpoint(checkpoint, tmp_path / "out") == rows


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", '[{"layer": "a.conv"}]', "\xff"])
def test_damaged_results_are_made_again(checkpoint: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "layers.json").write_text(content, encoding="latin-1")
    rows = analyze_checkpoint(checkpoint, tmp_path / "out")
    assert [row["layer"] for row in rows] == ["b.conv", "a.conv"]
    assert rows == json.loads((tmp_path / "out" / "layers.json").read_text())


def test_what_a_killed_analysis_has_left_is_removed(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a.conv.npz.0123abcd.part").write_bytes(b"half")
    analyze_checkpoint(checkpoint, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.conv.npz", "layers.json"]


def test_a_wrong_layer_name_lists_the_right_ones(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"no layer 'a.con'; did you mean 'a.conv'\? Layers: a.conv, b.conv"):
        analyze_file(checkpoint, ["a.con"])


def test_one_layer_of_a_file(checkpoint: Path) -> None:
    (result,) = analyze_file(checkpoint, ["a.conv"])
    assert result.shape == (8, 6, 5, 5)
    assert result.verdict == "none"


def test_all_layers_on_request_follow_the_final_ones_last_first(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    kernels = {"1.conv": (5, 5), "2.conv": (1, 1), "3.conv": (3, 3), "10.conv": (3, 3)}
    state = {f"{name}.weight": torch.randn(8, 6, *kernel, generator=generator) for name, kernel in kernels.items()}
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, file, {"final_convs": json.dumps(["3.conv"])})
    final = analyze_checkpoint(file, tmp_path / "final")
    rows = analyze_checkpoint(file, tmp_path / "all", "all")
    assert [(row["layer"], row["position"]) for row in rows] == [("3.conv", 1), ("10.conv", 2), ("1.conv", 3)]
    assert rows[0] | {"analysis_wall_s": 0} == final[0] | {"analysis_wall_s": 0}
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "1.conv.npz", "10.conv.npz", "3.conv.npz", "layers.json",
    ]  # fmt: skip


def test_a_file_of_others_has_all_its_layers_analysed(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a.weight": torch.randn(4, 4, 3, 3)}, tmp_path / "model.safetensors")
    assert [row["layer"] for row in analyze_checkpoint(tmp_path / "model.safetensors", tmp_path / "out")] == ["a"]


def test_results_are_the_same_bits_whatever_the_number_of_threads(tmp_path: Path) -> None:
    """The layer is so large that PyTorch and NumPy would share its sums among threads."""
    weights = torch.randn(256, 256, 5, 5, generator=torch.Generator().manual_seed(0))
    checkpoint = tmp_path / "large.safetensors"
    safetensors.torch.save_file({"a.conv.weight": weights}, checkpoint)
    rows = []
    before = torch.get_num_threads()
    for threads in (1, 4):
        torch.set_num_threads(threads)
        out = tmp_path / str(threads)
        rows.append([row | {"analysis_wall_s": 0} for row in analyze_checkpoint(checkpoint, out)])
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert rows[0] == rows[1]
    assert (tmp_path / "1" / "a.conv.npz").read_bytes() == (tmp_path / "4" / "a.conv.npz").read_bytes()


def test_a_layer_with_broken_weights_does_not_stop_the_others_of_its_file(checkpoint: Path) -> None:
    good, broken = analyze_file(checkpoint)
    assert good.skipped is None
    assert (broken.layer, broken.scores) == ("b.conv", None)
    assert "1 of 1200 weights are NaN" in str(broken.skipped)


def test_the_joint_form_can_be_asked_for(checkpoint: Path) -> None:
    convs = chosen_convs(checkpoint, ["a.conv"])
    (own,), (joint,) = list(analyze_convs(convs)), list(analyze_convs(convs, "joint"))
    assert own.reduction is not None
    assert joint.reduction is not None
    assert joint.reduction.residual > own.reduction.residual


def test_a_storage_that_is_away_is_no_result(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OSError(errno.EBUSY, "Please reduce your request rate")

    with monkeypatch.context() as patched:
        patched.setattr("analysis.layers.write_bytes", away)
        with pytest.raises(OSError, match="reduce"):
            analyze_checkpoint(checkpoint, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("analysis.layers.final_convs", away)
        with pytest.raises(OSError, match="reduce"):
            analyze_checkpoint(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out" / "layers.json").exists()


def test_numbers_that_are_not_finite_are_a_row_with_an_error(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = KernelShape(middle_row=math.nan, middle_column=1.0, asymmetry_top_bottom=math.inf, asymmetry_left_right=0.0)
    monkeypatch.setattr("analysis.layers.kernel_shape", lambda _: shape)
    _, row = analyze_checkpoint(checkpoint, tmp_path / "out")
    assert row["error"] == "ValueError: not finite: middle_row, asymmetry_top_bottom"
    assert row["horizontal"] is None


def test_a_tensor_without_numbers_does_not_stop_the_others_of_its_file(tmp_path: Path) -> None:
    state = {"a.weight": torch.empty(4, 4, 3, 3, device="meta"), "b.weight": torch.randn(4, 4, 3, 3)}
    torch.save(state, tmp_path / "model.pt")
    empty, good = analyze_file(tmp_path / "model.pt")
    assert good.scores is not None
    assert "meta" in str(empty.skipped)
