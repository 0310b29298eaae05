"""Overview: the grid of architectures x interventions, and its weights."""

import pandas as pd
import streamlit as st

from dashboard import charts, frame, shape, source
from dashboard.address import choose_some
from sweep.results import cells
from sweep.results.state import State

PICTURES = 12
FILTERS = {"architecture": "Architecture", "intervention": "Intervention", "status": "Status", "data": "Data set"}


def choose_filters(trials: pd.DataFrame) -> dict[str, list[str]]:
    """What the reader wants to see: some values for each column of `FILTERS`, or none for all."""
    varied = [column for column in FILTERS if len(trials[column].unique()) > 1]
    wanted = {}
    for column, slot in zip(varied, st.columns(len(varied)) if varied else [], strict=True):
        with slot:
            wanted[column] = choose_some(FILTERS[column], trials[column].unique().tolist(), column)
    return wanted


def overview(seen: State, wanted: dict[str, list[str]]) -> None:
    show_counts(seen)
    last = shape.chosen(seen.trials, wanted)
    if last.empty:
        st.info("No trial matches the filters above.")
        return
    grid = shape.chosen(seen.cells(), {name: values for name, values in wanted.items() if name in cells.CELL})
    st.caption(
        "☰ horizontal · ☷ vertical · ○ none (the larger score) · ≠ not as expected · ✕ failed trials · ! failed "
        "analyses · over finished seeds · hover over a cell for details"
    )
    for _, part in grid.groupby("title", sort=False):
        st.subheader(f"Banding in the last convolution · {part['title'].iloc[0] or part['data'].iloc[0]}")
        st.altair_chart(charts.cell_chart(part), width="stretch", height=charts.cell_chart_height(part))
    show_excluded(grid)
    show_pictures(seen, last)


def show_counts(seen: State) -> None:
    for column, (state, number) in zip(st.columns(len(seen.counts)), seen.counts.items(), strict=True):
        column.metric(state.capitalize(), number)
    progress = seen.progress
    if progress.trials_done < progress.trials:
        share = progress.trials_done / progress.trials
        st.progress(share, f"{progress.trials_done} of {progress.trials} trials finished")


def show_excluded(grid: pd.DataFrame) -> None:
    excluded = grid[grid["outcome"] == "excluded"]
    if len(excluded):
        with st.expander(f"Cells left out because they make no sense: {len(excluded)}"):
            for cell in excluded.itertuples():
                st.markdown(f"**{cell.architecture} x {cell.intervention}**: {cell.reason}")


def show_pictures(seen: State, last: pd.DataFrame) -> None:
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
        layer = source.reduced_layer(seen, row["trial_id"], int(row["analysed_step"]), row["layer"])
        if layer is not None:
            with st.container(gap="xxsmall"):
                scores = f"{row['horizontal']:.2f} / {row['vertical']:.2f}"
                verdict = f"{cells.SYMBOLS[row['verdict']]} {row['verdict']} ({scores})"
                where = f"{row['architecture']} · {row['title']}" if row["title"] else row["architecture"]
                st.markdown(f"**{row['intervention']}** · seed {row['seed']} · {where} · {verdict}")
                st.image(source.strip(layer, neurons=24, columns=24, scale=7))


def page_of(length: int, size: int, name: str) -> slice:
    """The shown part of a long list; the reader chooses the page if there is more than one."""
    pages = -(-length // size)
    if pages <= 1:
        return slice(0, size)
    page = st.number_input(f"Page of {pages} ({length} {name})", 1, pages, key=f"page of {name}", width=220)
    return slice((page - 1) * size, page * size)


now = frame.begin("Weight banding")
overview(now, choose_filters(now.trials))
