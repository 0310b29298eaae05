"""What a page says when it can't be drawn: words with a cure, never a traceback."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import streamlit as st

from dashboard.words import plain
from sweep.results.tables import DamagedTableError
from sweep.store.files import is_outage

_OURS = ("analysis", "dashboard", "sweep")
_LOG = logging.getLogger(__name__)


@contextmanager
def told() -> Iterator[None]:
    """Say what is wrong if the storage is, and end the page, or the fragment that this decorates.

    Other errors are the page's own and go on: where the dashboard is served, `tell` is the last to hear of them.
    """
    try:
        yield
    except Exception as error:
        said = in_words(error)
        if said is None:
            raise
        _LOG.warning("%s: %s", type(error).__name__, " ".join(str(error).split()))
        st.error(said)
        st.stop()


def tell(error: Exception) -> Literal[True]:
    """Say what is wrong in place of Streamlit, which has logged the error by now (`on_script_error`)."""
    st.error(
        in_words(error)
        or "This page has failed, by no fault of yours. Reload it; if that doesn't help, the server's log has details."
    )
    return True


def in_words(error: Exception) -> str | None:
    """What happened to the storage and what to do, as Markdown; None if the error is about something else."""
    said = plain(f"{type(error).__name__}: {error}")
    if isinstance(error, FileNotFoundError):
        return f"A file is gone: the sweep may have been removed or moved while you looked. Reload this page. {said}"
    if is_outage(error):
        return f"The storage can't be reached. This page works again when it can; reload it then. {said}"
    if (type(error) is ValueError and _is_raised_by_us(error)) or isinstance(error, DamagedTableError):
        return plain(str(error))  # such errors say what is damaged, and the cure
    return None


def _is_raised_by_us(error: Exception) -> bool:
    """Whether an error comes from a line of this project rather than of a library."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).split(".")[0] in _OURS
