"""The dashboard: `streamlit run dashboard/app.py -- STORAGE_OR_SWEEP`."""

from pathlib import Path

import streamlit as st
from PIL import Image

VIEWS = Path(__file__).parent / "views"  # not "pages", which Streamlit would serve past this file


def icon() -> Image.Image:
    """Three bands; Streamlit's own icons would be fetched from the web."""
    image = Image.new("RGB", (48, 48), "white")
    for row, colour in enumerate(("#D55E00", "#009E73", "#0072B2")):
        image.paste(Image.new("RGB", (48, 12), colour), (0, 2 + 16 * row))
    return image


st.set_page_config(page_title="Weight banding", page_icon=icon(), layout="wide")
st.navigation(
    [
        st.Page(VIEWS / "overview.py", title="Overview", icon=":material/grid_view:", default=True),
        st.Page(VIEWS / "seeds.py", title="Seeds", icon=":material/difference:", url_path="seeds"),
        st.Page(VIEWS / "trial.py", title="Trial", icon=":material/monitoring:", url_path="trial"),
    ]
).run()
