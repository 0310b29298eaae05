"""What all pages share: the sweep that is looked at, the page's name, and a line that follows the running sweep."""

import streamlit as st

from dashboard import shape, source
from dashboard.words import plain
from sweep.results.state import State, glance
from sweep.results.words import count, duration


def begin(title: str = "") -> State:
    """Begin a page about the chosen sweep; ends it if there is none, or nothing to see of it yet.

    The page is drawn anew once the sweep has changed. Without a title, the page writes its own.
    """
    sweep = source.chosen_sweep()
    seen = source.state(sweep)
    if title:
        st.title(f"{title} · {plain(sweep.name)}")
    _follow(seen)
    if seen.trials.empty:
        st.info("The sweep has just been launched; its first results appear here within seconds.")
        st.stop()
    return seen


@st.fragment(run_every=f"{source.REFRESH_S}s")
def _follow(seen: State) -> None:
    """Who works on the sweep, how fast, and how long it will take; runs alone, and the page only if there is news."""
    version, driver = glance(seen.sweep)
    if version != seen.version:
        st.rerun()
    if driver is None:
        st.caption("No driver is working on this sweep.")
        return
    said = [f"Driver: {plain(driver.host)}, process {driver.pid}, last heartbeat {shape.ago(driver.age_s)}"]
    progress, left = seen.progress, seen.cost.seconds_left
    if left:
        said.append(f"about {duration(left)} left")
    if progress.images_per_s:
        said.append(f"{progress.images_per_s:,.0f} images/s")
    if progress.nodes:
        said.append(count(len(progress.nodes), "node"))
    if progress.analyses_waiting:
        said.append(f"{count(progress.analyses_waiting, 'analysis')} waiting")
    st.caption(" · ".join(said))
