"""Colours can be told from what is behind them, in light and in dark."""

import pytest
from streamlit import config

from dashboard.theme import DARK, GRAPHICS, LIGHT, THEME


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, from 0 (black) to 1."""
    shares = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


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
