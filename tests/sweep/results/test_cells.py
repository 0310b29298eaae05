"""The cells of the grid: one state, whichever face draws it."""

import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from upath import UPath

from sweep.report.page import render
from sweep.results.cells import COLOURS, SYMBOLS, cells, last_convs, newest, standing
from sweep.results.tables import read_table, write_table
from sweep.store.lease import holder
from sweep.store.sweep_dir import SweepDir
from sweep.terminal import show
from tests.dashboard.synthetic import TRIALS, trial_id, write_sweep

BROKEN = trial_id("baseline", 0)
ERROR = "ValueError: 3 weights are NaN"


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepDir:
    """The synthetic sweep with one seed a cell; the baseline looked banded before its last analysis failed."""
    monkeypatch.setattr("tests.dashboard.synthetic.TRIALS", [trial for trial in TRIALS if trial[1] == 0])
    made = SweepDir(UPath(tmp_path / "first"))
    write_sweep(tmp_path / "first")
    layers = read_table(made.path, "layers")
    own = layers["trial_id"] == BROKEN
    layers.loc[own & (layers["step"] == 10), ["horizontal", "verdict"]] = [0.8, "horizontal"]
    layers.loc[own & (layers["step"] == 20), ["horizontal", "vertical", "verdict"]] = None
    layers.loc[own & (layers["step"] == 20), "error"] = ERROR
    write_table(made.path, "layers", layers)
    return made


def overview(sweep: SweepDir) -> pd.DataFrame:
    trials = standing(read_table(sweep.path, "trials"), holder(sweep.path))
    return cells(last_convs(trials, read_table(sweep.path, "layers"))).set_index("intervention")


def test_a_failed_last_analysis_leaves_no_verdict_of_an_older_checkpoint(sweep: SweepDir) -> None:
    cell = overview(sweep).loc["baseline"]
    assert (cell["outcome"], cell["label"], cell["state"], cell["reason"]) == (
        "unscored", "! unscored", "1 finished", ERROR,
    )  # fmt: skip
    assert pd.isna(cell["score"])
    assert not cell["surprising"]


def test_overview_report_and_status_say_the_same_of_every_cell(sweep: SweepDir) -> None:
    seen = overview(sweep)
    html = render(sweep.path)
    drawn = re.findall(r'class="cell (\w+)"', html)
    assert drawn == seen["outcome"].tolist()
    told = {trial["intervention"]: trial for trial in show.sweep_json(sweep)["trials"]}
    for intervention, cell in seen.iterrows():
        trial = told[intervention]
        if cell["outcome"] in ("failed", "excluded", "running"):
            assert trial["status"] == cell["outcome"]
        elif cell["outcome"] == "waiting":
            assert trial["status"] == "pending"
        else:
            verdict = None if cell["outcome"] == "unscored" else cell["outcome"]
            assert trial["layers"][0]["verdict"] == verdict
    assert show.sweep_json(sweep)["counts"] == {
        "finished": 2, "running": 1, "pending": 1, "failed": 1, "excluded": 1,
    }  # fmt: skip


def test_the_reason_is_told_by_each(sweep: SweepDir) -> None:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(show.sweep_table(sweep))
    assert ERROR in captured.get()
    assert f'title="{ERROR}">unscored' in render(sweep.path)


def test_a_trial_that_only_says_that_it_runs_was_cut_off(sweep: SweepDir) -> None:
    (Path(str(sweep.driver)) / "1.json").unlink()
    cell = overview(sweep).loc["no_pooling"]
    assert (cell["outcome"], cell["state"], cell["reason"]) == ("waiting", "1 pending", "interrupted on node-3")
    assert show.sweep_json(sweep)["counts"]["running"] == 0
    assert 'class="cell running"' not in render(sweep.path)


def test_a_finished_trial_whose_last_checkpoint_waits_for_its_analysis_has_no_result_yet(sweep: SweepDir) -> None:
    layers = read_table(sweep.path, "layers")
    write_table(sweep.path, "layers", layers[layers["step"] < 20])
    seen = overview(sweep)
    assert seen.loc["rotate90", "outcome"] == "waiting"
    assert 'class="cell vertical"' not in render(sweep.path)


def test_the_newest_rows_are_those_of_one_checkpoint() -> None:
    rows = [("a", 10, 1), ("a", 20, 2), ("a", 20, 1), ("b", 5, 1)]
    found = newest(pd.DataFrame(rows, columns=["trial_id", "step", "position"]))
    assert list(found.itertuples(index=False, name=None)) == [("a", 20, 1), ("b", 5, 1), ("a", 20, 2)]


def test_every_outcome_has_a_symbol_and_a_colour() -> None:
    assert set(SYMBOLS) == set(COLOURS)
