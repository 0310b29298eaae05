"""Overview: the grid of architectures x interventions, its weights, and its trials."""

import time

import pandas as pd
import streamlit as st
from upath import UPath

from dashboard import charts, shape, source
from dashboard.address import choose_some
from sweep.results import cells
from sweep.store.lease import holder

PICTURES = 12
ROWS = 500
FILTERS = {"architecture": "Architecture", "intervention": "Intervention", "status": "Status", "data": "Data set"}


def choose_filters(trials: pd.DataFrame) -> dict[str, list[str]]:
    """What the reader wants to see: some values for each column of `FILTERS`, or none for all."""
    varied = [column for column in FILTERS if len(trials[column].unique()) > 1]
    wanted = {}
    for column, slot in zip(varied, st.columns(len(varied)) if varied else [], strict=True):
        with slot:
            wanted[column] = choose_some(FILTERS[column], trials[column].unique().tolist(), column)
    return wanted


@st.fragment(run_every=f"{source.REFRESH_S}s")
def overview(sweep: UPath, wanted: dict[str, list[str]]) -> None:
    """The part of the page that changes while a sweep runs."""
    trials = source.trials(sweep)
    if trials.empty:
        st.info("The sweep has just been launched; its first results appear here within seconds.")
        return
    show_driver(sweep)
    show_counts(trials)
    last = shape.chosen(source.last_convs(sweep), wanted)
    if last.empty:
        st.info("No trial matches the filters above.")
        return
    grid = cells.cells(last)
    st.caption(
        "☰ horizontal · ☷ vertical · ○ none (the larger score) · ≠ not as expected · ✕ failed trials · ! failed "
        "analyses · over finished seeds · hover over a cell for details"
    )
    for _, part in grid.groupby("title", sort=False):
        st.subheader(f"Banding in the last convolution · {part['title'].iloc[0] or part['data'].iloc[0]}")
        st.altair_chart(charts.cell_chart(part), width="stretch", height=charts.cell_chart_height(part))
    show_excluded(grid)
    show_pictures(sweep, last)
    show_trials(sweep, last)


def show_driver(sweep: UPath) -> None:
    """Whether a driver works on the sweep right now."""
    driver = holder(sweep)
    if driver is None:
        st.caption("No driver is working on this sweep.")
    else:
        st.caption(f"Driver: {driver.host}, process {driver.pid}, last heartbeat {shape.ago(driver.age_s)}")


def show_counts(trials: pd.DataFrame) -> None:
    numbers = cells.counts(trials)
    for column, (state, number) in zip(st.columns(len(numbers)), numbers.items(), strict=True):
        column.metric(state.capitalize(), number)
    runnable = len(trials) - numbers["excluded"]
    if runnable and numbers["finished"] < runnable:
        st.progress(numbers["finished"] / runnable, f"{numbers['finished']} of {runnable} trials finished")


def show_excluded(grid: pd.DataFrame) -> None:
    excluded = grid[grid["outcome"] == "excluded"]
    if len(excluded):
        with st.expander(f"Cells left out because they make no sense: {len(excluded)}"):
            for cell in excluded.itertuples():
                st.markdown(f"**{cell.architecture} x {cell.intervention}**: {cell.reason}")


def show_pictures(sweep: UPath, last: pd.DataFrame) -> None:
    analysed = last.dropna(subset="verdict").drop_duplicates(["title", "architecture", "intervention"])
    if analysed.empty:
        st.info("Nothing has been analysed yet; each trial's first checkpoint is analysed as soon as it is written.")
        return
    st.subheader("Weights of the last convolution")
    st.caption(
        "Each tile is one neuron's kernel, reduced by NMF to three colours, which are comparable only within a row. "
        "Neurons are sorted by similarity; 24 are shown, evenly spaced, for one seed of each cell."
    )
    shown = analysed.iloc[page_of(len(analysed), PICTURES, "pictures")]
    for row in shown.to_dict("records"):
        layer = source.reduced_layer(sweep, row["trial_id"], int(row["analysed_step"]), row["layer"])
        if layer is not None:
            with st.container(gap="xxsmall"):
                scores = f"{row['horizontal']:.2f} / {row['vertical']:.2f}"
                verdict = f"{cells.SYMBOLS[row['verdict']]} {row['verdict']} ({scores})"
                where = f"{row['architecture']} · {row['title']}" if row["title"] else row["architecture"]
                st.markdown(f"**{row['intervention']}** · seed {row['seed']} · {where} · {verdict}")
                st.image(source.strip(layer, neurons=24, columns=24, scale=7))


def show_trials(sweep: UPath, last: pd.DataFrame) -> None:
    st.subheader("Trials")
    st.caption("Tick a row to open its trial.")
    table = shape.trial_table(last, time.time())
    table = table.iloc[page_of(len(table), ROWS, "trials")]
    number = st.column_config.NumberColumn(format="%.2f", width="small")
    small = st.column_config.Column(width="small")
    event = st.dataframe(
        table,
        key="trials",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        placeholder="",
        column_config={
            "Seed": small,
            "Status": small,
            "Remark": st.column_config.TextColumn(width="medium"),
            "Epochs": small,
            "Accuracy": number,
            "Horizontal": number,
            "Vertical": number,
            "Attempts": small,
            "Last heartbeat": small,
        },
    )
    # The row number refers to the table that was on screen; the order may have changed since.
    on_screen = st.session_state.get("trials on screen", [])
    st.session_state["trials on screen"] = table["Trial"].tolist()
    if event.selection.rows and event.selection.rows[0] < len(on_screen):
        trial_id = on_screen[event.selection.rows[0]]
        st.switch_page("views/trial.py", query_params={"sweep": sweep.name, "trial": trial_id})


def page_of(length: int, size: int, name: str) -> slice:
    """The shown part of a long list; the reader chooses the page if there is more than one."""
    pages = -(-length // size)
    if pages <= 1:
        return slice(0, size)
    page = st.number_input(f"Page of {pages} ({length} {name})", 1, pages, key=f"page of {name}", width=220)
    return slice((page - 1) * size, page * size)


chosen = source.chosen_sweep()
st.title(f"Weight banding · {chosen.name}")
overview(chosen, choose_filters(source.table(chosen, "trials")))
