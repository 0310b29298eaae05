"""Every page in a real browser, by a link to it: no trouble in the console, and readable by all (axe-core)."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from dashboard.serve import APP
from tests.dashboard.chromium import WAIT_MS, Server, served
from tests.dashboard.synthetic import trial_id, write_sweep
from tests.dashboard.test_atlas import write as write_atlas

pytestmark = pytest.mark.browser
PAGES = sorted(path.stem for path in (APP.parent / "views").glob("*.py"))
LINKS = {
    "trial": f"trial={trial_id('baseline', 0)}&layer=features.3a.conv&epoch=1",
    "weights": f"show={trial_id('baseline', 0)}/features.3b.conv&show={trial_id('rotate90', 0)}&epoch=1",
    "compare": f"trial={trial_id('baseline', 0)}&trial={trial_id('rotate90', 0)}",
    "trials": "status=failed",
}
# Streamlit looks for its server's own addresses below the page's first, where there are none.
KNOWN = re.compile(r"404 \(Not Found\)|_stcore/(health|host-config)")
# What Streamlit itself draws, in every app: its menu, its tables' canvases, its landmarks.
STREAMLITS = {"region", "landmark-one-main", "scrollable-region-focusable"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    storage = tmp_path_factory.mktemp("pages")
    write_sweep(storage / "demo")
    write_atlas(storage / "atlas")
    with served(storage, storage / "log", "--no-token") as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    yield opened
    opened.close()


def opened(page: Page, server: Server, name: str) -> list[str]:
    """Open a page by a link; what its console complains of from then on."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{server.address}/{'' if name == 'overview' else name}?sweep=demo&{LINKS.get(name, '')}")
    expect(page.locator("h1").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=WAIT_MS)
    return complaints


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_sound(page: Page, server: Server, name: str) -> None:
    complaints = opened(page, server, name)
    page.wait_for_timeout(500)
    assert [said for said in complaints if not KNOWN.search(said)] == []
    found = Axe().run(page).response["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical") and rule["id"] not in STREAMLITS]
    told = [f"{rule['id']}: {rule['nodes'][0]['html'][:300]}" for rule in serious]
    assert told == []
    page.set_viewport_size({"width": 390, "height": 800})  # a telephone's
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_cell_of_the_grid_leads_to_its_weights_and_the_way_back_does_not_bounce(page: Page, server: Server) -> None:
    opened(page, server, "overview")
    chart = page.get_by_test_id("stVegaLiteChart").first
    chart.scroll_into_view_if_needed()
    expect(chart.locator("canvas, svg").first).to_be_visible(timeout=WAIT_MS)
    page.wait_for_timeout(500)  # it is drawn a moment after it is there
    box = chart.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + 40 + 22)  # the first row, below the axis
    page.wait_for_url(re.compile(rf"/weights\?.*show={trial_id('baseline', 0)}"), timeout=WAIT_MS)
    page.go_back()
    expect(page.get_by_role("heading", name="Weight banding · demo")).to_be_visible(timeout=WAIT_MS)
    page.wait_for_timeout(1500)
    assert "/weights" not in page.url
