"""The dashboard: `streamlit run dashboard/app.py -- STORAGE_OR_SWEEP`."""

from pathlib import Path

import streamlit as st

VIEWS = Path(__file__).parent / "views"  # not "pages", which Streamlit would serve past this file

st.set_page_config(page_title="Weight banding", page_icon=":material/density_small:", layout="wide")
st.navigation(
    [
        st.Page(VIEWS / "overview.py", title="Overview", icon=":material/grid_view:", default=True),
        st.Page(VIEWS / "seeds.py", title="Seeds", icon=":material/difference:", url_path="seeds"),
        st.Page(VIEWS / "trial.py", title="Trial", icon=":material/monitoring:", url_path="trial"),
    ]
).run()
