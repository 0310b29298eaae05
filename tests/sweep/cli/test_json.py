"""`--json`: one document on standard output, whatever else there is to say; for each command that prints."""

from pathlib import Path

import pytest
from upath import UPath

from sweep.grid import catalogue
from sweep.results.cells import STATES
from sweep.store.sweep_dir import SweepDir
from tests.command import document
from tests.dashboard.synthetic import TRIALS, write_sweep
from tests.sweep.conftest import TINY


@pytest.fixture
def stored(tmp_path: Path) -> list[str]:
    write_sweep(tmp_path / "demo")
    return ["--storage", str(tmp_path)]


def test_status(stored: list[str]) -> None:
    found = document("status", "demo", *stored)
    assert sum(found["counts"].values()) == len(found["trials"]) == len(TRIALS)
    assert set(found["counts"]) == set(STATES)


@pytest.mark.parametrize("what", ["architectures", "recipes"])
def test_list_of_what_a_grid_can_name(what: str) -> None:
    header, rows = catalogue.rows(what)
    found = document("list", what)
    assert [list(entry.values()) for entry in found] == rows
    assert all(list(entry) == header for entry in found)


def test_list_of_no_sweeps(tmp_path: Path) -> None:
    assert document("list", "sweeps", "--storage", str(tmp_path / "nowhere")) == []


def test_prepare(tmp_path: Path) -> None:
    size = ["--set", "image_size=16", "--set", "options={train_images: 48, val_images: 16}"]
    found = document("prepare", "scenes", *size, "--to", str(tmp_path))
    assert (found["train_images"], found["val_images"], found["image_size"]) == (48, 16, 16)
    assert Path(found["folder"]).is_dir()


def test_report(stored: list[str], tmp_path: Path) -> None:
    page, tables = tmp_path / "report.html", tmp_path / "tables"
    found = document("report", "demo", *stored, "-o", str(page), "--export", str(tables))
    assert found["report"] == str(page)
    assert found["files"] == sum(file.is_file() for file in tables.rglob("*"))


@pytest.mark.parametrize(("command", "table"), [("probe", "probes"), ("ablate", "ablations"), ("examples", "examples")])
def test_what_is_measured_of_a_sweep_without_checkpoints(
    command: str, table: str, sweep: SweepDir, plan: object
) -> None:
    sweep.add([plan])  # type: ignore[list-item]
    sweep.record_launch({})
    found = document(command, str(sweep.path))
    assert [trial["outcome"] for trial in found["trials"]] == ["no checkpoint"]
    assert found[table] == []


def test_a_launch_and_what_follows_it(ray_address: str, tmp_path: Path) -> None:
    settings = [word for setting in [*TINY, "recipe.epochs=1"] for word in ("--set", setting)]
    where = ["--storage", str(tmp_path), "--address", ray_address]
    planned = document("launch", "demo", *settings, *where, "--dry-run")
    assert [trial["excluded"] for trial in planned["trials"]] == [None]
    assert planned["estimate"]["planned"] == {"in_grid": 1, "new": 1, "finished": 0}
    assert planned["estimate"]["cost"]["images_left"] == 48
    for command in (["launch", "demo", *settings], ["resume", "demo"], ["analyze", "demo"]):
        found = document(*command, *where)
        assert [trial["status"] for trial in found["trials"]] == ["finished"]
        assert found["trials"][0]["trial_id"] == planned["trials"][0]["trial_id"]
    checkpoint = next(Path(str(UPath(tmp_path))).rglob("model.safetensors"))
    assert {layer["layer"] for layer in document("analyze", str(checkpoint))} >= {"features.3b.conv"}
    planned = document("launch", "demo", *settings, *where, "--dry-run")
    assert planned["estimate"]["planned"] == {"in_grid": 1, "new": 0, "finished": 1}
