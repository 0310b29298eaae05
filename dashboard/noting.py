"""A reader's note on a trial or on the sweep: shown, and written."""

import time
from collections.abc import Mapping

import streamlit as st

from dashboard.shape import ago
from dashboard.words import plain
from sweep.store.files import STORAGE_ERRORS
from sweep.store.notes import TEXT_LIMIT, Note, write_note
from sweep.store.sweep_dir import SweepDir

_REFUSALS: tuple[type[Exception], ...] = (*STORAGE_ERRORS, ValueError)


def edit(sweep: SweepDir, about: str, notes: Mapping[str, Note]) -> None:
    """A line of text and a star about a trial or the sweep (`sweep.store.notes.SWEEP`), and who wrote them when."""
    note = notes.get(about, Note())
    text, star = (f"{what} on {about} {note.noted_at}" for what in ("text", "star"))  # another's note replaces it
    with st.form(f"note on {about}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Note", note.text, TEXT_LIMIT, key=text, placeholder="a line that every reader sees")
        st.toggle("★", note.star, key=star, help="Starred trials can be filtered on the page Trials.")
        st.form_submit_button("Save note", on_click=_save, args=(sweep, about, text, star))
    if note.noted_at:
        who = f" by {plain(note.who)}" if note.who else ""
        st.caption(f"Noted {ago(time.time() - note.noted_at)}{who}.")


def _save(sweep: SweepDir, about: str, text: str, star: str) -> None:
    try:
        write_note(sweep.path, about, st.session_state[text], star=st.session_state[star], who=_reader())
    except _REFUSALS as error:
        st.error(f"The note could not be written: {plain(str(error))}")


def _reader() -> str:
    """Who looks, where readers log in."""
    return str(st.user.get("email") or st.user.get("name") or "")
