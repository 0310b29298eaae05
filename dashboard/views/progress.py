"""Progress: how far the sweep is, what works on it, what it has cost and will cost, and what has failed by when."""

import time

import streamlit as st

from dashboard import frame, noting, progress, timelines
from dashboard.shape import ago
from dashboard.words import page_title, plain
from sweep.results.state import State
from sweep.results.words import count, duration
from sweep.store.files import STORAGE_ERRORS
from sweep.store.lease import Holder
from sweep.store.notes import SWEEP, read_notes
from sweep.store.requests import request_stop, stop_requested
from sweep.store.sweep_dir import SweepDir

LONGEST = 10
_REFUSALS: tuple[type[Exception], ...] = (*STORAGE_ERRORS, ValueError)


def show_driver(seen: State) -> None:
    """Who works on the sweep, and a button that has it stop."""
    st.header("Driver")
    if seen.driver is None:
        st.info("No driver is working on this sweep. What is left is done by:")
        st.code(f"sweep resume {seen.sweep.path}", language="shell", wrap_lines=True)
        return
    driver = seen.driver
    since = ago(time.time() - driver.started_at)
    st.markdown(f"Process {driver.pid} on {plain(driver.host)}, started {since}, heartbeat {ago(driver.age_s)}.")
    if stop_requested(seen.sweep.path):
        st.info("It has been asked to stop: trials save first.")
        return
    with st.popover("Stop the sweep", key="stop"):
        running = count(seen.counts["running"], "trial")
        st.markdown(f"{running} will save and stop, and nothing more will start. `sweep resume` goes on from there.")
        st.button("Stop now", key="stop now", type="primary", on_click=stop, args=(seen.sweep, driver))


def stop(sweep: SweepDir, seen: Holder) -> None:
    """Ask the driver that the reader has seen to stop, or say why that could not be done."""
    try:
        asked = request_stop(sweep.path)
    except _REFUSALS as error:
        st.error(f"The request could not be written: {plain(str(error))}")
        return
    if asked.token != seen.token:
        st.warning(f"Another driver has taken over meanwhile: it stops now, on {plain(asked.host)}.")


def show_progress(seen: State) -> None:
    """How much is done and left."""
    now, cost = seen.progress, seen.cost
    if now.trials:
        st.progress(now.trials_done / now.trials, f"{now.trials_done:,} of {now.trials:,} trials finished")
    told = {
        "Running": f"{seen.counts['running']:,}",
        "Waiting": f"{seen.counts['pending']:,}",
        "Failed": f"{seen.counts['failed']:,}",
        "Epochs": f"{now.epochs_done:,} of {now.epochs:,}",
        "Analyses waiting": f"{now.analyses_waiting:,}",
    }
    if now.images_per_s:
        told["Images/s"] = f"{now.images_per_s:,.0f}"
    if cost.trials_left and seen.driver is not None:
        told["Time left"] = "unknown" if cost.seconds_left is None else f"about {duration(cost.seconds_left)}"
    with st.container(horizontal=True, gap="medium"):
        for name, value in told.items():
            st.metric(name, value, width="content")
    waiting = [f"{count(number, 'trial')} {what}" for what, number in progress.waiting(seen.trials).items()]
    if waiting:
        st.caption(f"Waiting: {', '.join(waiting)}.")


def show_cost(seen: State) -> None:
    costs = progress.cost_in_words(seen.cost)
    if not costs:
        return
    st.header("Cost")
    with st.container(horizontal=True, gap="medium"):
        for name, (done, left) in costs.items():
            st.metric(f"{name} done", done, width="content")
            st.metric(f"{name} left", left, width="content")
    st.caption("Training only, neither validation nor analysis. Prices come from the file that SWEEP\\_PRICES names.")
    if why := progress.unknown_in_words(seen.cost):
        st.caption(plain(why))


def show_nodes(seen: State) -> None:
    if seen.progress.nodes:
        st.header("Nodes")
        table = progress.node_table(seen.progress.nodes, time.time())
        st.dataframe(table, hide_index=True, placeholder="", alt="The nodes on which trials run")
    longest = progress.longest(seen, LONGEST, time.time())
    if len(longest):
        st.header("Longest running trials")
        link = st.column_config.LinkColumn(display_text=r"[?&]trial=([^&]*)", alignment="left")
        st.dataframe(
            longest, hide_index=True, placeholder="", column_config={"Trial": link}, alt="The longest running trials"
        )


def show_failures(seen: State) -> None:
    if not seen.failures:
        return
    st.header("Failures")
    number = seen.counts["failed"]
    link = {"sweep": seen.sweep.name, "status": "failed"}
    st.page_link("views/trials.py", label=f"{count(number, 'failed trial')}, by error", query_params=link)
    table = progress.failures_over_time(seen.failures, seen.trials)
    if table.empty:
        st.caption("It isn't known when they failed.")
        return
    st.altair_chart(timelines.failures(table), width="stretch")


def show(seen: State) -> None:
    st.set_page_config(page_title=page_title(seen.sweep.name, "Progress"))
    show_progress(seen)
    show_cost(seen)
    show_driver(seen)
    show_nodes(seen)
    show_failures(seen)
    st.header("Note")
    noting.edit(seen.sweep, SWEEP, read_notes(seen.sweep.path))


show(frame.begin("Progress"))
