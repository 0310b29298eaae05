"""The page of a long list, which stands in the address."""

import streamlit as st

from dashboard.words import plain


def page_of(pages: int, name: str, words: str) -> int:
    """The page of a long list, which the address names, for this list alone."""
    asked = st.query_params.get(name, "1")
    page = int(asked) if asked.isdecimal() and 1 <= int(asked) <= pages else 1
    if asked != str(page):
        st.warning(f"There is no {name} {plain(asked)}; this is the first of {pages}.")
    if pages <= 1:
        return page
    key = f"chosen {name}"
    st.session_state[key] = page
    st.number_input(
        f"{name.capitalize()} {words}", 1, pages, key=key, width=260,
        on_change=lambda: st.query_params.update({name: str(st.session_state[key])}),
    )  # fmt: skip
    return page
