"""The page of all trials: what is shown, in which order, how an address says it, and what is asked of the driver."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard import asking, trials
from dashboard.trials import View
from sweep.results.state import Filters, State, read_state
from sweep.results.tables import read_table, write_table
from sweep.store.notes import Note, write_note
from sweep.store.requests import Request, pending_requests
from sweep.store.sweep_dir import SweepDir
from tests.dashboard.synthetic import TRIALS, trial_id, write_sweep
from tests.dashboard.test_dashboard import APP, said_by_address, words

pytestmark = pytest.mark.slow
NASTY = "a&b=c?d#e/[f]*$x$ `%41` :red[no]"
MORE = [
    ("x_pool", 1, "failed", None, None, None, None),
    ("x_pool", 2, "failed", None, None, None, None),
    ("spatial_mask", 0, "finished", -0.3, 0.2, "none", "horizontal"),
]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepDir:
    """The synthetic sweep with two more failures alike and a finding that was not expected."""
    monkeypatch.setattr("tests.dashboard.synthetic.TRIALS", [*TRIALS, *MORE])
    write_sweep(tmp_path / "runs" / "first")
    for intervention, seed, *_ in MORE:
        (tmp_path / "runs" / "first" / "trials" / trial_id(intervention, seed)).mkdir(exist_ok=True)
    return SweepDir(UPath(tmp_path / "runs" / "first"))


@pytest.fixture
def seen(sweep: SweepDir) -> State:
    return read_state(sweep)


@pytest.fixture
def page(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", str(sweep.path.parent)])
    return AppTest.from_file(APP, default_timeout=600).switch_page("views/trials.py")


def change(sweep: SweepDir, **changes: Any) -> None:
    """Rewrite the table of trials."""
    write_table(sweep.path, "trials", read_table(sweep.path, "trials").assign(**changes))


def shown(page: AppTest) -> list[str]:
    """The ids of the rows on screen, as their links have them."""
    links = page.dataframe[0].value["Trial"] if page.dataframe else []
    return [parse_qs(urlsplit(link).query)["trial"][0] for link in links]


def tick(page: AppTest, *rows: int) -> None:
    page.session_state[trials.key_of(shown(page))] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    page.run()
    assert not page.exception


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def away_and_back(page: AppTest) -> None:
    """Open another page and this one again by the navigation, whose links have no choices."""
    page.switch_page("views/seeds.py").run()
    page.query_params.clear()
    page.switch_page("views/trials.py").run()


VIEWS = [
    View(),
    View(filters=Filters(status=("failed", "running"), search="a & b", unexpected=True), sort="accuracy"),
    View(filters=Filters(recipe=("r",), data=("d", "e")), failure="DivergedError: step #", starred=True),
]


@pytest.mark.parametrize("view", VIEWS)
def test_an_address_holds_a_view(view: View) -> None:
    address = view.address()
    assert trials.read_view(lambda name: address.get(name, [])) == view
    assert set(address) <= set(trials.NAMES)
    query = parse_qs(urlsplit(trials.trial_link("s", "t", view)).query)
    assert query == {"sweep": ["s"], "trial": ["t"]} | address


def test_an_unknown_order_is_the_usual_one() -> None:
    assert trials.read_view(lambda name: ["sideways"] if name == "sort" else []) == View()


def test_what_failed_comes_first_and_an_order_puts_what_has_no_value_last(seen: State) -> None:
    found = trials.shown(seen, View(), {})
    assert found["status"].tolist()[:4] == ["failed"] * 3 + ["running"]
    by_score = trials.shown(seen, View(sort="vertical"), {})["vertical"]
    assert by_score.iloc[0] == 0.9
    assert by_score.dropna().is_monotonic_decreasing
    assert by_score.iloc[5:].isna().all()


def test_kinds_of_failures_and_stars_narrow_the_view(seen: State) -> None:
    (alike,) = seen.failures
    assert alike.title == "DivergedError x 3"
    view = View(failure=trials.failure_name(alike))
    assert trials.shown(seen, view, {})["trial_id"].tolist() == list(alike.trial_ids)
    notes = {alike.trial_ids[1]: Note(star=True), alike.trial_ids[0]: Note(text="no star")}
    assert trials.shown(seen, View(starred=True), notes)["trial_id"].tolist() == [alike.trial_ids[1]]
    assert trials.shown(seen, View(failure="gone"), {}).empty


def test_neighbours_are_those_of_the_view() -> None:
    assert trials.neighbours(["a", "b", "c"], "b") == ("a", "c")
    assert trials.neighbours(["a", "b"], "a") == (None, "b")
    assert trials.neighbours(["a", "b"], "x") == (None, None)


def test_the_table_says_where_and_when_a_trial_last_lived(seen: State) -> None:
    rows = seen.trials.assign(heartbeat_at=1000.0, horizontal=-0.001)
    notes = {trial_id("x_pool", 0): Note(text="look", star=True)}
    asked = [trial_id("x_pool", 1)]
    table = trials.trial_table(rows, 1012.0, rows["trial_id"].tolist(), notes, asked).set_index("Trial")
    running = table.loc[trial_id("no_pooling", 0)]
    assert (running["Last heartbeat"], running["Host"], running["Epochs"]) == ("12 s ago", "node-3", "2/2")
    assert pd.isna(table.loc[trial_id("baseline", 0), "Last heartbeat"])
    assert "DivergedError" in table.loc[trial_id("x_pool", 0), "Remark"]
    assert table.loc[trial_id("x_pool", 0), "Note"] == "★ look"
    assert table["Request"].dropna().index.tolist() == asked
    assert {f"{score:.2f}" for score in table["Horizontal"]} == {"0.00"}
    calm = rows[rows["status"] == "finished"]
    quiet = trials.trial_table(calm, 0.0, calm["trial_id"].tolist(), {}, [])
    assert not {"Remark", "Note", "Request", "Last heartbeat", "Data set, recipe"} & set(quiet.columns)


def test_the_command_takes_ids_as_they_are() -> None:
    said = asking.resume_command(UPath("/a b/demo"), ["t[1]", "u"])
    assert said == "sweep resume '/a b/demo' --only 't[[]1]' --only u"


def test_the_page_shows_failures_by_kind_and_a_click_shows_one(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert len(shown(page)) == 10
    press(page, "DivergedError x 3")
    assert [one.partition("-s")[0] for one in shown(page)] == ["simplified_mini-x_pool"] * 3
    assert said_by_address(page, "failure") == ["DivergedError: the loss was not a finite number at step #"]
    press(page, "Show other trials too")
    assert len(shown(page)) == 10
    assert said_by_address(page, "failure") == []


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({"status": "failed"}, 3),
        ({"status": ["failed", "running"]}, 4),
        ({"verdict": "vertical"}, 1),
        ({"unexpected": "1"}, 1),
        ({"intervention": "baseline", "status": "finished"}, 2),
        ({"search": "FINITE number"}, 3),
        ({"starred": "1"}, 1),
    ],
)
def test_a_link_shows_what_its_sender_saw(sweep: SweepDir, page: AppTest, query: dict[str, Any], number: int) -> None:
    write_note(sweep.path, trial_id("spatial_mask", 0), "odd", star=True)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    assert not page.warning
    assert len(shown(page)) == number
    for name, value in query.items():
        assert said_by_address(page, name) == ([value] if isinstance(value, str) else value)


def test_what_a_link_asks_for_and_is_not_there_stays_and_is_said(page: AppTest) -> None:
    page.query_params["intervention"] = ["baseline", "no_such"]
    page.query_params["sort"] = "sideways"
    page.query_params["failure"] = "KeyError"
    page.query_params["page"] = "7"
    page.run()
    assert not page.exception
    said = "\n".join(str(warning.value) for warning in page.warning)
    assert "No trial of this sweep has the intervention no_such" in said
    assert "There is no order “sideways”" in said
    assert "No trial has failed like this any more: KeyError" in said
    assert said_by_address(page, "intervention") == ["baseline", "no_such"]
    assert page.multiselect(key="chosen intervention of trials").value == ["baseline", "no_such"]
    assert "No trial matches" in words(page)


def test_widgets_write_the_address_and_what_was_chosen_is_still_so_after_another_page(page: AppTest) -> None:
    page.run()
    page.multiselect(key="chosen status of trials").set_value(["failed", "running"]).run()
    assert said_by_address(page, "status") == ["failed", "running"]
    page.text_input(key="chosen search of trials").set_value("pool").run()
    page.toggle(key="chosen starred of trials").set_value(True).run()
    assert "No trial matches" in words(page)
    page.toggle(key="chosen starred of trials").set_value(False).run()
    assert said_by_address(page, "starred") == []
    page.selectbox(key="chosen sort of trials").set_value("name").run()
    before = shown(page)
    assert len(before) == 4
    assert before == sorted(before)
    away_and_back(page)
    assert shown(page) == before
    page.multiselect(key="chosen status of trials").set_value([]).run()
    page.text_input(key="chosen search of trials").set_value("").run()
    page.selectbox(key="chosen sort of trials").set_value("attention").run()
    away_and_back(page)
    assert len(shown(page)) == 10


def test_a_link_is_not_mixed_with_what_was_chosen_before(page: AppTest) -> None:
    page.run()
    page.multiselect(key="chosen intervention of trials").set_value(["baseline"]).run()
    away_and_back(page)
    page.query_params.clear()
    page.query_params["status"] = "failed"
    page.run()
    assert len(shown(page)) == 3


def test_ticked_trials_are_asked_for_and_ticks_follow_trials_when_rows_move(sweep: SweepDir, page: AppTest) -> None:
    page.run()
    tick(page, 0, 2, 9)
    first, third, last = (shown(page)[row] for row in (0, 2, 9))
    rows = read_table(sweep.path, "trials")
    change(sweep, status=rows["status"].mask(rows["trial_id"] == shown(page)[1], "finished"))
    page.run()
    assert shown(page)[:2] == [first, third]
    press(page, "Retry (2)")
    asked = {request.trial_id: request for request in pending_requests(sweep.path)}
    assert set(asked) == {first, third}
    assert {request.start for request in asked.values() if isinstance(request, Request)} == {"checkpoint"}
    assert [toast.value for toast in page.toast] == ["Requested for 2 trials."]
    assert "2 requests wait for the driver" in words(page)
    assert page.dataframe[0].value["Request"].notna().sum() == 2
    press(page, "Retry from scratch (2)")
    starts = {request.start for request in pending_requests(sweep.path) if isinstance(request, Request)}
    assert starts == {"scratch"}
    assert last not in asked


def test_a_click_on_a_table_that_has_changed_since_ticks_nothing(sweep: SweepDir, page: AppTest) -> None:
    page.run()
    old = trials.key_of(shown(page))
    rows = read_table(sweep.path, "trials")
    change(sweep, status=rows["status"].mask(rows["status"] == "failed", "finished"))
    page.session_state[old] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    page.run()
    assert not page.exception
    assert "Tick trials" in words(page)


def test_a_trial_is_stopped_only_where_a_driver_can_hear_it(sweep: SweepDir, page: AppTest) -> None:
    page.query_params["status"] = "running"
    page.run()
    tick(page, 0)
    press(page, "Stop (1)")
    (request,) = pending_requests(sweep.path)
    assert not isinstance(request, Request)
    (sweep.driver / "1.json").unlink()
    page.query_params["status"] = "pending"
    page.run()
    assert "1 request waits for `sweep resume" in words(page)
    tick(page, 0)
    assert next(button for button in page.button if button.label.startswith("Stop")).disabled


def test_what_cannot_be_asked_is_said(sweep: SweepDir, page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only $x$")

    monkeypatch.setattr("sweep.store.requests.request_retry", refuse)
    page.run()
    tick(page, 0, 1)
    press(page, "Retry (2)")
    assert [error.value for error in page.error] == ["A request could not be written: read-only \\$x\\$"]
    assert not page.toast


def test_ids_errors_and_notes_of_any_kind_are_shown_as_they_are(sweep: SweepDir, page: AppTest) -> None:
    rows = read_table(sweep.path, "trials")
    of_failed = rows["status"] == "failed"
    change(
        sweep,
        trial_id=rows["trial_id"].mask(rows["trial_id"] == trial_id("x_pool", 0), NASTY),
        error=rows["error"].mask(of_failed, "ValueError: ![](http://x.org/a.png) $x$ :red[a] <b> \x1b[31m\n# b"),
    )
    sweep.notes.mkdir()
    (sweep.notes / "damaged.json").write_text("![](x)")
    page.run()
    assert not page.exception
    assert NASTY in shown(page)
    assert all("![" not in str(element.value) for element in [*page.caption, *page.warning])
    assert len(page.warning) == 1
    tick(page, 0)


def test_a_long_table_is_turned_by_its_page_in_the_address(sweep: SweepDir, page: AppTest) -> None:
    rows = read_table(sweep.path, "trials")
    many = pd.concat([rows[rows["status"] == "finished"]] * 150, ignore_index=True)
    many["trial_id"] = [f"t{number:04}" for number in range(len(many))]
    write_table(sweep.path, "trials", many)
    page.query_params["page"] = "3"
    page.run()
    assert shown(page)[0] == "t0400"
    assert len(shown(page)) == 200
    page.number_input(key="chosen page").set_value(2).run()
    assert shown(page)[0] == "t0200"
    assert said_by_address(page, "page") == ["2"]
    page.selectbox(key="chosen sort of trials").set_value("name").run()
    assert shown(page)[0] == "t0000"
