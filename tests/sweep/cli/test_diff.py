"""`sweep diff`: what differs between two sweeps or two trials, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.differences import ABSENT, Change, changes
from sweep.results.tables import read_table, write_table
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from tests.command import document, run
from tests.dashboard.synthetic import trial_id, write_sweep
from tests.sweep.conftest import TINY


def test_documents_differ_in_their_dotted_keys() -> None:
    before = {"a": {"b": 1, "c": [1, 2], "gone": {"deep": None}}, "phases": [{"size": 2}], "same": 0, "empty": {}}
    after = {"a": {"b": 2, "c": [2, 1]}, "phases": [{"size": 2}, {"size": 4}], "same": 0, "empty": {"x": 1}}
    assert changes(before, after) == (
        Change("a.b", 1, 2),
        Change("a.c", [1, 2], [2, 1]),
        Change("a.gone.deep", None, ABSENT),
        Change("empty", {}, ABSENT),
        Change("phases.1.size", ABSENT, 4),
        Change("empty.x", ABSENT, 1),
    )
    assert changes(before, before) == ()


@pytest.fixture
def two(tmp_path: Path) -> tuple[SweepDir, SweepDir]:
    """Two equal sweeps of each state."""
    for name in ("one", "two"):
        write_sweep(tmp_path / name)
    one, two = (SweepDir(UPath(tmp_path / name)) for name in ("one", "two"))
    for sweep in (one, two):
        sweep.record_launch({"name": "mine", "recipe": {"epochs": 2}, "interventions": ["baseline", "rotate90"]})
    return one, two


def test_equal_sweeps_do_not_differ(two: tuple[SweepDir, SweepDir], tmp_path: Path) -> None:
    found = document("diff", "one", "two", "--storage", str(tmp_path))
    assert (found["grid"], found["only_before"], found["only_after"], found["cells"]) == ([], [], [], [])
    assert (found["shared_trials"], found["shared_cells"]) == (7, 6)
    said = run("diff", "one", "two", "--storage", str(tmp_path)).splitlines()
    assert said == ["grid launched last: no difference", "in both: 7 trials", "6 cells in both: no difference"]


def test_sweeps_differ_in_grid_trials_and_cells(two: tuple[SweepDir, SweepDir], tmp_path: Path) -> None:
    after = two[1]
    after.record_launch({"name": "mine", "recipe": {"epochs": 4}, "interventions": ["baseline", "blur"]})
    trials, layers = read_table(after.path, "trials"), read_table(after.path, "layers")
    rotated = layers["trial_id"] == trial_id("rotate90", 0)
    layers.loc[rotated, ["vertical", "verdict"]] = [0.4, "none"]
    baseline = layers["trial_id"] == trial_id("baseline", 0)
    layers.loc[baseline, "horizontal"] += 0.0001  # too little to be seen
    write_table(after.path, "layers", layers)
    trials.loc[trials["intervention"] == "untrained", ["trial_id", "recipe_key"]] = ["another", "longer"]
    write_table(after.path, "trials", trials)
    found = document("diff", "one", "two", "--storage", str(tmp_path))
    assert found["grid"] == [
        {"key": "recipe.epochs", "before": 2, "after": 4},
        {"key": "interventions", "before": ["baseline", "rotate90"], "after": ["baseline", "blur"]},
    ]
    assert (found["only_before"], found["only_after"]) == ([trial_id("untrained", 0)], ["another"])
    (cell,) = found["cells"]
    assert cell["intervention"] == "rotate90"
    assert (cell["before"]["outcome"], cell["after"]["outcome"]) == ("vertical", "none")
    assert (cell["before"]["score"], cell["after"]["score"]) == pytest.approx((0.9, 0.4))
    said = run("diff", "one", "two", "--storage", str(tmp_path))
    assert "  recipe.epochs  2 -> 4\n" in said
    assert "  interventions  -rotate90 +blur\n" in said
    assert "only in one: 1 trial\n" in said
    assert "6 cells in both: 1 cell differs\n" in said
    assert "  simplified_mini rotate90  vertical 0.90 -> none 0.40 (vertical)\n" in said


def test_cells_of_two_recipes_are_told_apart_by_them(two: tuple[SweepDir, SweepDir], tmp_path: Path) -> None:
    for sweep, score in zip(two, (0.9, 0.1), strict=True):
        trials, layers = read_table(sweep.path, "trials"), read_table(sweep.path, "layers")
        longer = trials[trials["trial_id"] == trial_id("baseline", 0)].assign(trial_id="longer", recipe_key="longer")
        more = layers[layers["trial_id"] == trial_id("baseline", 0)].assign(trial_id="longer", horizontal=score)
        write_table(sweep.path, "trials", pd.concat([trials, longer], ignore_index=True))
        write_table(sweep.path, "layers", pd.concat([layers, more], ignore_index=True))
    found = document("diff", "one", "two", "--storage", str(tmp_path))
    assert found["shared_cells"] == 7
    assert [(cell["before"]["score"], cell["after"]["score"]) for cell in found["cells"]] == [(0.9, 0.1)]


@pytest.fixture
def trials(tmp_path: Path) -> list[Plan]:
    """Two trials of a sweep: another intervention, and another length."""
    sweep = SweepDir(UPath(tmp_path / "demo"))
    plans = [
        *expand(load_grid("demo", [*TINY, "interventions=[baseline, rotate90]"])).plans,
        *expand(load_grid("demo", [*TINY, "recipe.batch_size=[{from_epoch: 0, size: 8}]"])).plans,
    ]
    sweep.add([replace(plan, root=None) for plan in plans])
    sweep.record_launch({})
    return plans


def test_trials_differ_in_their_specs_alone(trials: list[Plan], tmp_path: Path) -> None:
    baseline, rotated, small = (f"demo/{plan.trial_id}" for plan in trials)
    found = document("diff", baseline, rotated, "--storage", str(tmp_path))
    assert found["spec"] == [{"key": "intervention", "before": "baseline", "after": "rotate90"}]
    said = run("diff", baseline, small, "--storage", str(tmp_path))
    assert said.splitlines()[1:] == ["  recipe.batch_size.0.size  16 -> 8"]
    assert "the specs are equal" in run("diff", baseline, baseline, "--storage", str(tmp_path))


def test_a_trial_is_named_by_as_much_as_is_unique(trials: list[Plan], tmp_path: Path) -> None:
    stored = ["--storage", str(tmp_path)]
    rotated = f"{tmp_path}/demo/trials/{trials[1].trial_id}"
    assert document("diff", "demo/simplified_mini-rot", rotated, *stored)["spec"] == []
    assert "is not unique in demo" in run("diff", "demo/simplified_mini-b", rotated, *stored, code=2)
    assert "the nearest is" in run("diff", "demo/nothing", rotated, *stored, code=2)
    assert "name two of a kind" in run("diff", "demo", rotated, *stored, code=2)
    assert "there is no sweep 'demos'" in run("diff", "demo", "demos", *stored, code=2)
