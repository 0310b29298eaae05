"""The pages about weights in a real browser: from a comparison to one neuron, by mouse and by keyboard."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import ConsoleMessage, Locator, Page, expect
from upath import UPath

from sweep.results.tables import read_reduced
from tests.dashboard.chromium import WAIT_MS, Server, chromium, served
from tests.dashboard.synthetic import trial_id
from tests.dashboard.weighty import LAYERS, NEURONS, write_weighty

pytestmark = pytest.mark.browser
BASELINE, ROTATED = trial_id("baseline", 0), trial_id("rotate90", 0)
ZOOM = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("weights")
    write_weighty(folder / "runs" / "demo")
    with served(folder / "runs", folder / "log", "--no-token") as made:
        yield made


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1400, "height": 1000})


@pytest.fixture
def errors(page: Page) -> Iterator[list[str]]:
    """What the console says meanwhile; Streamlit itself asks for its settings below each page before it finds them."""
    said: list[str] = []

    def keep(message: ConsoleMessage) -> None:
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            said.append(f"{message.text} {message.location.get('url')}")

    def fail(error: Exception) -> None:
        said.append(str(error))

    page.on("console", keep)
    page.on("pageerror", fail)
    yield said
    page.remove_listener("console", keep)
    page.remove_listener("pageerror", fail)


def lists(page: Page) -> Locator:
    return page.get_by_role("listbox")


def test_from_a_comparison_to_one_neuron_by_mouse_and_keyboard(page: Page, server: Server, errors: list[str]) -> None:
    page.goto(f"{server.address}/compare?trial={BASELINE}&trial={ROTATED}")
    expect(lists(page)).to_have_count(2, timeout=WAIT_MS)
    lists(page).nth(1).get_by_role("option", name="neuron 40:").click()
    expect(page.get_by_role("heading", name="Neuron 40 of rotate90")).to_be_visible(timeout=WAIT_MS)
    assert f"show={BASELINE}%2F{LAYERS[0]}&show={ROTATED}%2F{LAYERS[0]}" in page.url
    chosen = page.get_by_role("option", selected=True)
    expect(chosen).to_have_accessible_name(re.compile("neuron 40:"))

    chosen.focus()
    page.keyboard.press("ArrowRight")  # by similarity, they run backwards
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Neuron 39 of rotate90")).to_be_visible(timeout=WAIT_MS)
    expect(chosen).to_be_focused()

    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", name="Neurons up to epoch 1")).to_be_visible(timeout=WAIT_MS)
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", name="Neurons up to epoch 0")).to_be_visible(timeout=WAIT_MS)
    expect(lists(page).first).to_have_accessible_name(re.compile("at epoch 0"))
    page.wait_for_url("**epoch=0**")
    assert "neuron=1%3A39" in page.url
    assert errors == []


def test_a_tile_is_magnified_without_loss(page: Page, server: Server, errors: list[str]) -> None:
    page.goto(f"{server.address}/weights?show={ROTATED}")
    expect(page.get_by_role("option")).to_have_count(NEURONS, timeout=WAIT_MS)
    tile = page.get_by_role("option", name="neuron 0:")
    seen = np.asarray(Image.open(io.BytesIO(tile.screenshot())).convert("RGB"))
    written = read_reduced(UPath(written_by(server)), ROTATED, 20, LAYERS[0])
    assert written is not None
    levels = np.rint(written.reduced[0] * 255).astype(np.uint8).repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    height, width, _ = levels.shape
    places = [(y, x) for y in range(len(seen) - height + 1) for x in range(seen.shape[1] - width + 1)]
    assert any(np.array_equal(seen[y : y + height, x : x + width], levels) for y, x in places)  # a pixel may be beside
    assert errors == []


def test_on_a_phone_nothing_is_wider_than_the_screen(page: Page, server: Server, errors: list[str]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.address}/weights?show={BASELINE}&show={ROTATED}&baseline=1&neuron=0:3")
    expect(page.get_by_role("heading", name="Strongest inputs")).to_be_visible(timeout=WAIT_MS)
    expect(lists(page)).to_have_count(2, timeout=WAIT_MS)
    main = page.locator("[data-testid=stMain]")
    assert main.evaluate("main => main.scrollWidth - main.clientWidth") == 0
    page.set_viewport_size({"width": 1400, "height": 1000})
    assert errors == []


def written_by(server: Server) -> Path:
    return server.log.parent / "runs" / "demo"
