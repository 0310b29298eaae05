"""`sweep remove` says what would be lost, asks, and leaves the rest of the sweep and its tables as they should be."""

import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import typer
from upath import UPath

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.compact import compact_all
from sweep.results.tables import read_table
from sweep.store import removal
from sweep.store.files import files_below, write_text
from sweep.store.lease import hold
from sweep.store.manifest import MANIFEST
from sweep.store.sweep_dir import SweepDir, sweep_names
from sweep.store.trial_dir import Status
from tests.command import document, run
from tests.counting import counted_s3
from tests.sweep.conftest import TINY


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "disk":
        yield str(tmp_path)
        return
    with counted_s3(request.getfixturevalue("object_store")):
        UPath("s3://remove").fs.makedirs("remove", exist_ok=True)
        yield f"s3://remove/{tmp_path.name}"


@pytest.fixture
def sweep(storage: str) -> SweepDir:
    """A sweep of three trials, each with a checkpoint of a MiB, in its tables."""
    sweep = SweepDir(UPath(storage) / "demo")
    plans = expand(load_grid("demo", [*TINY, "seeds=[0,1,2]"])).plans
    sweep.add(plans)
    sweep.record_launch(load_grid("demo", [*TINY, "seeds=[0,1,2]"]).model_dump(mode="json"))
    for plan in plans:
        trial = sweep.trial(plan.trial_id)
        trial.write_status(Status(status="failed", epoch=1))
        write_text(trial.checkpoints / "9" / "model.safetensors", "x" * 2**20)
        write_text(trial.checkpoints / "9" / MANIFEST, "{}")
    compact_all(sweep)
    return sweep


def test_without_a_terminal_it_refuses_and_says_what_would_be_lost(
    sweep: SweepDir, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())
    before = files_below(sweep.path)
    said = run("remove", "demo", "--storage", storage, code=2)
    assert f"{sweep.path} with 3 trials, 3 checkpoints, 3." in said
    assert "MiB would be lost for good; to remove without being asked, add --yes" in said
    said = run("remove", "demo", "--trial", "*-s1-*", "--storage", storage, code=2)
    assert f"1 trial, 1 checkpoint, 1.0 MiB of {sweep.path} would be lost for good" in said
    assert files_below(sweep.path) == before


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(answer: bool, sweep: SweepDir, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def confirm(question: str, err: bool) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", confirm)
    said = run("remove", "demo", "--storage", storage, code=0 if answer else 1)
    assert "3 trials, 3 checkpoints" in asked[0]
    assert ("nothing is removed" in said) is not answer
    assert sweep_names(UPath(storage)) == ([] if answer else ["demo"])


def test_trials_are_removed_from_the_tables_too(sweep: SweepDir, storage: str) -> None:
    gone, *left = (trial.trial_id for trial in sweep.trials())
    assert "nearest is" in run("remove", "demo", "--trial", "baseline", "--yes", "--storage", storage, code=2)
    found = document("remove", "demo", "--trial", gone, "--yes", "--storage", storage)
    assert (found["trial_ids"], found["trials"], found["checkpoints"]) == ([gone], 1, 1)
    assert [trial.trial_id for trial in sweep.trials()] == left
    assert sorted(read_table(sweep.path, "trials")["trial_id"]) == sorted(left)
    assert gone not in run("status", "demo", "--storage", storage, "--json")
    planned = document("launch", "demo", *_settings(), "--storage", storage, "--dry-run")["estimate"]["planned"]
    assert planned == {"in_grid": 3, "new": 1, "finished": 0}


def _settings() -> list[str]:
    return [word for setting in [*TINY, "seeds=[0,1,2]"] for word in ("--set", setting)]


def test_a_sweep_that_is_worked_on_is_kept(sweep: SweepDir, storage: str) -> None:
    with hold(sweep.path):
        for more in ([], ["--trial", "*"]):
            assert "another driver is working" in run("remove", "demo", *more, "--yes", "--storage", storage, code=2)
    assert len(sweep.trials()) == 3


def test_an_interrupted_removal_goes_on_and_until_then_nothing_is_launched(
    sweep: SweepDir, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(removal, "remove_folder", refuse)
        assert "the disk is gone" in run("remove", "demo", "--yes", "--storage", storage, code=1)
    assert "there is no sweep 'demo'" in run("status", "demo", "--storage", storage, code=2)
    run("remove", "demo", "--yes", "--storage", storage)
    assert files_below(sweep.path) == set()
    assert "there is no sweep" in run("remove", "demo", "--yes", "--storage", storage, code=2)


def test_a_damaged_sweep_can_be_removed(sweep: SweepDir, storage: str) -> None:
    write_text(sweep.file, "launches: [")
    write_text(sweep.trials()[0].spec_file, "{")
    write_text(sweep.table("trials"), "PAR1")
    assert document("remove", "demo", "--yes", "--storage", storage)["trials"] == 3
    assert sweep.trials() == []
