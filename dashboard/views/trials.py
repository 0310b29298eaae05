"""Trials: all of a sweep's, what failed first; filtered, grouped by error, and asked for again several at a time."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import streamlit as st

from dashboard import asking, frame, trials
from dashboard.paging import page_of
from dashboard.shape import may_be_retried
from dashboard.trials import NAMES, ORDERS, View
from dashboard.words import page_title, plain
from sweep.results.cells import STATES
from sweep.results.state import FILTERED, Failures, State
from sweep.results.words import count
from sweep.store.notes import Notes, read_notes
from sweep.store.requests import requested_trials

ROWS = 200  # of a page of the table
VISIBLE, HEADER_PX, ROW_PX = 20, 35, 35  # rows before it scrolls
GROUPS = 6  # kinds of failures that are always seen
COMPARED = 6
LABELS = {
    "status": "Status",
    "verdict": "Verdict",
    "architecture": "Architecture",
    "intervention": "Intervention",
    "data": "Data set",
    "recipe": "Recipe",
}
_REMEMBERED, _TICKED = "view of trials", "ticked trials"


def choose(seen: State) -> View:
    """What the address says is shown, or else what was chosen last; the widgets write into the address."""
    if not any(name in st.query_params for name in NAMES):
        st.query_params.update(st.session_state.get(_REMEMBERED, {}))
    asked = st.query_params.get("sort", View.sort)
    if asked not in ORDERS:
        st.warning(f"There is no order “{plain(asked)}”; the trials are in the usual one.")
    view = trials.read_view(st.query_params.get_all)
    st.session_state[_REMEMBERED] = view.address()
    search, sort, unexpected, starred = st.columns([4, 3, 2, 2], vertical_alignment="bottom")
    write = partial(st.text_input, "Search", placeholder="part of an id, error, reason or host", type="search")
    with search:
        widget("search", view.filters.search, write)
    with sort:
        widget("sort", view.sort, partial(st.selectbox, "Order", list(ORDERS), format_func=lambda o: ORDERS[o].words))
    with unexpected:
        widget("unexpected", view.filters.unexpected, partial(st.toggle, "Not as expected"))
    with starred:
        widget("starred", view.starred, partial(st.toggle, "Starred ★"))
    choose_values(seen, view)
    return view


def choose_values(seen: State, view: View) -> None:
    """A box for each filter that leaves a choice; what is asked for and not there stays, and is said."""
    missing = trials.unknown(seen, view.filters)
    options = {name: options_of(seen, name) + missing.get(name, []) for name in LABELS}
    offered = [name for name, values in options.items() if len(values) > 1 or getattr(view.filters, name)]
    for name, slot in zip(offered, st.columns(len(offered)) if offered else [], strict=True):
        with slot:
            box = partial(st.multiselect, LABELS[name], options[name], placeholder="all")
            widget(name, list(getattr(view.filters, name)), box)
    for name, values in missing.items():
        st.warning(f"No trial of this sweep has the {LABELS[name].lower()} {plain(', '.join(values))}.")


def options_of(seen: State, name: str) -> list[str]:
    values = seen.trials[FILTERED[name]].dropna().unique().tolist()
    return [state for state in STATES if state in values] if name == "status" else [value for value in values if value]


def widget(name: str, value: object, draw: Callable[..., object]) -> None:
    """A widget that shows a parameter of the address, and writes it."""
    key = f"chosen {name} of trials"
    st.session_state[key] = value
    draw(key=key, on_change=take, args=(name, key))


def take(name: str, key: str) -> None:
    """Write a choice into the address; the view begins at its first page again."""
    chosen = st.session_state[key]
    said = ["1"] if chosen is True else [str(chosen)] if isinstance(chosen, str) else list(chosen or [])
    put(name, [text for text in said if text])


def put(name: str, values: Sequence[str]) -> None:
    for gone in (name, "page"):
        st.query_params.pop(gone, None)
    if values and values != [View.sort]:
        st.query_params[name] = list(values)
    if not any(other in st.query_params for other in NAMES):
        st.session_state.pop(_REMEMBERED, None)


def show_failures(seen: State, view: View) -> None:
    """The failed trials by what they failed of; a click shows those of one kind."""
    known = {trials.failure_name(failures) for failures in seen.failures}
    if view.failure:
        if view.failure not in known:
            st.warning(f"No trial has failed like this any more: {plain(view.failure)}")
        st.button("Show other trials too", key="all failures", on_click=put, args=("failure", ()))
        return
    if not seen.failures:
        return
    st.header("Failures")
    show_groups(seen.failures[:GROUPS])
    if further := seen.failures[GROUPS:]:
        part = st.expander(f"{count(len(further), 'more kind')} of failures", key="more failures", on_change="rerun")
        if part.open:
            with part:
                show_groups(further[:100])


def show_groups(groups: Sequence[Failures]) -> None:
    for failures in groups:
        name = trials.failure_name(failures)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(plain(failures.title), key=f"failure {name}", on_click=put, args=("failure", [name]))
            where = f" · on {', '.join(failures.hosts[:3])}" if failures.hosts else ""
            st.caption(plain(f"{failures.error[:200]}{where}"), width="stretch")


def show_table(seen: State, found: pd.DataFrame, view: View, notes: Notes) -> list[str]:
    """One page of the trials; returns the ids of those that are ticked."""
    pages = max(1, -(-len(found) // ROWS))
    page = page_of(pages, "page", f"of {pages} ({len(found):,} trials)")
    rows = found.iloc[(page - 1) * ROWS : page * ROWS]
    ids = rows["trial_id"].tolist()
    links = [trials.trial_link(seen.sweep.name, trial_id, view) for trial_id in ids]
    asked = requested_trials(seen.sweep.path)
    if asked:
        who = "the driver" if seen.driver is not None else f"`sweep resume {plain(str(seen.sweep.path))}`"
        st.caption(f"{count(len(asked), 'request')} {'waits' if len(asked) == 1 else 'wait'} for {who}.")
    before = set(st.session_state.get(_TICKED, []))
    number = st.column_config.NumberColumn(format="%.2f", width="small")
    event = st.dataframe(
        trials.trial_table(rows, time.time(), links, notes, set(asked)),
        height=HEADER_PX + ROW_PX * min(len(ids), VISIBLE) + 2,
        key=trials.key_of(ids),
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [row for row, key in enumerate(ids) if key in before]}},
        placeholder="",
        alt="The trials; each row begins with a link to its page",
        column_config={
            "Trial": st.column_config.LinkColumn(display_text=r"[?&]trial=([^&]*)", width="medium", alignment="left"),
            "Remark": st.column_config.TextColumn(width="medium"),
            "Horizontal": number,
            "Vertical": number,
            "Accuracy": number,
        },
    )
    ticked = [ids[row] for row in event["selection"]["rows"] if row < len(ids)]
    st.session_state[_TICKED] = ticked
    return ticked


def act(seen: State, found: pd.DataFrame, ticked: Sequence[str]) -> None:
    """What can be done with the trials that are ticked."""
    if not ticked:
        st.caption("Tick trials to run them again, stop or compare them.")
        return
    rows = found[found["trial_id"].isin(ticked)]
    again = rows.loc[[may_be_retried(row) for _, row in rows.iterrows()], "trial_id"].tolist()
    going = rows.loc[rows["status"].isin(["running", "pending"]), "trial_id"].tolist() if seen.driver else []
    st.header(f"{count(len(ticked), 'trial')} ticked")
    with st.container(horizontal=True):
        button(seen, "Retry", again, "checkpoint", "Run what failed or was cut off again, from its last checkpoint.")
        button(seen, "Retry from scratch", again, "scratch", "Run what failed or was cut off again, from scratch.")
        button(seen, "Stop", going, "stop", "What runs saves and stops; what waits does not start. Others go on.")
        st.link_button(
            "Compare",
            trials.compare_link(seen.sweep.name, ticked[:COMPARED]),
            disabled=not 2 <= len(ticked) <= COMPARED,
            help=f"Two to {COMPARED} trials beside each other, in a new tab.",
        )
    with st.expander("The same by command", key="command", on_change="rerun") as part:
        if part.open:
            st.code(asking.resume_command(seen.sweep.path, ticked), language="shell", wrap_lines=True)


def button(seen: State, label: str, trial_ids: list[str], action: asking.Action, what: str) -> None:
    words = f"{label} ({len(trial_ids)})" if trial_ids else label
    arguments = (seen, trial_ids, action)
    st.button(words, key=f"{action} ticked", help=what, disabled=not trial_ids, on_click=ask, args=arguments)


def ask(seen: State, trial_ids: list[str], action: asking.Action) -> None:
    wrong = asking.ask(seen.sweep.path, trial_ids, action)
    for said in wrong[:5]:
        st.error(f"A request could not be written: {plain(said)}")
    if not wrong:
        st.toast(f"Requested for {count(len(trial_ids), 'trial')}.")


def show(seen: State) -> None:
    st.set_page_config(page_title=page_title(seen.sweep.name, "Trials"))
    notes = read_notes(seen.sweep.path)
    for said in notes.damaged[:3]:
        st.warning(plain(said))
    view = choose(seen)
    show_failures(seen, view)
    found = trials.shown(seen, view, notes)
    st.header(f"{count(len(found), 'trial')} of {len(seen.trials):,}" if view.address() else "All trials")
    if found.empty:
        st.info("No trial matches what is chosen above.")
        return
    act(seen, found, show_table(seen, found, view, notes))


show(frame.begin("Trials"))
