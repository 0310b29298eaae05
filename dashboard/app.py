"""The pages, for a sweep or a storage; `sweep dashboard` serves them.

To add a page: write a file in `views/`; its name is the page's title and address.
"""

from pathlib import Path

import streamlit as st
from PIL import Image

import sweep  # noqa: F401  # first: it makes sure that the project's packages are found, not others with the same names
from dashboard import atlases
from dashboard.access import needs_login
from dashboard.theme import GRAPHICS, STYLE
from dashboard.trouble import told
from dashboard.words import plain

VIEWS = Path(__file__).parent / "views"  # not "pages", which Streamlit would serve without this file
FIRST = "overview"
ICONS = {  # of the pages, in their order; others follow
    "overview": "grid_view",
    "trials": "view_list",
    "trial": "monitoring",
    "weights": "apps",
    "compare": "compare",
    "clusters": "bubble_chart",
    "article": "article",
    "seeds": "difference",
    "progress": "hourglass_top",
    "atlas": "map",
}
ATLAS = "atlas"  # a page of storages that hold one


def icon() -> Image.Image:
    """Three bands; Streamlit's own icons would be fetched from the web."""
    image = Image.new("RGB", (48, 48), "white")
    for row, colour in enumerate(("vermillion", "green", "blue")):
        image.paste(Image.new("RGB", (48, 12), GRAPHICS[colour]), (0, 2 + 16 * row))
    return image


def shown() -> list[Path]:
    """The pages that this storage has something for."""
    return [view for view in VIEWS.glob("*.py") if view.stem != ATLAS or atlases.names()]


def require_login() -> None:
    """End the page with a button until the reader has logged in; then say as whom, and offer the way out."""
    if not st.user.is_logged_in:
        st.set_page_config(page_title="Weight banding")
        st.title("Weight banding")
        st.button("Log in", on_click=st.login, type="primary")
        st.stop()
    with st.sidebar:
        st.caption(plain(str(st.user.get("email") or st.user.get("name") or "logged in")))
        st.button("Log out", on_click=st.logout)


st.set_page_config(page_icon=icon(), layout="wide")  # each page has its own title
st.html(STYLE)
if needs_login():
    require_login()
pages = st.navigation(
    [
        st.Page(
            view,
            title=view.stem.replace("_", " ").capitalize(),
            icon=f":material/{ICONS.get(view.stem, 'analytics')}:",
            url_path=view.stem,
            default=view.stem == FIRST,
        )
        for view in sorted(shown(), key=lambda view: ([*ICONS, view.stem].index(view.stem), view.stem))
    ]
)
with told():
    pages.run()
