"""The dashboard: `streamlit run dashboard/app.py -- STORAGE_OR_SWEEP`."""

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).parent / "pages"

st.set_page_config(page_title="Weight banding", page_icon=":material/density_small:", layout="wide")
st.navigation(
    [
        st.Page(PAGES / "overview.py", title="Overview", icon=":material/grid_view:", default=True),
        st.Page(PAGES / "trial.py", title="Trial", icon=":material/monitoring:", url_path="trial"),
    ]
).run()
