"""The dashboard: `streamlit run dashboard/app.py -- STORAGE_OR_SWEEP`.

To add a page: write a file in `views/`; its name is the page's title and address.
"""

from pathlib import Path

import streamlit as st
from PIL import Image

import sweep  # noqa: F401  # first: it makes sure that the project's packages are found, not others with the same names

VIEWS = Path(__file__).parent / "views"  # not "pages", which Streamlit would serve without this file
FIRST = "overview"
ICONS = {"overview": "grid_view", "seeds": "difference", "trial": "monitoring"}


def icon() -> Image.Image:
    """Three bands; Streamlit's own icons would be fetched from the web."""
    image = Image.new("RGB", (48, 48), "white")
    for row, colour in enumerate(("#D55E00", "#009E73", "#0072B2")):
        image.paste(Image.new("RGB", (48, 12), colour), (0, 2 + 16 * row))
    return image


st.set_page_config(page_title="Weight banding", page_icon=icon(), layout="wide")
st.navigation(
    [
        st.Page(
            view,
            title=view.stem.replace("_", " ").capitalize(),
            icon=f":material/{ICONS.get(view.stem, 'analytics')}:",
            url_path=view.stem,
            default=view.stem == FIRST,
        )
        for view in sorted(VIEWS.glob("*.py"), key=lambda view: (view.stem != FIRST, view.stem))
    ]
).run()
