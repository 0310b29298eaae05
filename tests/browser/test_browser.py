"""The dashboard in a real browser."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dashboard.serve import command
from tests.dashboard.synthetic import trial_id, write_sweep

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WAIT_MS = 60_000


@contextmanager
def served(storage: Path) -> Iterator[str]:
    """The address at which the dashboard shows a storage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(command(str(storage), port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if b"127.0.0.1" in line:
                break
        yield f"http://127.0.0.1:{port}"
        server.terminate()
        server.communicate()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A storage with one sweep."""
    storage = tmp_path_factory.mktemp("storage")
    write_sweep(storage / "demo")
    with served(storage) as address:
        yield address


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser.new_page(viewport={"width": 1400, "height": 1400})
        browser.close()


def test_overview_and_trial_show_what_banded(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name="Weight banding · demo")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("3 of 6 trials finished")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("canvas, svg.marks").first).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("[data-testid=stImage] img")).to_have_count(3, timeout=WAIT_MS)
    loaded = "[...document.querySelectorAll('[data-testid=stImage] img')].every(image => image.naturalWidth > 300)"
    page.wait_for_function(loaded, timeout=WAIT_MS)


def test_a_deep_link_opens_a_trial_with_its_error(page: Page, address: str) -> None:
    page.goto(f"{address}/trial?trial={trial_id('x_pool', 0)}")
    expect(page.get_by_role("heading", name="simplified_mini · x_pool")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("not a finite number at step 7").first).to_be_visible(timeout=WAIT_MS)


def test_a_picture_of_the_whole_page_can_be_taken(page: Page, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}/trial?trial={trial_id('baseline', 0)}")
    expect(page.get_by_role("heading", name="Banding over training")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("[data-testid=stImage] img")).to_have_count(1, timeout=WAIT_MS)
    page.screenshot(path=tmp_path / "trial.png", full_page=True)
    assert (tmp_path / "trial.png").stat().st_size > 20_000
