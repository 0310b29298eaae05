"""The page about weights: what is drawn, in which order, at which checkpoint, and what the address keeps."""

import base64
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard import weights
from dashboard.weights import Shown
from sweep.results.tables import ReducedLayer, read_reduced
from tests.dashboard.synthetic import trial_id
from tests.dashboard.weighty import LAYERS, NEURONS, write_arrays, write_examples, write_weighty

APP = str(Path(__file__).parents[2] / "dashboard" / "app.py")
LIMIT_S = 0.2
BASELINE, ROTATED = trial_id("baseline", 0), trial_id("rotate90", 0)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    write_weighty(tmp_path / "demo")
    return tmp_path


def layer_of(folder: Path, neurons: int, kernel: int = 5) -> ReducedLayer:
    write_arrays(folder / "trials" / "t" / "layers" / "1" / "conv.npz", neurons, seed=0, kernel=kernel)
    layer = read_reduced(UPath(folder), "t", 1, "conv")
    assert layer is not None
    return layer


def opened(monkeypatch: pytest.MonkeyPatch, storage: Path, **asked: str | list[str]) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", str(storage)])
    page = AppTest.from_file(APP, default_timeout=600).switch_page("views/weights.py")
    for name, value in asked.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def drawn(page: AppTest) -> list[dict[str, Any]]:
    """What the lists of tiles were given."""
    return [json.loads(element.proto.json) for element in page.get("bidi_component")]


def said(page: AppTest) -> str:
    elements = [*page.warning, *page.info, *page.caption, *page.header, *page.subheader, *page.markdown]
    return "\n".join(str(element.value) for element in elements)


def address(page: AppTest, name: str) -> list[str]:
    value = page.query_params.get(name, [])
    return [value] if isinstance(value, str) else list(value)


def test_an_atlas_has_each_neuron_exactly_where_its_number_says(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, 70)
    picture = np.asarray(Image.open(io.BytesIO(weights.atlas(layer))))
    assert picture.shape == (3 * 6 - 1, weights.ATLAS_COLUMNS * 6 - 1, 3)
    for neuron in (0, 31, 32, 69):
        row, column = divmod(neuron, weights.ATLAS_COLUMNS)
        tile = picture[6 * row :, 6 * column :][:5, :5]
        assert np.array_equal(tile, np.rint(layer.reduced[neuron] * 255).astype(np.uint8))


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_512_neurons_are_drawn_in_under_a_fifth_of_a_second(tmp_path: Path, kernel: int) -> None:
    layer = layer_of(tmp_path, 512, kernel)
    times = []
    for _ in range(3):
        began = time.process_time()
        weights.atlas(layer)
        weights.labels(layer)
        weights.ordered(layer, "horizontal")
        times.append(time.process_time() - began)
    assert min(times) < LIMIT_S


def test_neurons_are_sorted_by_what_is_asked(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, 4)
    assert weights.ordered(layer, "number").tolist() == [0, 1, 2, 3]
    assert weights.ordered(layer, "similarity").tolist() == [3, 2, 1, 0]
    assert weights.ordered(layer, "horizontal").tolist() == [3, 2, 1, 0]
    assert weights.ordered(layer, "vertical").tolist() == [0, 1, 2, 3]
    leading = np.array([2, 0, 3, 1])
    assert weights.ordered(layer, "number", leading).tolist() == [2, 0, 3, 1]
    assert weights.ordered(layer, "number", leading[:3]).tolist() == [0, 1, 2, 3]


def test_ranks_count_from_the_highest_score() -> None:
    assert [weights.rank(np.array([0.1, 0.9, 0.5, 0.5]), neuron) for neuron in range(4)] == [4, 1, 2, 2]


def test_factors_are_grey_and_together_they_are_the_colours(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, 3)
    together, *apart = map(np.asarray, (weights.coloured(layer, 1), *weights.factors(layer, 1)))
    for factor, grey in enumerate(apart):
        assert np.array_equal(grey[..., 0], together[..., factor])
        assert np.array_equal(grey[..., 0], grey[..., 1])
        assert np.array_equal(grey[..., 0], grey[..., 2])


def test_signs_of_weights_are_colours() -> None:
    picture = np.asarray(weights.signed(np.array([[2.0, 0.0, -2.0]]), 2.0))
    middle = picture[picture.shape[0] // 2]
    across = [middle[round(len(middle) * part)][:3].tolist() for part in (1 / 6, 1 / 2, 5 / 6)]
    assert across == [[213, 94, 0], [255, 255, 255], [0, 114, 178]]


def test_a_layer_is_shown_at_its_checkpoint_at_or_before_an_epoch() -> None:
    rows = pd.DataFrame({"epoch": [0.0, 4.0, 1.0], "step": [0, 40, 10]})
    assert [int(row["step"]) for epoch in (0, 1, 3.5, 99) for row in [weights.at_epoch(rows, epoch)]] == [0, 10, 10, 40]
    assert weights.at_epoch(rows.iloc[1:2], 3) is None


@pytest.mark.parametrize(
    ("text", "epoch"), [("4", 4), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None), ("x", None)]
)
def test_an_epoch_of_an_address_is_a_number(text: str, epoch: float | None) -> None:
    assert weights.epoch_of(text) == epoch


@pytest.mark.parametrize("text", ["trial", "trial/features.3b.conv", "trial/a/b"])
def test_layers_are_named_in_the_address_and_found_there(text: str) -> None:
    assert str(Shown.parse(text)) == text
    assert Shown.parse("trial/a/b") == Shown("trial", "a/b")


@pytest.mark.slow
def test_without_a_link_an_analysed_trial_is_shown_and_named_in_the_address(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(monkeypatch, storage)
    assert address(page, "show") == [BASELINE]
    (tiles,) = drawn(page)
    assert tiles["order"] == list(range(NEURONS))[::-1]
    assert tiles["name"].startswith("48 neurons of baseline · seed 0 · simplified_mini · 3b at epoch 2")
    picture = Image.open(io.BytesIO(base64.b64decode(tiles["png"])))
    assert (picture.format, picture.width) == ("PNG", weights.ATLAS_COLUMNS * 6 - 1)


@pytest.mark.slow
def test_a_link_shows_what_its_sender_saw(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = [ROTATED, f"{trial_id('no_pooling', 0)}/{LAYERS[1]}"]
    page = opened(
        monkeypatch, storage, show=show, baseline="1", epoch="1", sort="number", same="1", neuron=f"1:{NEURONS - 1}"
    )
    pinned, first, second = drawn(page)
    assert pinned["name"].startswith("48 neurons of baseline")
    assert pinned["order"] == first["order"] == list(range(NEURONS))
    assert (first["chosen"], second["chosen"]) == (None, NEURONS - 1)
    assert all("at epoch 1, sorted by number" in tiles["name"] for tiles in (pinned, first, second))
    assert page.select_slider[0].value == 1
    assert f"Neuron {NEURONS - 1} of no_pooling" in said(page)
    assert f"Horizontal score **1.00**, rank 1 of {NEURONS}" in said(page)
    assert f"rank {NEURONS} of {NEURONS}" in said(page)
    strongest = (NEURONS - 1 + 1) % 6
    captions = [caption for image in page.image for caption in image.captions]
    assert captions[:4] == ["together", "red", "green", "blue"]
    assert captions[4].startswith(f"input {strongest} · 9")
    assert address(page, "show") == show


@pytest.mark.slow
def test_what_a_link_leaves_out_is_not_chosen(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(monkeypatch, storage, show=ROTATED, epoch="0", neuron="0:3", sort="number")
    page.switch_page("views/seeds.py").run()
    page.switch_page("views/weights.py").run()
    assert (address(page, "epoch"), address(page, "neuron")) == (["0"], ["0:3"])  # by the navigation: as it was left
    page.query_params.clear()
    page.query_params["show"] = BASELINE
    page.run()
    (tiles,) = drawn(page)
    assert "at epoch 2, sorted by similarity" in tiles["name"]
    assert tiles["chosen"] is None


@pytest.mark.slow
def test_all_layers_follow_one_slider(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(monkeypatch, storage, show=[BASELINE, ROTATED])
    page.select_slider(key="epoch slider").set_value(0.0).run()
    assert address(page, "epoch") == ["0"]
    assert all("at epoch 0" in tiles["name"] for tiles in drawn(page))


@pytest.mark.slow
def test_of_checkpoints_that_differ_each_layer_shows_its_newest_up_to_the_epoch(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = storage / "demo" / "results" / "layers.parquet"
    rows = pd.read_parquet(table)
    rows[~((rows["trial_id"] == ROTATED) & (rows["epoch"] == 1))].to_parquet(table, index=False)
    page = opened(monkeypatch, storage, show=[BASELINE, ROTATED], epoch="1")
    first, second = drawn(page)
    assert "at epoch 1" in first["name"]
    assert "at epoch 0" in second["name"]
    rows[~((rows["trial_id"] == ROTATED) & (rows["epoch"] < 2))].to_parquet(table, index=False)
    page = opened(monkeypatch, storage, show=[BASELINE, ROTATED], epoch="1")
    assert len(drawn(page)) == 1
    assert "No checkpoint of this layer was analysed up to epoch 1; its first is at epoch 2" in said(page)


@pytest.mark.slow
def test_layers_are_added_changed_and_removed(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(monkeypatch, storage, show=BASELINE)
    page.text_input(key="trial to add part").set_value("ROTATE90").run()
    page.selectbox(key="trial to add").set_value(ROTATED).run()
    page.selectbox(key="layer to add").set_value(LAYERS[1]).run()
    next(button for button in page.button if button.label == "Add").click().run()
    assert address(page, "show") == [BASELINE, f"{ROTATED}/{LAYERS[1]}"]
    page.selectbox(key=f"layer of 0 {BASELINE}").set_value(LAYERS[1]).run()
    assert address(page, "show") == [f"{BASELINE}/{LAYERS[1]}", f"{ROTATED}/{LAYERS[1]}"]
    page.button(key="remove 0").click().run()
    assert not page.exception
    assert address(page, "show") == [f"{ROTATED}/{LAYERS[1]}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "warned"),
    [
        ({"show": ["gone", BASELINE]}, "There is no trial gone in this sweep"),
        ({"show": [f"{BASELINE}/no_conv"]}, "has no analysed layer no_conv"),
        ({"show": [trial_id("untrained", 0), BASELINE]}, "nothing has been analysed yet"),
        ({"show": [BASELINE] * 7}, "asks for 7 layers; the first 6 are shown"),
        ({"show": [BASELINE], "epoch": "soon"}, "epoch soon, which is not an epoch"),
        ({"show": [BASELINE], "sort": "size"}, "can't be sorted by size"),
        ({"show": [BASELINE], "neuron": "4:1"}, "which is not on this page"),
        ({"show": [BASELINE], "neuron": "0:99"}, "There is no neuron 99: the layer's neurons have the numbers 0 to 47"),
    ],
)
def test_a_link_that_names_nothing_is_told_and_kept(
    storage: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str | list[str]], warned: str
) -> None:
    page = opened(monkeypatch, storage, **asked)
    assert warned in said(page).replace("\\", "")
    for name, value in asked.items():
        assert address(page, name) == ([value] if isinstance(value, str) else value)


@pytest.mark.slow
def test_missing_pictures_and_removed_weights_are_said(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = storage / "demo" / "trials" / ROTATED
    (trial / "checkpoints" / "20" / "model.safetensors").unlink()
    page = opened(monkeypatch, storage, show=ROTATED, neuron="0:1")
    assert "The raw weights can't be shown: the weights of step 20 were removed" in said(page)
    (trial / "layers" / "10" / f"{LAYERS[0]}.npz").write_bytes(b"no arrays")
    page = opened(monkeypatch, storage, show=ROTATED, neuron="0:1", epoch="1")
    assert "missing or damaged" in said(page)
    assert page.code[0].value == f"sweep analyze {storage / 'demo'}"


@pytest.mark.slow
def test_what_a_neuron_responds_to_is_drawn_with_its_activations(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = write_examples(storage / "demo", ROTATED, 20, LAYERS[0])
    page = opened(monkeypatch, storage, show=ROTATED, neuron="0:5")
    shown = [(proto, proto.caption) for image in page.image for proto in image.proto.imgs][-8:]
    assert [caption for _, caption in shown[:2]] == ["6 · row 0, column 7", "5.88 · row 1, column 6"]
    assert [proto.alt for proto, _ in shown][:2] == [
        "activation 6 by validation image 5 at row 0, column 7",
        "activation 5.88 by validation image 105 at row 1, column 6",
    ]
    for place, (proto, _) in enumerate(shown):
        picture = Image.open(io.BytesIO(base64.b64decode(proto.url.partition("base64,")[2])))
        pixels = np.asarray(picture)
        assert picture.format == "PNG"
        assert np.array_equal(pixels[3:-3, 3:-3, :3], tiles[5, place].repeat(2, axis=0).repeat(2, axis=1))
        assert not pixels[:3, :, 3].any()
    assert "Of 256 validation images, those that activate the neuron most" in said(page)
    assert "the 20 x 24 pixels are drawn" in said(page)
    assert not page.code


@pytest.mark.slow
@pytest.mark.parametrize("lacking", ["another checkpoint", "another layer", "no picture", "no table"])
def test_where_examples_are_lacking_the_page_says_which_command_finds_them(
    storage: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    write_examples(storage / "demo", ROTATED, 20, LAYERS[0])
    picture = storage / "demo" / "trials" / ROTATED / "examples" / "20" / f"{LAYERS[0]}.png"
    if lacking == "no picture":
        picture.unlink()
    if lacking == "no table":
        (storage / "demo" / "results" / "examples.parquet").unlink()
    show = f"{ROTATED}/{LAYERS[1]}" if lacking == "another layer" else ROTATED
    page = opened(monkeypatch, storage, show=show, neuron="0:5", epoch="1" if lacking == "another checkpoint" else "2")
    assert "`sweep examples` finds them" in said(page)
    assert [code.value for code in page.code] == [f"sweep examples {storage / 'demo'}"]
    assert len([caption for image in page.image for caption in image.captions if caption.startswith("input ")]) == 6


@pytest.mark.slow
def test_a_damaged_sheet_of_examples_is_said(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(storage / "demo", ROTATED, 20, LAYERS[0])
    picture = storage / "demo" / "trials" / ROTATED / "examples" / "20" / f"{LAYERS[0]}.png"
    picture.write_bytes(picture.read_bytes()[:999])
    page = opened(monkeypatch, storage, show=ROTATED, neuron="0:5")
    assert f"{LAYERS[0]}.png is damaged; remove it" in said(page).replace("\\", "")


@pytest.mark.slow
def test_a_sweep_of_which_nothing_is_analysed_says_so(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (storage / "demo" / "results" / "layers.parquet").unlink()
    assert "Nothing has been analysed yet" in said(opened(monkeypatch, storage))


@pytest.mark.slow
def test_a_trial_without_a_baseline_says_so(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = storage / "demo" / "results" / "trials.parquet"
    trials = pd.read_parquet(table)
    trials[trials["trial_id"] != BASELINE].to_parquet(table, index=False)
    page = opened(monkeypatch, storage, show=ROTATED, baseline="1")
    assert "has no baseline of the same data, recipe, architecture and seed" in said(page)
    assert len(drawn(page)) == 1
