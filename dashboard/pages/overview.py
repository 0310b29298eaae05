"""Overview: the grid of architectures x interventions, its weights, and its trials."""

import pandas as pd
import streamlit as st
from upath import UPath

from dashboard import charts, shape, source

PICTURES = 12


@st.fragment(run_every=f"{source.REFRESH_S}s")
def overview(sweep: UPath) -> None:
    """All of the page that changes while a sweep runs."""
    trials = source.table(sweep, "trials")
    if trials.empty:
        st.info("The sweep has just been launched; its first results appear here within seconds.")
        return
    show_counts(trials)
    last = shape.last_convs(trials, source.table(sweep, "layers"))
    cells = shape.cells(last)
    for data, part in cells.groupby("data", sort=False):
        st.subheader(f"Banding in the last convolution · data set {data}")
        st.altair_chart(charts.grid(part), width="stretch", height=charts.grid_height(part))
    show_excluded(cells)
    show_pictures(sweep, last)
    show_trials(sweep, last)


def show_counts(trials: pd.DataFrame) -> None:
    numbers = shape.counts(trials)
    for column, (state, number) in zip(st.columns(len(numbers)), numbers.items(), strict=True):
        column.metric(state.capitalize(), number)
    runnable = len(trials) - numbers["excluded"]
    if runnable and numbers["finished"] < runnable:
        st.progress(numbers["finished"] / runnable, f"{numbers['finished']} of {runnable} trials finished")


def show_excluded(cells: pd.DataFrame) -> None:
    excluded = cells[cells["outcome"] == "excluded"]
    if len(excluded):
        with st.expander(f"{len(excluded)} cells without meaning are left out"):
            for cell in excluded.itertuples():
                st.markdown(f"**{cell.architecture} x {cell.intervention}**: {cell.reason}")


def show_pictures(sweep: UPath, last: pd.DataFrame) -> None:
    analysed = last.dropna(subset="verdict").drop_duplicates(["data", "architecture", "intervention"])
    if analysed.empty:
        st.info("Nothing is analysed yet; each trial's first checkpoint is analysed as soon as it is written.")
        return
    st.subheader("Weights of the last convolution")
    st.caption("Each tile is one neuron's kernel, reduced by NMF to three colours; neurons are sorted by similarity.")
    pages = -(-len(analysed) // PICTURES)
    page = st.number_input(f"Page (of {pages})", 1, pages) if pages > 1 else 1
    for row in analysed.iloc[(page - 1) * PICTURES : page * PICTURES].to_dict("records"):
        layer = source.reduced_layer(sweep, row["trial_id"], int(row["analysed_step"]), row["layer"])
        left, right = st.columns([1, 4], vertical_alignment="center")
        left.markdown(
            f"**{row['intervention']}**  \n{row['architecture']} · {shape.SYMBOLS[row['verdict']]} {row['verdict']}"
        )
        if layer is not None:
            right.image(source.strip(layer, neurons=24, columns=24, scale=7))


def show_trials(sweep: UPath, last: pd.DataFrame) -> None:
    st.subheader("Trials")
    st.caption("Select a row to open the trial.")
    table = shape.trial_table(last)
    number = st.column_config.NumberColumn(format="%.2f")
    event = st.dataframe(
        table,
        key="trials",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_config={"Accuracy": number, "Horizontal": number, "Vertical": number},
    )
    if event.selection.rows:
        trial_id = table["Trial"].iloc[event.selection.rows[0]]
        st.switch_page("pages/trial.py", query_params={"sweep": sweep.name, "trial": trial_id})


chosen = source.chosen_sweep()
st.title(f"Weight banding · {chosen.name}")
overview(chosen)
