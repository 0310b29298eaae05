"""The dashboard's doors in a real browser: token, base path behind a proxy, dark theme, last resort."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from dashboard.theme import DARK, LIGHT
from tests.dashboard.chromium import WAIT_MS, Server, proxied, served, served_script
from tests.dashboard.synthetic import trial_id, write_sweep

pytestmark = pytest.mark.browser
TOKEN = "only-for-the-tests-of-doors"
DEEP_LINK = f"trial?sweep=demo&trial={trial_id('baseline', 0)}"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has not been here before."""
    context = browser.new_context(viewport={"width": 1400, "height": 1400})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Behind a token of the environment, at a path of its own."""
    folder = tmp_path_factory.mktemp("doors")
    write_sweep(folder / "runs" / "demo")
    environment = {"SWEEP_DASHBOARD_TOKEN": TOKEN, "STREAMLIT_LOGGER_LEVEL": "debug"}
    with served(folder / "runs", folder / "log", "--base-path", "/banding", environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    """Where the dashboard is for a browser: behind a proxy."""
    with proxied(server.port) as port:
        yield f"http://127.0.0.1:{port}/banding"


def status(address: str, cookie: str = "") -> int:
    request = urllib.request.Request(address, headers={"Cookie": cookie} if cookie else {})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def cookie_of(page: Page) -> str:
    return "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in page.context.cookies())


def expect_overview(page: Page) -> None:
    expect(page.get_by_text("3 of 6 trials finished")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("[data-testid=stImage] img")).to_have_count(3, timeout=WAIT_MS)
    loaded = "[...document.querySelectorAll('[data-testid=stImage] img')].every(image => image.naturalWidth > 0)"
    page.wait_for_function(loaded, timeout=WAIT_MS)


def expect_trial(page: Page) -> None:
    expect(page.get_by_role("heading", name="simplified_mini · baseline")).to_be_visible(timeout=WAIT_MS)


def test_without_the_token_nothing_is_shown_and_with_it_links_work(page: Page, address: str, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(f"{address}/{DEEP_LINK}")
    expect(page.get_by_text("This dashboard opens with its token.")).to_be_visible()
    page.get_by_label("Token").fill("some other token")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_text("This token doesn't open this dashboard")).to_be_visible()
    assert cookie_of(page) == ""

    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    expect_trial(page)
    assert page.url == f"{address}/{DEEP_LINK}"

    page.get_by_role("link", name="Overview").click()
    expect_overview(page)
    assert TOKEN not in page.url
    (cookie,) = [cookie for cookie in page.context.cookies() if cookie["name"].startswith("sweep_dashboard_")]
    assert (cookie["httpOnly"], cookie["path"], cookie["sameSite"]) == (True, "/banding/", "Lax")
    assert TOKEN not in cookie["value"]

    assert {urlsplit(url).path.split("/")[1] for url in asked} == {"banding"}
    pictures = [url for url in asked if "/media/" in url]
    assert pictures
    for url in (pictures[0], f"{address}/", f"{address}/_stcore/health", f"{address}/_stcore/host-config"):
        assert status(url) == 403
        assert status(url, cookie_of(page)) == 200
    assert TOKEN not in server.output


def test_a_link_with_the_token_opens_any_page(page: Page, address: str) -> None:
    page.goto(f"{address}/{DEEP_LINK}&token={TOKEN}")
    expect_trial(page)
    assert page.url == f"{address}/{DEEP_LINK}"
    page.goto(f"{address}/")
    expect_overview(page)


def test_a_socket_that_names_the_token_leaves_it_in_no_log(page: Page, address: str, server: Server) -> None:
    page.goto(f"{address}/?token={TOKEN}")
    expect_overview(page)
    opened = page.evaluate(
        """url => new Promise(done => {
            const socket = new WebSocket(url);
            socket.onopen = () => { socket.close(); done(true); };
            socket.onerror = () => done(false);
        })""",
        f"{address.replace('http', 'ws')}/_stcore/stream?token={TOKEN}",
    )
    assert opened
    assert TOKEN not in server.output


def test_a_random_token_is_printed_once_in_the_whole_link(page: Page, tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs" / "demo")
    with served(tmp_path / "runs", tmp_path / "log", environment={"SWEEP_DASHBOARD_TOKEN": ""}) as server:
        (link,) = [word for line in server.output.splitlines() for word in line.split() if "?token=" in word]
        assert status(server.address) == 403
        page.goto(link)
        expect_overview(page)
        assert "token" not in page.url
        assert server.output.count(link.split("=")[1]) == 1


@pytest.mark.parametrize(("scheme", "theme"), [("light", LIGHT), ("dark", DARK)])
def test_the_theme_is_the_readers(browser: Browser, server: Server, scheme: str, theme: dict[str, str]) -> None:
    with browser.new_context(color_scheme=scheme) as context:  # type: ignore[arg-type]  # a parameter of the test
        page = context.new_page()
        page.goto(f"{server.address}/banding/?token={TOKEN}")
        expect_overview(page)
        shown = page.locator("[data-testid=stApp]").evaluate("element => getComputedStyle(element).backgroundColor")
    red, green, blue = (int(theme["backgroundColor"][start : start + 2], 16) for start in (1, 3, 5))
    assert shown == f"rgb({red}, {green}, {blue})"


FAILING = """
import streamlit as st

def fail():
    raise KeyError("a secret of the server")

@st.fragment
def part():
    if st.button("Fail in a fragment"):
        fail()

part()
st.button("Fail in a callback", on_click=fail)
if st.button("Fail in the page"):
    fail()
"""


@pytest.mark.parametrize("where", ["fragment", "callback", "page"])
def test_an_error_nobody_thought_of_is_told_in_words_and_logged(page: Page, tmp_path: Path, where: str) -> None:
    with served_script(FAILING, tmp_path) as server:
        page.goto(server.address)
        page.get_by_role("button", name=where).click(timeout=WAIT_MS)
        expect(page.get_by_text("the server's log has details")).to_be_visible(timeout=WAIT_MS)
        shown = page.locator("body").inner_text()
        assert "Traceback" not in shown
        assert "secret" not in shown
        assert "KeyError: 'a secret of the server'" in server.output
