"""A layer's arrays are a file of its folder, whatever the layer is called."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from upath import UPath

from analysis.layers import analyze_checkpoint
from analysis.write import arrays_file, arrays_names

EVIL = [
    "/Conv", "../../Conv", "..", ".", "", "a/b", "/etc/passwd", "~root", "a\\b", "nul\0byte", "line\nend", "x" * 5000,
    "ünïcode", "e\u0301", "\u00e9", "\ud800", "C:\\x", "-rf", ".hidden", "a b", "conv%2f", "s3://b/k", "memory://x",
]  # fmt: skip


@pytest.mark.parametrize("name", ["features.0.conv", "conv#2", "Mixed_7c.branch3x3", "layer4.2.conv3", "weight", "0"])
def test_plain_names_keep_their_file(name: str) -> None:
    assert arrays_names([name]) == {name: f"{name}.npz"}
    assert arrays_file(UPath("out"), name) == UPath("out") / f"{name}.npz"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30) | st.sampled_from(EVIL), max_size=8))
@example(EVIL)
def test_all_names_are_files_of_one_folder_told_apart_in_any_case(layers: list[str]) -> None:
    names = arrays_names(layers)
    assert names.keys() == set(layers)
    assert len({name.lower() for name in names.values()}) == len(names)
    for name in names.values():
        assert name == Path(name).name
        assert name.isascii()
        assert not name.startswith(".")
        assert len(name) < 240


def test_names_that_differ_in_case_are_found_again(tmp_path: Path) -> None:
    folder = UPath(tmp_path)
    names = arrays_names(["conv", "Conv", "CONV", "Other"])
    for layer, name in names.items():
        (folder / name).write_text(layer)
    assert [arrays_file(folder, layer).read_text() for layer in names] == list(names)
    assert (names["conv"], names["Other"]) == ("conv.npz", "Other.npz")


def test_analysis_writes_into_its_folder_alone(tmp_path: Path) -> None:
    weights = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    evil = [name for name in EVIL if name and name != "\ud800"]
    away = str(tmp_path / "away" / "Conv")
    torch.save({f"{name}.weight": weights for name in [*evil, away, "good", "Good"]}, tmp_path / "net.pt")
    rows = analyze_checkpoint(tmp_path / "net.pt", tmp_path / "out")
    assert [row["error"] for row in rows] == [None] * (len(evil) + 3)
    assert {path.parent for path in tmp_path.rglob("*.npz")} == {tmp_path / "out"}
    assert len(list((tmp_path / "out").glob("*.npz"))) == len(rows)
    assert not (tmp_path / "away").exists()
    assert all(arrays_file(UPath(tmp_path / "out"), row["layer"]).exists() for row in rows)
    assert json.loads((tmp_path / "out" / "layers.json").read_text()) == rows
