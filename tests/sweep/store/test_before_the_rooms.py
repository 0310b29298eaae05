"""A small sweep that was written before the code had rooms (d415cc5) is read as it was."""

import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from upath import UPath

from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.schema import Grid
from sweep.results.compact import survey
from sweep.results.tables import read_reduced
from sweep.store.checkpoint import newest_resumable
from sweep.store.sweep_dir import SweepDir
from sweep.training.train import train

IDS = [
    "simplified_mini-baseline-s0-b32848fed797",
    "simplified_mini-rotate90-s0-a4d6abe7e3a0",
    "simplified_mini-untrained-s0-866741effa7a",
]
BASELINE, _, UNTRAINED = IDS


@pytest.fixture
def before(tmp_path: Path) -> SweepDir:
    """One trial stopped at step 7, one never begun, one finished and analysed; large tensors are constant there."""
    with tarfile.open(Path(__file__).with_name("before_the_rooms.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return SweepDir(UPath(tmp_path / "before"))


def test_the_grid_that_was_launched_means_the_same_trials(before: SweepDir) -> None:
    grid = Grid.model_validate(before.launches()[-1]["grid"])
    assert [plan.trial_id for plan in expand(grid).plans] == IDS
    assert [plan.trial_id for plan, _ in before.read(before.trials())] == IDS


def test_tables_status_and_results_are_read(before: SweepDir) -> None:
    trials = survey(before).tables["trials"].set_index("trial_id")
    assert trials["status"].to_dict() == dict(zip(IDS, ("pending", "pending", "finished"), strict=True))
    reduced = read_reduced(before.path, UNTRAINED, 0, "features.3b.conv")
    assert reduced is not None
    assert reduced.reduced.shape == (48, 5, 5, 3)


def test_the_tables_can_be_built_again_from_the_files(before: SweepDir) -> None:
    told = survey(before).tables
    shutil.rmtree(before.path / "results")
    again = survey(before).tables
    for name in ("trials", "layers"):
        assert again[name].equals(told[name])


def test_its_checkpoint_is_valid_and_training_goes_on_from_it(before: SweepDir) -> None:
    trial = before.trial(BASELINE)
    newest = next(newest_resumable(trial.checkpoints))
    assert (newest.progress.step, newest.progress.epoch, len(newest.progress.rows)) == (7, 2, 3)
    torch.set_num_threads(1)
    plan = trial.plan()
    rows = train(plan.spec, prepare(plan.spec.data, None), trial.path)
    assert rows[:3] == newest.progress.rows
    assert rows[-1]["step"] == 9
