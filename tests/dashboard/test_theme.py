"""Colours can be told from what is behind them, in light and in dark."""

import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import expect
from streamlit import config

from dashboard.theme import DARK, GRAPHICS, LIGHT, THEME
from tests.dashboard.chromium import WAIT_MS, chromium, served_script

Colour = list[float]
"""Red, green and blue, from 0 to 255."""


def rgb(colour: str) -> Colour:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def luminance(colour: Colour) -> float:
    """Relative luminance as WCAG 2 defines it, from 0 (black) to 1."""
    shares = [part / 255 for part in colour]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ratio(one: Colour, other: Colour) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def contrast(one: str, other: str) -> float:
    return ratio(rgb(one), rgb(other))


def over(front: Colour, share: float, behind: Colour) -> Colour:
    return [share * part + (1 - share) * other for part, other in zip(front, behind, strict=True)]


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_graphics_and_text_stand_out(theme: dict[str, str]) -> None:
    for colour in GRAPHICS.values():
        assert contrast(colour, theme["backgroundColor"]) >= 3
    for background in (theme["backgroundColor"], theme["secondaryBackgroundColor"]):
        for text in ("textColor", "linkColor", "primaryColor"):
            assert contrast(theme[text], background) >= 4.5


def test_streamlit_knows_every_option() -> None:
    assert set(THEME) <= set(config._config_options_template)
    assert "theme.base" not in THEME  # which would choose for the reader


PAGE = """
import streamlit as st
from dashboard.theme import STYLE
st.html(STYLE)
st.title("title")
st.caption("caption with `code`")
st.markdown("text with `code` and [a link](http://127.0.0.1)")
st.multiselect("many", ["alpha", "beta"], default=["alpha"])
st.segmented_control("control", ["left", "right"], default="left")
st.tabs(["one tab", "another tab"])
st.button("primary", type="primary")
st.button("secondary")
st.metric("metric", 1, delta=-2)
for kind in (st.error, st.warning, st.info, st.success):
    kind(f"of the kind {kind.__name__}")
with st.sidebar:
    st.caption("sidebar's caption")
    st.button("sidebar's")
st.write("the end")
"""
TEXTS = """() => {
    const found = [];
    const walker = document.createTreeWalker(document.querySelector("[data-testid=stApp]"), NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!element.checkVisibility({opacityProperty: true}) || element.closest("style")) continue;
        const layers = [];
        let opacity = 1;
        for (let at = element; at; at = at.parentElement) {
            layers.push(getComputedStyle(at).backgroundColor);
            opacity *= parseFloat(getComputedStyle(at).opacity);
        }
        found.push([walker.currentNode.data.trim(), getComputedStyle(element).color, opacity, layers.reverse()]);
    }
    return found.filter(([text]) => text);
}"""


def parsed(css: str) -> tuple[Colour, float]:
    """Colour and opacity of `rgb(...)` or `rgba(...)`."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", css)]
    return numbers[:3], numbers[3] if len(numbers) > 3 else 1.0


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(tmp_path: Path, scheme: Literal["light", "dark"]) -> None:
    with served_script(PAGE, tmp_path) as server, chromium() as browser:
        page = browser.new_context(color_scheme=scheme).new_page()
        page.goto(server.address)
        expect(page.get_by_text("the end")).to_be_visible(timeout=WAIT_MS)
        page.wait_for_timeout(1000)  # for what fades in
        seen = {}
        for text, colour, opacity, layers in page.evaluate(TEXTS):
            behind = [255.0, 255.0, 255.0]
            for layer in layers:
                behind = over(*parsed(layer), behind)
            front, share = parsed(colour)
            seen[text] = ratio(over(front, share * opacity, behind), behind)
    assert {"alpha", "left", "one tab", "primary", "caption with", "sidebar's caption"} <= set(seen)
    assert {text: round(value, 2) for text, value in seen.items() if value < 4.5} == {}
