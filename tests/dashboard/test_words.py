"""Texts of trials are shown as they are, whatever they contain."""

import unicodedata
from pathlib import Path

import pytest
from playwright.sync_api import expect

from dashboard.words import page_title, plain
from tests.dashboard.chromium import WAIT_MS, chromium, served_script

KINDS = ["markdown", "caption", "error", "info", "title", "metric", "button", "within"]
NASTY = [
    "$x$ costs $5 and $6",
    "$$\\int_0^1 x$$",
    "![](http://127.0.0.1:9/picture.png)",
    "![alt][1]",
    ":red[not red] :blue-background[x] :small[y] :material/delete: :streamlit: :cat: :+1: :100: a:b c::d :smile",
    ":red-badge[:material/check: x]",
    "<b>bold</b> <img src=x onerror=alert(1)> <!-- gone --> &amp; &#58; &nbsp;",
    "`code` ``more`` ```",
    "*one* **two** _three_ __four__ ~~five~~ ~six~ simplified_mini _ a_",
    "[a](b) [a][b] [^1] [ ] [x]",
    "# heading #",
    "- item",
    "+ item",
    "* item",
    "12. item",
    "1) item",
    "> quote",
    "---",
    "===",
    "***",
    "| a | b |",
    "|---|---|",
    "https://example.org/a_b?c=d http://x.org www.example.org <https://example.org>",
    "me@example.org mailto:me@example.org",
    "a -> b <- c <-> d -- e >= f <= g ~= h",
    "--resume",
    "C:\\Users\\me \\",
    "\\# \\* \\:cat:",
    "{a: 1} {{b}} a:b{c=d}",
    "    four spaces",
    "-0.5",
    "12:30:45Z",
    "DivergedError: the loss was not a finite number at step 7",
]


def shown(text: str) -> str:
    """What Markdown makes of an escaped text, where nothing in it is syntax."""
    characters = iter(text)
    return "".join(next(characters) if character == "\\" else character for character in characters)


@pytest.mark.parametrize("text", NASTY)
def test_nothing_of_a_text_is_lost_by_escaping_it(text: str) -> None:
    assert shown(plain(text)).replace("\u2060", "") == text.strip()


@pytest.mark.parametrize("text", ["simplified_mini", "node-3", "Error: 0.5 of 12 (50 %), at step 7; it's over!", ""])
def test_a_harmless_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


def test_a_text_is_on_one_line() -> None:
    assert plain("a\n\n    b\r\n\tc\u2028d") == "a b c d"


@pytest.mark.parametrize("text", ["\x1b[31m", "abc\u202egpj.exe", "\ud800", "\x00", "a\u200bb"])
def test_what_is_not_printed_is_seen(text: str) -> None:
    cleaned = plain(text)
    assert "\N{REPLACEMENT CHARACTER}" in cleaned
    assert not {unicodedata.category(character) for character in cleaned} & {"Cc", "Cf", "Cs"}


def test_a_title_begins_with_what_is_particular() -> None:
    assert page_title("demo", "Trial", "x_pool · seed 0") == "x_pool · seed 0 · Trial · demo"
    assert page_title("demo", "Overview") == "Overview · demo"
    assert page_title(None, "Overview") == "Overview"


PAGE = """
import streamlit as st
from dashboard.words import page_title, plain
from tests.dashboard.test_words import KINDS, NASTY

st.set_page_config(page_title="Another title")
def page():
    st.set_page_config(page_title=page_title("demo", "Trial", NASTY[0]))
    for kind in KINDS:
        for number, text in enumerate(NASTY):
            with st.container(key=f"{kind}-{number}"):
                if kind == "metric":
                    st.metric(plain(text), 1)
                elif kind == "button":
                    st.button(plain(text), key=f"pressed {number}")
                elif kind == "within":
                    st.markdown(f"**of {plain(text)}**, and more")
                else:
                    getattr(st, kind)(plain(text))
    st.write("the end")
st.navigation([st.Page(page, title="The title of navigation")]).run()
"""


@pytest.mark.browser
def test_streamlit_shows_every_text_as_it_is(tmp_path: Path) -> None:
    with served_script(PAGE, tmp_path) as server, chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address)
        expect(page.get_by_text("the end")).to_be_visible(timeout=WAIT_MS)
        assert page.title() == page_title("demo", "Trial", NASTY[0])
        for kind in KINDS:
            for number, text in enumerate(NASTY):
                part = page.locator(f".st-key-{kind}-{number}")
                shown = " ".join(part.inner_text().replace("\u2060", "").split())
                expected = {"metric": f"{text.strip()} 1", "within": f"of {text.strip()}, and more"}
                assert shown == expected.get(kind, text.strip()), kind
                assert part.locator("a[href]:not([href^='#']), img, code, em, .katex, table, li, hr").count() == 0, kind
        assert {url for url in asked if not url.startswith(server.address)} == set()
