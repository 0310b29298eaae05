"""The page of progress: who works where, what is left, what failed by when, and the button that stops the sweep."""

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard import progress, timelines
from sweep.results.cost import Cost
from sweep.results.state import read_state
from sweep.results.tables import read_table, write_table
from sweep.store.notes import read_notes
from sweep.store.requests import stop_requested
from sweep.store.sweep_dir import SweepDir
from tests.dashboard.synthetic import trial_id, write_sweep
from tests.dashboard.test_dashboard import APP, labels, words

pytestmark = pytest.mark.slow
NOTHING = Cost(
    trials_left=0, epochs_left=0, images_left=0, gpu_hours_done=0.0, gpu_hours_left=0.0, cpu_hours_done=0.0,
    cpu_hours_left=0.0, seconds_left=0.0, money_done=None, money_left=None, unmeasured=(), unsized=0,
)  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    write_sweep(tmp_path / "runs" / "first")
    return SweepDir(UPath(tmp_path / "runs" / "first"))


@pytest.fixture
def page(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", str(sweep.path.parent)])
    return AppTest.from_file(APP, default_timeout=600).switch_page("views/progress.py")


def run(page: AppTest) -> str:
    page.run()
    assert not page.exception
    return words(page)


def test_the_page_says_what_is_done_and_who_works(page: AppTest) -> None:
    said = run(page)
    facts = {metric.label: metric.value for metric in page.metric}
    assert (facts["Running"], facts["Waiting"], facts["Failed"], facts["Epochs"]) == ("1", "1", "1", "12 of 12")
    assert "Process 1 on node-1, started " in said
    assert "Waiting: 1 trial to go on." in said
    nodes, longest = (table.value for table in page.dataframe)
    assert nodes["Host"].tolist() == ["node-3"]
    assert longest["Trained"].tolist() == ["40 s"]
    assert trial_id("no_pooling", 0) in longest["Trial"].iloc[0]
    assert "It isn't known when they failed" in said


def test_the_sweep_is_stopped_after_a_second_click(sweep: SweepDir, page: AppTest) -> None:
    assert "1 trial will save and stop" in run(page)
    assert not stop_requested(sweep.path)
    page.button(key="stop now").click().run()
    assert not page.exception
    assert stop_requested(sweep.path)
    assert "It has been asked to stop" in words(page)
    assert "Stop now" not in labels(page)


def test_without_a_driver_there_is_nothing_to_stop_but_a_command_to_go_on(sweep: SweepDir, page: AppTest) -> None:
    run(page)
    (sweep.driver / "1.json").unlink()
    page.button(key="stop now").click().run()  # before the page has heard of it
    assert "no driver works on" in str(page.error[0].value)
    assert f"sweep resume {sweep.path}" in words(page)
    assert "Stop now" not in labels(page)


def test_the_sweep_has_a_note(sweep: SweepDir, page: AppTest) -> None:
    run(page)
    page.text_input[0].set_value("rerun of May's")
    next(button for button in page.button if button.label == "Save note").click().run()
    assert read_notes(sweep.path)["sweep"].text == "rerun of May's"


def test_failures_are_counted_by_kind_in_the_order_in_which_they_happened(sweep: SweepDir) -> None:
    rows = read_table(sweep.path, "trials").assign(status="failed", heartbeat_at=[5.0, 3.0, None, 4.0, 1.0, 2.0, 6.0])
    errors = ["A: x 1", "A: x 2", "A: x 3", "B: y", "A: x 5", "C", "D"]
    write_table(sweep.path, "trials", rows.assign(error=errors))
    seen = read_state(sweep)
    table = progress.failures_over_time(seen.failures, seen.trials)
    assert table[["kind", "failed"]].to_numpy().tolist() == [
        ["A", 1], ["C", 1], ["A", 2], ["B", 1], ["A", 3], ["D", 1],
    ]  # fmt: skip
    assert table["at"].is_monotonic_increasing
    write_table(sweep.path, "trials", rows.assign(error=list("ABCDEFG")))
    seen = read_state(sweep)
    table = progress.failures_over_time(seen.failures, seen.trials)
    others = table[table["kind"] == progress.OTHERS]
    assert others["failed"].tolist() == [1, 2, 3]
    assert timelines.failures(table).to_dict()["encoding"]["color"]["scale"]["domain"][-1] == progress.OTHERS


def test_cost_is_told_as_far_as_it_is_known() -> None:
    assert progress.cost_in_words(NOTHING) == {}
    values = vars(NOTHING) | {"gpu_hours_done": 1.5, "gpu_hours_left": None, "money_done": 1234.5, "money_left": 0.0}
    cost = Cost(**values | {"unmeasured": ("resnet50",)})
    assert progress.cost_in_words(cost) == {"GPU hours": ("1.50", "unknown"), "Money": ("1,234.50", "0.00")}
    assert "No trial of resnet50 has trained" in progress.unknown_in_words(cost)
    assert progress.unknown_in_words(NOTHING) == ""
