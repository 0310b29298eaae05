"""An atlas through Ray actors: interrupted, continued, extended; and what the command says of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sweep.results.atlas import read_atlas
from sweep.service import atlas as service
from sweep.store.atlas_dir import open_atlas
from tests.command import document, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nets"
    folder.mkdir()
    for name in ("a", "b"):
        torch.save({"c.weight": torch.randn(8, 4, 3, 3)}, folder / f"{name}.pt")
    shutil.copy(folder / "a.pt", folder / "copy.pt")
    (folder / "broken.pt").write_text("torn")
    return folder


def test_an_interrupted_atlas_keeps_what_is_complete_and_the_same_command_does_the_rest(
    drive: Callable[..., str], ray_address: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = str(tmp_path / "runs")
    atlas = open_atlas("atlas", storage)

    def stop(self: object, done: object) -> None:
        monkeypatch.undo()
        take(self, done)
        raise KeyboardInterrupt

    take = service._Run._take
    monkeypatch.setattr(service._Run, "_take", stop)
    with pytest.raises(KeyboardInterrupt):
        service.make_atlas(atlas, [str(folder)], None, 1, ray_address, Console(quiet=True))
    assert len(read_atlas(atlas)["source"].unique()) == 1
    other = tmp_path / "other.pt"
    torch.save({"c.weight": torch.randn(8, 4, 5, 5)}, other)
    said = drive("atlas", str(other), "--actors", "1", "--storage", storage, "--report", f"{tmp_path}/r.html")
    assert "1 network without scores" in said
    rows = read_atlas(atlas)
    assert rows["name"].unique().tolist() == ["a.pt", "b.pt", "broken.pt", "copy.pt", "other.pt"]
    assert rows["verdict"].dropna().tolist() == ["none"] * 4
    assert rows.set_index("name")["same_as"].dropna().index.tolist() == ["a.pt", "copy.pt"]
    assert len(list((tmp_path / "runs" / "atlas" / "networks").iterdir())) == 3
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png") == 3
    assert "is damaged" in page
    planned = document("atlas", "--dry-run", "--storage", storage)
    assert planned["to_do"] == [str(folder / "broken.pt")]


def test_damaged_results_are_made_again_and_what_means_nothing_any_more_is_a_row_beside_the_others(
    drive: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    options = ("--actors", "1", "--storage", str(tmp_path / "runs"))
    atlas = open_atlas("atlas", str(tmp_path / "runs"))
    emptied = tmp_path / "emptied"
    emptied.mkdir()
    shutil.move(folder / "broken.pt", emptied / "b.pt")
    drive("atlas", str(folder), str(emptied), *options)
    before = read_atlas(atlas)
    (emptied / "b.pt").unlink()
    (damaged,) = (file for file in atlas.path.glob("networks/*/layers.json") if before["digest"][0] in str(file))
    damaged.write_text("[{")
    said = document("atlas", "--dry-run", "--storage", options[-1])
    assert said["to_do"] == [str(folder / "a.pt"), str(folder / "copy.pt")]
    assert [lost["source"] for lost in said["lost"]] == [str(emptied)]
    assert "means nothing any more" in run("atlas", "--dry-run", "--storage", options[-1])
    assert f"1 network without scores ({emptied})" in drive("atlas", *options)
    rows = read_atlas(atlas)
    assert rows["source"].tolist() == [*before["source"][:3], str(emptied)]
    assert rows[:3].drop(columns="source").equals(before[:3].drop(columns="source"))
    assert "no checkpoint" in rows["error"][3]
    assert "no checkpoint" in drive("atlas", str(emptied), *options, code=2)


def test_mistakes_are_told_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    storage = str(tmp_path / "runs")
    assert "libraries: timm, torchvision" in run("atlas", "tim", "--storage", storage, code=2)
    assert "is empty" in run("atlas", "--storage", storage, code=2)
