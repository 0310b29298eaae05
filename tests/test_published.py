"""What documents say of published sweeps: differences between cells, with intervals."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

from benchmarks.publish import THEN, launched

SCORES = {"baseline": [0.90, 0.86, 0.91], "no_pooling": [0.40, 0.48, 0.35]}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/published.py, whose results are those of two cells, one of them with two ways of flipping."""
    spec = importlib.util.spec_from_file_location("published", Path(__file__).parents[1] / "docs" / "published.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "published", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    trials = [
        {
            "architecture": "a",
            "data": "scenes",
            "recipe_key": "r",
            "intervention": name,
            "seed": seed,
            "layers": [{"horizontal": score, "vertical": -score / 10}],
        }
        for name, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]
    (tmp_path / "two.json").write_text(json.dumps({"trials": trials}))
    unflipped = [
        trial | {"flip": "none", "layers": [{"horizontal": 0.5 + trial["seed"] / 10, "vertical": trial["seed"] / 10}]}
        for trial in trials[:3]
    ]
    (tmp_path / "three.json").write_text(json.dumps({"trials": trials + unflipped}))
    return module


def test_the_interval_is_that_of_welchs_t(published: ModuleType) -> None:
    interval = stats.ttest_ind(SCORES["baseline"], SCORES["no_pooling"], equal_var=False).confidence_interval()
    middle, half = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
    said = published.differences("two\nbaseline - no_pooling")
    assert said.splitlines()[-1].startswith(f"| `baseline` minus `no_pooling` | {middle:.2f} ± {half:.2f} |")


def test_ways_of_flipping_are_cells_of_their_own(published: ModuleType) -> None:
    said = published.differences("three\nbaseline/left_right - baseline/none\nno_pooling - baseline")
    assert "| `baseline/left_right` minus `baseline/none` | 0.29 ±" in said
    assert "| `no_pooling` minus `baseline` | -0.48 ±" in said


def test_a_cell_that_cannot_be_is_refused(published: ModuleType) -> None:
    for cell in ("baselin", "baseline/sideways"):
        with pytest.raises(ValueError, match=f"no cell {cell}"):
            published.differences(f"two\n{cell} - baseline")


def test_trials_of_several_data_sets_are_not_averaged(published: ModuleType) -> None:
    file = published.RESULTS / "two.json"
    found = json.loads(file.read_text())
    found["trials"][0]["data"] = "crops"
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="publish each by itself"):
        published.differences("two\nbaseline - no_pooling")


def test_a_row_of_results_is_a_cells_mean_and_spread_and_says_how_many_seeds(published: ModuleType) -> None:
    file = published.RESULTS / "two.json"
    found = json.loads(file.read_text())
    for trial in found["trials"]:
        trial["val_accuracy"] = 0.5
        trial["layers"][0] |= {"layer": "features.3b.conv", "verdict": "none", "expected": "horizontal"}
    found["trials"][0]["layers"][0]["verdict"] = "horizontal"
    file.write_text(json.dumps(found | {"wall_s": None, "machine": "2 cores", "torch": "2"}))
    lines = published.results("two").splitlines()
    scores, verdicts = "0.50 ± 0.00 | 3b | 0.89 ± 0.03 | -0.09 ± 0.00", "horizontal (1 of 3), none (2 of 3)"
    assert lines[2] == f"| `baseline` | {scores} | {verdicts} | horizontal |"
    assert lines[-1].startswith("Mean ± standard deviation over 3 seeds; time not measured")
    assert published.seeds("two").splitlines()[3].endswith("| 0.48 | 0.40 0.48 0.35 |")
    said = published.findings("two").splitlines()
    assert said[2].startswith("| `baseline` | 3b | horizontal | 0 % | 0.89 ±")
    assert said[3].endswith("**none** |")
    assert said[-1] == "Findings that agree with the article's: two: 0 of 2."


def test_what_follows_then_is_launched_with_the_options_before() -> None:
    assert launched(["--set", "a=1", THEN, "b", THEN, "c"]) == [
        ["--set", "a=1"],
        ["--set", "a=1", "b"],
        ["--set", "a=1", "c"],
    ]


def test_an_unrun_sweep_says_so(published: ModuleType) -> None:
    assert published.differences("four\nbaseline - no_pooling") == "Not run yet."
