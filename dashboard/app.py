"""The dashboard: `streamlit run dashboard/app.py -- STORAGE_OR_SWEEP`."""

from pathlib import Path

import streamlit as st

from dashboard.charts import page_icon

PAGES = Path(__file__).parent / "pages"

# A picture of our own: Streamlit would fetch a named icon from the network.
st.set_page_config(page_title="Weight banding", page_icon=page_icon(), layout="wide")
st.navigation(
    [
        st.Page(PAGES / "overview.py", title="Overview", icon=":material/grid_view:", default=True),
        st.Page(PAGES / "trial.py", title="Trial", icon=":material/monitoring:", url_path="trial"),
    ]
).run()
