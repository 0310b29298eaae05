"""Removal leaves nothing that could be taken for whole, wherever it is interrupted; on disks and object stores."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from upath import UPath

from analysis.write import RESULTS
from sweep.spec import Plan
from sweep.store import removal
from sweep.store.files import files_below, sizes_below, write_text
from sweep.store.lease import BusyError, hold
from sweep.store.manifest import MANIFEST
from sweep.store.removal import (
    Loss,
    is_half_removed,
    loss,
    remove_sweep,
    remove_trial,
    require_not_half_removed,
)
from sweep.store.requests import request_retry
from sweep.store.sweep_dir import SweepDir, is_sweep, sweep_names
from sweep.store.trial_dir import Status
from tests.counting import counted_s3


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    if request.param == "disk":
        yield UPath(tmp_path / "runs [1]")
        return
    with counted_s3(request.getfixturevalue("object_store")):
        place = UPath(f"s3://removal/{tmp_path.name}/runs [1]")
        place.fs.makedirs("removal", exist_ok=True)
        yield place


@pytest.fixture
def full(storage: UPath, plan: Plan) -> SweepDir:
    """A sweep with a finished trial, as far as files go."""
    sweep = SweepDir(storage / "demo")
    sweep.add([plan])
    sweep.record_launch({"name": "demo"})
    trial = sweep.trial(plan.trial_id)
    trial.write_status(Status(status="finished", epoch=3))
    trial.write_epochs([{"epoch": 0, "step": 0}])
    for step in (0, 9):
        write_text(trial.checkpoints / str(step) / MANIFEST, "{}")
        write_text(trial.checkpoints / str(step) / "model.safetensors", "12345")
        write_text(trial.layers / str(step) / RESULTS, "[]")
        write_text(trial.layers / str(step) / "3b.npz", "12345")
    write_text(sweep.table("trials"), "1234")
    request_retry(sweep.path, plan.trial_id, "scratch")
    return sweep


def interrupt_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that removes files stop like Ctrl-C once it has been called so often."""
    left = [number]

    def cut(remove: Callable[..., None]) -> Callable[..., None]:
        def removing(*arguments: object) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            remove(*arguments)

        return removing

    for name in ("remove_file", "remove_files", "remove_folder"):
        monkeypatch.setattr(removal, name, cut(getattr(removal, name)))


def test_what_would_be_lost_is_counted(full: SweepDir) -> None:
    sizes = sizes_below(full.path)
    assert sizes.keys() == files_below(full.path)
    assert sizes["results/trials.parquet"] == 4
    assert loss(sizes, 1) == Loss(trials=1, checkpoints=2, size=sum(sizes.values()))


def test_a_sweep_is_removed_and_others_are_not(full: SweepDir, storage: UPath) -> None:
    for name in ("demo2", "dem"):
        SweepDir(storage / name).record_launch({})
    remove_sweep(full)
    assert sweep_names(storage) == ["dem", "demo2"]
    assert files_below(full.path) == set()
    assert not full.path.exists()
    require_not_half_removed(full.path)


@pytest.mark.parametrize("what", ["a sweep", "a file"])
def test_what_is_called_like_the_sign_of_a_removal_is_none(what: str, storage: UPath) -> None:
    if what == "a sweep":
        SweepDir(storage / "removing").record_launch({})
    else:
        write_text(storage / "removing", "boxes")
    assert not is_half_removed(storage)
    require_not_half_removed(storage)


@pytest.mark.parametrize("number", range(6))
def test_a_removal_that_was_interrupted_leaves_no_sweep_and_goes_on(
    number: int, full: SweepDir, storage: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(number, patched)
        with pytest.raises(KeyboardInterrupt):
            remove_sweep(full)
    assert is_half_removed(full.path)
    with pytest.raises(ValueError, match="finish that first: sweep remove"):
        require_not_half_removed(full.path)
    if number > 0:
        assert not is_sweep(full.path)
        assert sweep_names(storage) == []
    remove_sweep(full)
    assert files_below(full.path) == set()


def test_a_sweep_that_a_driver_works_on_is_not_removed(full: SweepDir) -> None:
    before = files_below(full.path)
    with hold(full.path), pytest.raises(BusyError, match="another driver is working"):
        remove_sweep(full)
    assert files_below(full.path) >= before


@pytest.mark.parametrize("number", range(5))
def test_a_trial_that_is_half_removed_is_not_taken_for_whole(
    number: int, full: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = full.trial(plan.trial_id)
    with monkeypatch.context() as patched:
        interrupt_after(number, patched)
        with pytest.raises(KeyboardInterrupt):
            remove_trial(full, trial)
    status = trial.status()
    left = files_below(trial.path)
    if number == 0:
        assert status.status == "finished"
    else:
        assert status == Status(), "it would begin anew"
    if number < 2:
        return
    assert not [name for name in left if name.endswith((RESULTS, MANIFEST))]
    assert "epochs.jsonl" not in left
    assert len(full.read([trial])) == (1 if number == 2 else 0)
    assert full.add([plan]) == (0 if number == 2 else 1)
    assert full.read([trial])[0][1] == Status()


def test_a_removed_trial_leaves_neither_request_nor_note(full: SweepDir, plan: Plan) -> None:
    write_text(full.notes / f"{plan.trial_id}.json", "{}")
    remove_trial(full, full.trial(plan.trial_id))
    assert full.trials() == []
    assert not any(name.startswith(("requests/", "notes/")) for name in files_below(full.path))


def test_links_are_removed_and_not_what_they_lead_to(tmp_path: Path, plan: Plan) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("12345")
    sweep = SweepDir(UPath(tmp_path / "demo"))
    sweep.record_launch({})
    (tmp_path / "demo" / "link").symlink_to(tmp_path / "kept")
    assert sum(sizes_below(sweep.path).values()) < 200
    remove_sweep(sweep)
    assert (tmp_path / "kept" / "file").read_text() == "12345"
    assert not (tmp_path / "demo").exists()
