"""Find a trial among many: a part of its id, then one of those that fit."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from dashboard import shape
from sweep.results.state import Filters, State

LISTED = 200  # trials in the box, which all go to the browser


def find_trial(seen: State, key: str) -> str | None:
    """The trial that the reader chooses by boxes of this key; None while none is chosen."""
    part = st.text_input("Find a trial", placeholder="part of its id, host or error", key=f"{key} part").strip()
    found = seen.chosen(Filters(search=part))
    if found.empty:
        st.caption("No trial has this in its id, host or error.")
        return None
    listed = found.head(LISTED)
    if len(listed) < len(found):
        st.caption(f"{len(listed):,} of {len(found):,} trials are listed.")
    names = _names(listed)
    return st.selectbox("Trial", listed["trial_id"].tolist(), index=None, key=key, format_func=names)


def _names(trials: pd.DataFrame) -> Callable[[str], str]:
    words = dict(zip(trials["trial_id"], shape.trial_names(trials), strict=True))
    return lambda trial_id: words.get(trial_id, trial_id)
