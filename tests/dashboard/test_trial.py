"""The page of one trial: what stays when new data comes, its neighbours, parts, note and requests."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard import trial as words
from dashboard.weights import baseline_of
from sweep.results.attempts import attempts
from sweep.results.state import read_state
from sweep.results.tables import TableName, read_table, write_table
from sweep.results.words import size_in_words
from sweep.store.notes import read_notes
from sweep.store.requests import pending_request, request_trial_stop
from sweep.store.sweep_dir import SweepDir
from tests.dashboard.synthetic import trial_id, write_sweep
from tests.dashboard.test_dashboard import APP, labels, said_by_address
from tests.dashboard.test_dashboard import words as told

pytestmark = pytest.mark.slow
BASELINE, RUNNING, FAILED = trial_id("baseline", 0), trial_id("no_pooling", 0), trial_id("x_pool", 0)
LOG = """\
2026-01-01T00:00:00Z attempt 1 starts on node-7, process 7: CPU, 2 threads, code a
2026-01-01T00:01:00Z failed: OSError: $x$
2026-01-01T00:02:00Z attempt 2 starts on node-7, process 8: CPU, 2 threads, code a
"""


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    write_sweep(tmp_path / "runs" / "first")
    return SweepDir(UPath(tmp_path / "runs" / "first"))


@pytest.fixture
def page(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", str(sweep.path.parent)])
    page = AppTest.from_file(APP, default_timeout=600).switch_page("views/trial.py")
    page.query_params["trial"] = BASELINE
    return page


def run(page: AppTest, **query: Any) -> str:
    """Open the page at an address; what it says."""
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return told(page)


def press(page: AppTest, key: str) -> None:
    page.button(key=key).click().run()
    assert not page.exception


def add_checkpoint(sweep: SweepDir, chosen: str, step: int, epoch: int) -> None:
    """As a driver does: the tables gain a checkpoint, which scores as the one before."""
    names: tuple[TableName, ...] = ("epochs", "layers")
    for name in names:
        rows = read_table(sweep.path, name)
        last = rows[(rows["trial_id"] == chosen) & (rows["step"] == 20)].assign(step=step, epoch=epoch)
        write_table(sweep.path, name, pd.concat([rows, last], ignore_index=True))
    folder = Path(sweep.trial(chosen).layers.path)
    (folder / str(step)).mkdir()
    for file in (folder / "20").iterdir():
        (folder / str(step) / file.name).write_bytes(file.read_bytes())


def test_an_older_checkpoint_and_a_layer_stay_when_newer_data_comes(sweep: SweepDir, page: AppTest) -> None:
    said = run(page)
    assert "horizontal 0.91 [0.86, 0.96]" in said
    assert "Newer" not in "".join(labels(page))
    page.select_slider(key="checkpoint shown").set_value("1").run()
    assert said_by_address(page, "epoch") == ["1"]
    assert "at epoch 1" in image_captions(page)
    run(page, layer="features.3a.conv")
    add_checkpoint(sweep, BASELINE, 130, 13)
    said = run(page)
    assert "Up to 96 neurons of features.3a.conv at epoch 1" in image_captions(page)
    assert page.select_slider(key="checkpoint shown").value == "1"
    assert "Newer: epoch 13" in labels(page)
    press(page, "newest")
    assert said_by_address(page, "epoch") == []
    assert said_by_address(page, "layer") == ["features.3a.conv"]
    assert "features.3a.conv at epoch 13" in image_captions(page)


def image_captions(page: AppTest) -> str:
    return "\n".join(image.proto.imgs[0].caption for image in page.get("image"))


def test_without_an_epoch_in_the_address_the_newest_is_followed(sweep: SweepDir, page: AppTest) -> None:
    run(page)
    add_checkpoint(sweep, BASELINE, 130, 13)
    run(page)
    assert "at epoch 13" in image_captions(page)


def test_pictures_are_sent_without_loss(page: AppTest) -> None:
    run(page)
    (image,) = page.get("image")
    assert image.proto.imgs[0].url.endswith(".png")


def test_what_a_link_asks_for_and_is_not_there_stays_and_is_said(page: AppTest) -> None:
    run(page, layer="*no*", epoch="7")
    said = "\n".join(str(warning.value) for warning in page.warning)
    assert "No layer \\*no\\* of this trial has been analysed" in said
    assert "No checkpoint of epoch 7 has been analysed" in said
    assert said_by_address(page, "layer") == ["*no*"]
    assert said_by_address(page, "epoch") == ["7"]


def test_a_link_to_no_trial_shows_none_and_keeps_what_was_asked(page: AppTest) -> None:
    run(page, trial="no_such_[trial]")
    assert "has no trial no_such\\_\\[trial\\]" in str(page.warning[0].value)
    assert said_by_address(page, "trial") == ["no_such_[trial]"]
    assert not page.metric
    page.selectbox(key="trial").set_value(FAILED).run()
    assert page.title[0].value == "simplified_mini · x_pool"
    assert said_by_address(page, "trial") == [FAILED]


def test_previous_and_next_go_through_what_the_reader_came_from(page: AppTest) -> None:
    said = run(page, status="finished", epoch="1")
    assert "1 of 3 chosen" in said
    assert page.button(key="← Previous").disabled
    press(page, "Next →")
    assert said_by_address(page, "trial") == [trial_id("baseline", 1)]
    assert said_by_address(page, "epoch") == []
    assert said_by_address(page, "status") == ["finished"]
    press(page, "Next →")
    assert said_by_address(page, "trial") == [trial_id("rotate90", 0)]
    assert page.button(key="Next →").disabled


def test_a_note_and_a_star_are_written_and_shown(sweep: SweepDir, page: AppTest) -> None:
    run(page)
    page.text_input[0].set_value("  looks   odd ")
    page.toggle[0].set_value(True)
    next(button for button in page.button if button.label == "Save note").click().run()
    assert not page.exception
    note = read_notes(sweep.path)[BASELINE]
    assert (note.text, note.star) == ("looks odd", True)
    assert page.text_input[0].value == "looks odd"
    assert "Noted " in told(page)


def test_a_note_that_cannot_be_written_is_an_error(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("dashboard.noting.write_note", refuse)
    run(page)
    page.text_input[0].set_value("a")
    next(button for button in page.button if button.label == "Save note").click().run()
    assert page.error[0].value == "The note could not be written: read-only"


def test_parts_are_read_once_they_are_open_and_stay_open(sweep: SweepDir, page: AppTest) -> None:
    log = Path(sweep.trial(RUNNING).log_file.path)
    log.write_text(LOG + "".join(f"2026-01-01T00:03:00Z line {number}\n" for number in range(300)))
    said = run(page, trial=RUNNING)
    assert "The last 200 of 303 lines" in said
    assert "line 299" in said
    assert "line 99\n" not in said
    with log.open("a") as stream:
        stream.write("2026-01-01T00:04:00Z line 300\n")
    assert "line 300" in run(page)
    for title in ("Attempts", "Files", "Recipe, data, versions"):
        assert not page.session_state[f"{title} of {RUNNING}"]
        page.session_state[f"{title} of {RUNNING}"] = True
    said = run(page)
    tables = [table.value for table in page.dataframe]
    assert tables[0]["Outcome"].tolist() == ["failed", "running"]
    assert {"log.txt", "layers/20/features.3b.conv.npz"} <= set(tables[1]["File"])
    assert "spec.json is missing or damaged" in str(page.warning[0].value)
    rows = read_table(sweep.path, "trials")
    finished = rows["status"].mask(rows["trial_id"] == RUNNING, "finished")
    write_table(sweep.path, "trials", rows.assign(status=finished))
    assert "line 300" in run(page)  # what was open while it ran


def test_a_running_trial_can_be_stopped_and_what_was_asked_is_said(sweep: SweepDir, page: AppTest) -> None:
    run(page, trial=RUNNING)
    press(page, "stop")
    assert pending_request(sweep.path, RUNNING) is not None
    assert "A stop was requested" in told(page)
    (sweep.driver / "1.json").unlink()
    assert "This trial waits: interrupted on node-3" in run(page)


def test_texts_of_trials_are_shown_as_they_are(sweep: SweepDir, page: AppTest) -> None:
    nasty = "![](http://x.org/a.png) $x$ :red[a]"
    rows = read_table(sweep.path, "trials")
    names = {"error": nasty, "host": nasty, "reason": nasty, "architecture": nasty, "intervention": nasty}
    write_table(sweep.path, "trials", rows.assign(**names))
    for chosen in (FAILED, trial_id("coord_conv", 0), BASELINE):
        run(page, trial=chosen)
        shown = [*page.title, *page.caption, *page.info, *page.error, *page.markdown, *page.warning]
        assert all("![" not in str(element.value) and "$x$" not in str(element.value) for element in shown)


def test_facts_are_told_as_far_as_they_are_known(sweep: SweepDir) -> None:
    seen = read_state(sweep)
    trial = seen.trials[seen.trials["trial_id"] == BASELINE].iloc[0]
    epochs = read_table(sweep.path, "epochs", trial_id=BASELINE)
    told = words.facts(trial, epochs, None)
    assert "Images/s" not in told
    assert told["Epochs"] == "2 of 2"
    epochs["images_per_s"], epochs["gpu_mib"] = [None, 1000.0, 1500.0], [None, 300.0, 200.0]
    (cost,) = (cost for cost in seen.trial_costs if cost.trial_id == BASELINE)
    told = words.facts(trial, epochs.astype({"images_per_s": "Float64", "gpu_mib": "Float64"}), cost)
    assert (told["Images/s"], told["GPU memory"]) == ("1,500", "300 MiB")


def test_the_baseline_is_of_the_same_seed_and_condition(sweep: SweepDir) -> None:
    rows = read_state(sweep).trials
    of = {row["trial_id"]: baseline_of(rows, row) for _, row in rows.iterrows()}
    assert of[FAILED] == BASELINE
    assert of[BASELINE] == BASELINE
    other = rows.assign(recipe_key=rows["recipe_key"].mask(rows["intervention"] == "baseline", "r"))
    assert baseline_of(other, rows[rows["trial_id"] == FAILED].iloc[0]) is None


def test_attempts_and_sizes_are_in_words() -> None:
    table = words.attempt_table(attempts(LOG))
    assert table["Lasted"].tolist() == ["60 s", "0 s"]
    assert table["Error"].tolist() == ["OSError: $x$", ""]
    assert words.attempt_table([]).empty
    sizes = [size_in_words(size) for size in (0, 999, 1000, 3_200_000, 5e15)]
    assert sizes == ["0 bytes", "999 bytes", "1.0 kB", "3.2 MB", "5000.0 TB"]


def test_a_request_to_stop_is_told_apart_from_one_to_retry(sweep: SweepDir, page: AppTest) -> None:
    request_trial_stop(sweep.path, FAILED)
    run(page, trial=FAILED)
    assert "A stop was requested" in told(page)
    assert "Retry" not in labels(page)


def test_chance_is_told_by_each_null_that_is_known() -> None:
    layer = pd.Series({"layer": "c", "null_horizontal_high": 0.03, "null_turned_high": 0.4, "reliability": 0.8})
    probes = pd.DataFrame({"layer": ["map", "c"], "null_input_horizontal": [None, 0.2], "null_input_vertical": 0.1})
    assert words.chance(layer, probes) == (
        "By chance: below 0.03 with shuffled positions; below 0.40 with turned neurons; 0.20 horizontal, 0.10 vertical "
        "in kernels made of its inputs. Reliability 0.80."
    )
    older = layer.astype(object)
    older[["null_turned_high", "reliability"]] = pd.NA
    assert words.chance(older, probes.iloc[:0]) == "By chance: below 0.03 with shuffled positions."
