"""Choices that live in the page's address, so that a link shows what its sender saw.

The address is the truth: a widget shows what it says and writes the user's choice into it. Choices are also remembered
for the session, because navigation links open a page without the address's choices. Streamlit's own
`bind="query-params"` does not work here: with it, `st.switch_page` can't pass choices to the page it opens, and the
chosen sweep is lost on the way (Streamlit 1.67).
"""

from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from dashboard.words import plain


def choose_one(label: str, options: Sequence[str], name: str, in_words: Callable[[str], str] = str) -> str:
    """A select box over at least one option; shows the first one unless the address names another."""
    asked = st.query_params.get(name)
    wanted = [value for value in read(name) if value in options] or [options[0]]
    if asked is not None and asked not in options:
        st.warning(f"There is no {label.lower()} {plain(asked)}; showing {plain(wanted[0])}.")
    else:
        write(name, wanted[:1])
    st.session_state[name] = wanted[0]
    st.selectbox(label, options, key=name, format_func=in_words, on_change=partial(_write_chosen, name))
    return wanted[0]


def choose_some(label: str, options: Sequence[str], name: str) -> list[str]:
    """A box for choosing several options; choosing none means all. What a link asks for stays chosen, there or not."""
    wanted = read(name)
    missing = [value for value in wanted if value not in options]
    for value in missing:
        st.warning(f"There is no {label.lower()} {plain(value)}.")
    st.session_state[name] = wanted
    write(name, wanted)
    options = [*options, *missing]
    st.multiselect(label, options, key=name, placeholder="all", on_change=lambda: write(name, st.session_state[name]))
    return wanted


def read(name: str) -> list[str]:
    """The choices of this name: the address's, or where it has none, those remembered."""
    return list(st.query_params.get_all(name) or st.session_state.get(_remembered(name), []))


def write(name: str, values: Sequence[str]) -> None:
    """Put choices into the address, and remember them; none take the name out of it."""
    st.session_state[_remembered(name)] = list(values)
    if values and st.query_params.get_all(name) != list(values):
        st.query_params[name] = list(values)
    elif not values and name in st.query_params:
        del st.query_params[name]


def link(**choices: str | Sequence[str]) -> dict[str, str | list[str]]:
    """The parameters of a link to a page about the same sweep, with some choices."""
    named = {"sweep": read("sweep")} | choices
    return {name: value if isinstance(value, str) else list(value) for name, value in named.items() if value}


def _write_chosen(name: str) -> None:
    write(name, [st.session_state[name]])


def _remembered(name: str) -> str:
    return f"chosen {name}"
