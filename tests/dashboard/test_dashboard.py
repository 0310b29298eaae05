"""The pages over a synthetic sweep, and the shaping of tables behind them."""

import re
import sys
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard import shape
from sweep.results.cells import cells, last_convs
from sweep.results.clusters import update_clusters
from sweep.results.tables import read_table, write_table
from sweep.store.requests import pending_requests
from tests.dashboard.synthetic import TRIALS, trial_id, write_sweep

pytestmark = pytest.mark.slow

APP = str(Path(__file__).parents[2] / "dashboard" / "app.py")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write_sweep(tmp_path / "first")
    return tmp_path


def app(monkeypatch: pytest.MonkeyPatch, argument: Path) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", str(argument)])
    return AppTest.from_file(APP, default_timeout=600)  # a page's run ends it, however slow


def words(page: AppTest) -> str:
    elements = [
        *page.title,
        *page.header,
        *page.subheader,
        *page.markdown,
        *page.caption,
        *page.info,
        *page.error,
        *page.code,
    ]
    return "\n".join(str(element.value) for element in elements)


def labels(page: AppTest) -> set[str]:
    return {button.label for button in page.button}


def links(page: AppTest) -> set[str]:
    return {link.proto.label for link in page.get("page_link")}


def said_by_address(page: AppTest, name: str) -> list[str]:
    """A query parameter; AppTest gives a single value as it finds it, alone or in a list."""
    value = page.query_params.get(name, [])
    return [value] if isinstance(value, str) else list(value)


def test_the_overview_counts_every_trial(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage).run()
    assert not page.exception
    assert links(page) >= {
        "**3** finished", "**1** running", "**1** pending", "**1** failed", "**1** excluded",
        "**0** not as expected in the last conv", "**4 of 4** findings as expected",
    }  # fmt: skip
    assert "coordinates need two convolutions" in words(page)
    assert "Weight banding · first" in words(page)


@pytest.mark.parametrize("view", sorted((Path(APP).parent / "views").glob("*.py")), ids=lambda path: path.stem)
def test_every_page_opens_on_a_sweep_and_on_an_empty_storage(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: Path
) -> None:
    for shown in (storage, tmp_path / "nothing"):
        page = app(monkeypatch, shown).switch_page(f"views/{view.name}").run()
        assert not page.exception
        assert len(words(page)) > 5


def test_one_sweeps_folder_is_taken_as_well_as_a_storage(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage / "first").run()
    assert not page.exception
    assert "Sweep" not in {box.label for box in page.selectbox}


def test_a_storage_with_two_sweeps_lets_one_choose(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(storage / "second")
    page = app(monkeypatch, storage).run()
    page.selectbox(key="sweep").set_value("second").run()
    assert "Weight banding · second" in words(page)


@pytest.mark.parametrize("view", ["", "views/seeds.py", "views/trial.py"])
def test_a_damaged_table_is_told_with_its_cure(storage: Path, monkeypatch: pytest.MonkeyPatch, view: str) -> None:
    table = storage / "first" / "results" / "layers.parquet"
    table.write_bytes(b"no table")
    page = app(monkeypatch, storage).run()
    if view:
        page.switch_page(view).run()
    assert not page.exception
    assert f"{table} is damaged" in words(page)
    assert f"`sweep resume {storage / 'first'}` rewrites it" in words(page)
    assert table.read_bytes() == b"no table"


def test_errors_and_logs_that_are_not_utf8_are_shown(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = storage / "first" / "trials" / trial_id("x_pool", 0)
    (failed / "error.txt").write_bytes(b"OSError: caf\xe9.jpg")
    (failed / "log.txt").write_bytes(b"attempt \xff\n")
    page = app(monkeypatch, storage)
    page.query_params["trial"] = failed.name
    page.run().switch_page("views/trial.py").run()
    assert not page.exception
    assert "OSError: caf\ufffd.jpg" in words(page)
    assert "attempt \ufffd" in words(page)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_an_empty_storage_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    page = app(monkeypatch, tmp_path / folder).run()
    assert not page.exception
    assert f"sweep launch demo --storage {tmp_path / folder}" in words(page)


def test_a_sweep_without_tables_yet_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(tmp_path / "fresh")
    for table in (tmp_path / "fresh" / "results").iterdir():
        table.unlink()
    for name in ("views/overview.py", "views/trial.py"):
        page = app(monkeypatch, tmp_path).switch_page(name).run()
        assert not page.exception
        assert "appear here within seconds" in words(page)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (trial_id("baseline", 0), "**horizontal** (expected: horizontal): horizontal 0.91 [0.86, 0.96]"),
        (trial_id("x_pool", 0), "DivergedError: the loss was not a finite number at step 7"),
        (trial_id("coord_conv", 0), "This cell is left out: coordinates need two convolutions"),
        (trial_id("untrained", 0), "Nothing has been analysed yet"),
    ],
)
def test_a_trials_page_by_its_address(storage: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, said: str) -> None:
    page = app(monkeypatch, storage).switch_page("views/trial.py")
    page.query_params["trial"] = chosen
    page.run()
    assert not page.exception
    assert page.selectbox(key="trial").value == chosen
    assert said in words(page)


@pytest.mark.parametrize("asked", ["second", "nothing"])
def test_the_address_names_what_is_shown(storage: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    write_sweep(storage / "second")
    page = app(monkeypatch, storage)
    page.query_params["sweep"] = asked
    page.run()
    shown = "second" if asked == "second" else "first"
    assert f"Weight banding · {shown}" in words(page)
    assert said_by_address(page, "sweep") == [asked]
    warned = [] if asked == shown else ["There is no sweep nothing; showing first."]
    assert [said.value for said in page.warning] == warned
    other = {"first": "second", "second": "first"}[shown]
    page.selectbox(key="sweep").set_value(other).run()
    assert said_by_address(page, "sweep") == [other]
    assert f"Weight banding · {other}" in words(page)


def test_of_many_trials_some_are_listed_and_a_part_of_an_id_finds_others(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = pd.concat([read_table(UPath(storage / "first"), "trials")] * 100, ignore_index=True)
    many.loc[20:, "trial_id"] = [f"another-{number:04}" for number in range(len(many) - 20)]
    many.to_parquet(storage / "first" / "results" / "trials.parquet", index=False)
    page = app(monkeypatch, storage).switch_page("views/trial.py")
    page.query_params["trial"] = trial_id("x_pool", 0)
    page.run()
    assert not page.exception
    assert len(page.selectbox(key="trial").options) == 500
    page.text_input(key="part").set_value("OTHER-0611").run()
    assert not page.exception
    found, kept = page.selectbox(key="trial").options
    assert found.endswith("0611")
    assert kept.startswith("x_pool · s0 · simplified_mini")
    assert page.selectbox(key="trial").value == trial_id("x_pool", 0)
    page.selectbox(key="trial").set_value("another-0611").run()
    assert said_by_address(page, "trial") == ["another-0611"]


def test_the_traceback_and_the_cure_of_a_failed_trial_are_shown(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage).switch_page("views/trial.py")
    page.query_params["trial"] = trial_id("x_pool", 0)
    page.run()
    assert "Traceback (most recent call last)" in words(page)
    assert f"--only {trial_id('x_pool', 0)}" in words(page)
    assert "attempt 1 starts on node-7" in words(page)


def test_cells_carry_verdict_spread_and_surprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = [
        ("spatial_mask", 0, "finished", -0.3, 0.2, "none", "horizontal"),
        ("attention", 0, "finished", 0.7, 0.1, "horizontal", "horizontal"),
        ("attention", 1, "finished", 0.6, 0.1, "none", "horizontal"),
    ]
    monkeypatch.setattr("tests.dashboard.synthetic.TRIALS", [*TRIALS, *more])
    write_sweep(tmp_path / "first")
    sweep = UPath(tmp_path / "first")
    last = last_convs(read_table(sweep, "trials"), read_table(sweep, "layers"))
    table = cells(last).set_index("intervention")
    assert table["outcome"].to_dict() == {
        "baseline": "horizontal",
        "rotate90": "vertical",
        "no_pooling": "running",
        "x_pool": "failed",
        "untrained": "waiting",
        "coord_conv": "excluded",
        "spatial_mask": "none",
        "attention": "none",  # the mean of its two seeds, which are divided, is 0.65
    }
    assert table["score"]["baseline"] == pytest.approx(0.88)
    assert table["spread"]["baseline"] == pytest.approx(0.0424, abs=1e-3)
    assert table["score"]["rotate90"] == pytest.approx(0.90)
    assert list(table.index[table["surprising"]]) == ["spatial_mask", "attention"]
    assert table["label"]["no_pooling"] == "… running"
    assert table["label"]["spatial_mask"] == table["brief"]["spatial_mask"] == "○ 0.20 ☷  ≠"
    assert table["label"]["attention"] == "○ 0.65 ± 0.07 (1 of 2)  ≠"
    assert table["label"]["baseline"] == "☰ 0.88 ± 0.04"
    assert table["brief"]["baseline"] == "☰ 0.88"
    assert (table["sign"]["baseline"], table["sign"]["attention"]) == ("☰", "○≠")
    assert table["state"]["baseline"] == "2 finished"
    assert table["reason"]["coord_conv"] == "coordinates need two convolutions"


def test_a_trajectory_has_both_directions_of_both_layers(storage: Path) -> None:
    scores = shape.trajectory(read_table(UPath(storage / "first"), "layers"), trial_id("baseline", 0))
    assert len(scores) == 3 * 2 * 2
    assert (scores["low"] < scores["high"]).all()
    last = scores[(scores["epoch"] == 2) & (scores["direction"] == "horizontal")]
    assert last["score"].tolist() == pytest.approx([0.91, 0.91])


def test_filters_choose_cells_and_are_kept_in_the_address(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage).run()
    page.multiselect(key="intervention").set_value(["no_pooling", "x_pool"]).run()
    assert {label.split(" · ")[0] for label in links(page) if "seed" in label} == {r"**no_pooling**"}
    assert said_by_address(page, "intervention") == ["no_pooling", "x_pool"]
    page.multiselect(key="intervention").set_value([]).run()
    assert len([label for label in links(page) if "seed" in label]) == 3
    page.multiselect(key="intervention").set_value(["rotate90"]).run()
    page.switch_page("views/trial.py").run()
    page.switch_page("views/overview.py").run()
    assert page.multiselect(key="intervention").value == ["rotate90"]


def test_a_link_with_filters_shows_what_its_sender_saw(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage)
    page.query_params["intervention"] = ["baseline", "no_such"]
    page.run()
    assert page.multiselect(key="intervention").value == ["baseline", "no_such"]
    assert [said.value for said in page.warning] == ["There is no intervention no_such."]
    assert {label.split(" · ")[0] for label in links(page) if "seed" in label} == {"**baseline**"}


def test_a_layer_is_chosen_by_the_address_and_its_cells_lead_to_its_weights(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = app(monkeypatch, storage)
    page.query_params["layer"] = "last conv - 1"
    page.run()
    assert "Banding in the last conv - 1 · scenes" in words(page)
    (link,) = [link.proto for link in page.get("page_link") if link.proto.label.startswith("**rotate90**")]
    assert parse_qs(link.query_string)["show"] == [f"{trial_id('rotate90', 0)}/features.3a.conv"]


def test_the_article_counts_agreement_and_shows_differences_first(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = read_table(UPath(storage / "first"), "layers")
    mine = (layers["trial_id"] == trial_id("rotate90", 0)) & (layers["step"] == 20) & (layers["position"] == 1)
    layers.loc[mine, "verdict"] = "none"
    write_table(UPath(storage / "first"), "layers", layers)
    page = app(monkeypatch, storage).switch_page("views/article.py").run()
    assert "3 of 4 as expected · 1 difference" in words(page)
    first = next(line.value for line in page.markdown if line.value.startswith(("≠", "✓")))
    assert first.startswith("≠ expected vertical, found ○ **none**")
    assert "3 cells have no finding yet" in words(page)


def test_clusters_for_any_k(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for file in (storage / "first").rglob("*.npz"):
        with np.load(file) as arrays:
            content = dict(arrays)
        content["reduced"] = content["reduced"] + rng.uniform(0, 0.02, content["reduced"].shape).astype(np.float16)
        np.savez(file, **content)
    update_clusters(UPath(storage / "first"))
    ks = sorted(read_table(UPath(storage / "first"), "clusters")["k"].unique())
    page = app(monkeypatch, storage).switch_page("views/clusters.py")
    page.query_params["k"] = "99"
    page.run()
    assert not page.exception
    assert [said.value for said in page.warning] == [f"There are no 99 clusters; these are {ks[0]}."]
    assert f"{ks[0]} centres" in words(page)
    assert list(page.dataframe[0].value["Intervention"])


@pytest.mark.parametrize(("label", "start"), [("Retry", "checkpoint"), ("Retry from scratch", "scratch")])
def test_a_failed_trial_can_be_asked_for_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch, label: str, start: str
) -> None:
    page = app(monkeypatch, storage).switch_page("views/trial.py")
    page.query_params["trial"] = trial_id("x_pool", 0)
    page.run()
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception
    (request,) = pending_requests(UPath(storage / "first"))
    assert (request.trial_id, request.start) == (trial_id("x_pool", 0), start)
    assert re.search(r"was requested \d+ s ago", words(page))
    assert not labels(page) & {"Retry", "Retry from scratch"}


def test_a_request_that_cannot_be_written_is_an_error_on_the_page(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("sweep.store.requests.request_retry", refuse)
    page = app(monkeypatch, storage).switch_page("views/trial.py")
    page.query_params["trial"] = trial_id("x_pool", 0)
    page.run()
    page.button(key="Retry").click().run()
    assert not page.exception
    assert "The request could not be written: read-only file system" in words(page)


def test_a_finished_trial_has_nothing_to_retry(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage).switch_page("views/trial.py")
    page.query_params["trial"] = trial_id("baseline", 0)
    page.run()
    assert not labels(page) & {"Retry", "Retry from scratch", "Stop this trial"}


def test_the_driver_that_works_on_the_sweep_is_named(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage).run()
    assert "Driver: node-1, process 1, last heartbeat" in words(page)
    assert "**1** running" in links(page)


def test_without_a_driver_nothing_runs(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (storage / "first" / "driver" / "1.json").unlink()
    page = app(monkeypatch, storage).run()
    assert "No driver is working on this sweep" in words(page)
    assert "**0** running" in links(page)


@pytest.mark.parametrize(
    ("status", "attempts", "retry"),
    [
        ("failed", 1, True),
        ("finished", 1, False),
        ("excluded", 0, False),
        ("pending", 0, False),
        ("pending", 2, True),
        ("running", 1, False),
    ],
)
def test_what_failed_or_was_interrupted_may_be_retried(status: str, attempts: int, retry: bool) -> None:
    trial = pd.Series({"status": status, "attempts": attempts, "reason": None}, dtype=object)
    assert shape.may_be_retried(trial) is retry


def test_what_a_reader_stopped_before_it_began_may_be_retried() -> None:
    reason = "stopped by a reader; no checkpoint yet"
    assert shape.may_be_retried(pd.Series({"status": "pending", "attempts": 0, "reason": reason}, dtype=object))


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1, "0 s"), (12.4, "12 s"), (119, "119 s"), (150, "2 min"), (7300, "2 h"), (2e5, "2 d")]
)
def test_a_time_that_has_passed_is_said_in_its_unit(seconds: float, said: str) -> None:
    assert shape.ago(seconds) == f"{said} ago"


def test_cells_before_any_analysis(storage: Path) -> None:
    sweep = UPath(storage / "first")
    table = cells(last_convs(read_table(sweep, "trials"), read_table(sweep, "layers").iloc[:0]))
    assert set(table["outcome"]) == {"waiting", "running", "failed", "excluded"}
    assert not table["surprising"].any()


def test_the_seeds_page_says_mean_spread_and_difference(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = app(monkeypatch, storage).switch_page("views/seeds.py").run()
    assert not page.exception
    table = page.dataframe[0].value.set_index(["Intervention", "Layer"])
    row = table.loc[("baseline", "features.3b.conv")]
    assert (row["Seeds"], row["Horizontal"], row["Verdict"]) == (2, "0.88 ± 0.04", "horizontal")
    assert table.loc[("rotate90", "features.3b.conv")]["Vertical"] == "0.90"
    assert "no_pooling" not in {intervention for intervention, _ in table.index}  # it is still running
    endpoint = page.dataframe[1].value.set_index("Intervention").loc["rotate90"]
    assert endpoint.tolist() == ["vertical", "1 / 2", "+1.01", "+0.79 to +1.23", "0.011"]  # t(0.975, 1) = 12.7
    assert "named before it ran" in words(page)
    assert "Exploration" in words(page)
    assert "p, corrected" not in page.dataframe[2].value


def test_the_seeds_page_of_a_sweep_that_has_just_begun(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (storage / "first" / "results" / "layers.parquet").unlink()
    page = app(monkeypatch, storage).switch_page("views/seeds.py").run()
    assert not page.exception
    assert "No trial is finished and analysed yet" in words(page)


def test_the_page_of_one_list_is_not_that_of_the_next() -> None:
    def script() -> None:
        import streamlit

        from dashboard.paging import page_of

        streamlit.text(str(page_of(3, "page", "of 3")))

    page = AppTest.from_function(script)
    page.query_params["page"] = "3"
    assert page.run().text[0].value == "3"
    del page.query_params["page"]  # another page's list
    assert page.run().text[0].value == "1"
    assert not page.warning
