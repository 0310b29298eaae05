"""The page that compares trials: their curves together, what their recipes differ in, the way to their weights."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import compare
from tests.dashboard.synthetic import trial_id
from tests.dashboard.weighty import LAYERS, write_weighty

APP = str(Path(__file__).parents[2] / "dashboard" / "app.py")
BASELINE, ROTATED, RUNNING = trial_id("baseline", 0), trial_id("rotate90", 0), trial_id("no_pooling", 0)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write_weighty(tmp_path / "demo")
    return tmp_path


def opened(monkeypatch: pytest.MonkeyPatch, storage: Path, trials: list[str]) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", str(storage)])
    page = AppTest.from_file(APP, default_timeout=600).switch_page("views/compare.py")
    if trials:
        page.query_params["trial"] = trials
    page.run()
    assert not page.exception
    return page


def said(page: AppTest) -> str:
    return "\n".join(str(element.value) for element in [*page.warning, *page.info, *page.caption, *page.header])


def asked(page: AppTest) -> list[str]:
    value = page.query_params.get("trial", [])
    return [value] if isinstance(value, str) else list(value)


def test_names_say_no_more_than_tells_trials_apart() -> None:
    facts = {
        "intervention": ["a", "a"],
        "data": "scenes",
        "architecture": "mini",
        "trial_id": ["x-1234567", "x-abcdefg"],
    }
    assert compare.telling_names(pd.DataFrame(facts | {"seed": [0, 1]})) == ["a · seed 0", "a · seed 1"]
    assert compare.telling_names(pd.DataFrame(facts | {"seed": 0})) == ["a · seed 0 · 123456", "a · seed 0 · abcdef"]
    other = facts | {"seed": 0, "architecture": ["mini", "vgg16"]}
    assert compare.telling_names(pd.DataFrame(other)) == ["a · seed 0 · mini", "a · seed 0 · vgg16"]


def test_trajectories_are_those_of_the_layers_at_one_position() -> None:
    rows = pd.DataFrame(
        {
            "trial_id": "x", "layer": ["3b", "3a", "3b"], "position": [1, 2, 1], "epoch": [0, 0, 1], "step": [0, 0, 9],
            "horizontal": [0.1, 0.2, 0.7], "vertical": [0.0, 0.0, -0.1], "error": None,
        } | {f"{name}_{end}": 0.0 for name in ("horizontal", "vertical") for end in ("low", "high")}
    )  # fmt: skip
    values = compare.trajectories({"x": rows}, {"x": "net"}, position=1)
    told = values[["trial", "direction", "epoch", "score"]].to_numpy().tolist()
    assert told == [
        ["net", "horizontal", 0, 0.1],
        ["net", "horizontal", 1, 0.7],
        ["net", "vertical", 0, 0.0],
        ["net", "vertical", 1, -0.1],
    ]


@pytest.mark.slow
def test_trials_of_a_link_are_compared_in_its_order(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(monkeypatch, storage, [ROTATED, BASELINE])
    scores, differences = (element.value for element in page.dataframe)
    assert scores["Trial"].tolist() == ["rotate90 · seed 0", "baseline · seed 0"]
    assert scores["Vertical"].tolist() == ["0.90 [0.85, 0.95]", "-0.12 [-0.17, -0.07]"]
    assert scores["Verdict"].tolist() == ["vertical", "horizontal"]
    assert differences.index.tolist() == ["intervention"]
    assert differences.loc["intervention"].tolist() == ["rotate90", "baseline"]
    assert len(page.get("vega_lite_chart")) == 3
    tiles = [json.loads(element.proto.json)["name"] for element in page.get("bidi_component")]
    assert tiles == ["48 neurons of rotate90 · seed 0", "48 neurons of baseline · seed 0"]
    page.selectbox(key="layer").set_value("last conv - 1").run()
    assert page.dataframe[0].value["Layer"].tolist() == [LAYERS[1]] * 2


@pytest.mark.slow
def test_trials_are_added_and_removed(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(monkeypatch, storage, [])
    assert "Choose 2 to 6 trials" in said(page)
    for trial in (BASELINE, RUNNING, ROTATED):
        page.selectbox(key="trial to compare").set_value(trial).run()
        next(button for button in page.button if button.label == "Add").click().run()
    assert asked(page) == [BASELINE, RUNNING, ROTATED]
    page.multiselect(key="compared trials").set_value([BASELINE, ROTATED]).run()
    assert not page.exception
    assert asked(page) == [BASELINE, ROTATED]
    assert page.dataframe[0].value["Trial"].tolist() == ["baseline · seed 0", "rotate90 · seed 0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trials", "warned"),
    [
        ([BASELINE, "gone", ROTATED], "There is no trial gone in this sweep"),
        ([trial_id("untrained", 0), trial_id("x_pool", 0)], "Nothing of this layer has been analysed yet"),
        ([trial_id("untrained", 0), BASELINE], "No readable spec: untrained · seed 0"),
    ],
)
def test_what_is_not_there_is_said_and_the_link_is_kept(
    storage: Path, monkeypatch: pytest.MonkeyPatch, trials: list[str], warned: str
) -> None:
    page = opened(monkeypatch, storage, trials)
    assert warned in said(page)
    assert asked(page) == trials


@pytest.mark.slow
def test_of_more_than_six_trials_the_first_are_compared(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("baseline", "rotate90", "no_pooling", "x_pool", "untrained", "coord_conv")
    trials = [*(trial_id(name, 0) for name in names), trial_id("baseline", 1)]
    page = opened(monkeypatch, storage, trials)
    assert "asks for 7 trials; the first 6 are compared" in said(page)
    assert len(page.dataframe[0].value) == 6
    assert not [box for box in page.selectbox if box.key == "trial to compare"]
