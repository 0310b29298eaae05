"""Overview: the grid of architectures x interventions, and its weights."""

import pandas as pd
import streamlit as st

from dashboard import charts, frame, grids, shape, source
from dashboard.address import choose_one, choose_some
from dashboard.paging import page_of
from dashboard.words import page_title, plain
from sweep.results.cells import CELL, SYMBOLS
from sweep.results.state import State
from sweep.store.notes import SWEEP, read_notes

PICTURES = 12
FILTERS = {"architecture": "Architecture", "intervention": "Intervention", "data": "Data set"}
LEGEND = (
    "☰ horizontal · ☷ vertical · ○ none (the larger score) · ≠ not as expected · ✕ failed trials · ! failed "
    "analyses · over finished seeds, ± their standard deviation · a click on a cell shows its weights"
)


def show_links(seen: State) -> None:
    """Counts, each a link to the trials or findings that are counted."""
    with st.container(horizontal=True, gap="medium"):
        for state, number in seen.counts.items():
            link("trials", f"**{number:,}** {state}", seen, status=state)
        unexpected = int(seen.trials["unexpected"].sum())
        link("trials", f"**{unexpected:,}** not as expected in the last conv", seen, unexpected="1")
        if seen.agreement.expected:
            link("article", f"**{seen.agreement.found} of {seen.agreement.expected}** findings as expected", seen)
    progress = seen.progress
    if progress.trials_done < progress.trials:
        share = progress.trials_done / progress.trials
        st.progress(share, f"{progress.trials_done} of {progress.trials} trials finished")


def link(page: str, label: str, seen: State, **choices: str) -> None:
    st.page_link(f"views/{page}.py", label=label, query_params={"sweep": seen.sweep.name} | choices)


def choose_filters(trials: pd.DataFrame) -> dict[str, list[str]]:
    """What the reader wants to see: some values for each column of `FILTERS`, or none for all."""
    varied = [column for column in FILTERS if len(trials[column].unique()) > 1]
    wanted = {}
    for column, slot in zip(varied, st.columns(len(varied)) if varied else [], strict=True):
        with slot:
            wanted[column] = choose_some(FILTERS[column], trials[column].unique().tolist(), column)
    return wanted


def choose_position(seen: State) -> int:
    """Which of the convs is looked at: 1 is the last one."""
    names = {grids.position_name(position): position for position in seen.positions} or {grids.position_name(1): 1}
    return names[choose_one("Layer", list(names), "layer")] if len(names) > 1 else next(iter(names.values()))


def show_grid(seen: State, wanted: dict[str, list[str]], position: int) -> None:
    found = shape.chosen(seen.cells(position), {name: values for name, values in wanted.items() if name in CELL})
    if found.empty:
        st.info("No cell matches the filters above.")
        return
    st.caption(LEGEND)
    for number, (title, every) in enumerate(found.groupby("title", sort=False)):
        st.subheader(f"Banding in the {grids.position_name(position)} · {plain(str(title or every['data'].iloc[0]))}")
        parts = grids.parts(every)
        part = parts[page_of(len(parts), "grid", f"part of {len(parts)}, by architecture") - 1]
        show_chart(seen, part, f"{number}-{position}", position)
        with st.expander("The same as a table", key=f"table {number}", on_change="rerun") as table:
            if table.open:
                st.dataframe(
                    grids.cell_table(part, seen.sweep.name, position),
                    hide_index=True,
                    column_config={"Weights": st.column_config.LinkColumn(display_text="weights")},
                )
    show_excluded(found)


def show_chart(seen: State, part: pd.DataFrame, name: str, position: int) -> None:
    """The heatmap; a click on a cell leads to its weights, and leaves nothing chosen for the way back."""
    visits = st.session_state.get("visits from the grid", 0)
    clicked = st.altair_chart(
        charts.cell_chart(part),
        width="stretch",
        height=charts.cell_chart_height(part),
        key=f"grid {name} {visits}",
        on_select="rerun",
        selection_mode=[charts.CLICKED],
        alt=grids.in_words(part, position),
    )
    if cell := grids.clicked_cell(part, clicked["selection"].get(charts.CLICKED)):
        st.session_state["visits from the grid"] = visits + 1
        chosen = {"sweep": seen.sweep.name, "show": grids.shown(cell)}
        st.switch_page("views/weights.py", query_params=chosen)


def show_excluded(found: pd.DataFrame) -> None:
    excluded = found[found["outcome"] == "excluded"]
    if len(excluded):
        with st.expander(f"Cells left out because they make no sense: {len(excluded)}"):
            for cell in excluded.head(100).to_dict("records"):
                st.markdown(
                    f"**{plain(cell['architecture'])} x {plain(cell['intervention'])}**: {plain(str(cell['reason']))}"
                )


def show_pictures(seen: State, wanted: dict[str, list[str]], position: int) -> None:
    analysed = grids.pictured(seen, wanted, position)
    if analysed.empty:
        st.info("Nothing has been analysed yet; each trial's first checkpoint is analysed as soon as it is written.")
        return
    st.subheader(f"Weights of the {grids.position_name(position)}")
    st.caption(
        "Each tile is one neuron's kernel, reduced by NMF to three colours, which are comparable only within a row. "
        "Neurons are sorted by similarity; 24 are shown, evenly spaced, for one seed of each cell."
    )
    pages = -(-len(analysed) // PICTURES)
    page = page_of(pages, "page", f"of {pages} ({len(analysed):,} pictures)")
    for row in analysed.iloc[(page - 1) * PICTURES : page * PICTURES].to_dict("records"):
        layer = source.reduced_layer(seen, row["trial_id"], int(row["analysed_step"]), row["layer"])
        if layer is None:
            st.caption(
                f"{plain(row['trial_id'])}: its picture can't be read; `sweep analyze` of the sweep makes it anew."
            )
            continue
        with st.container(gap="xxsmall"):
            where = " · ".join(filter(None, (row["architecture"], row["title"])))
            verdict = f"{SYMBOLS[row['verdict']]} {row['verdict']} ({grids.scores(row)})"
            label = f"**{plain(row['intervention'])}** · seed {row['seed']} · {plain(where)} · {verdict}"
            link("weights", label, seen, show=grids.shown(row))
            picture = source.strip(layer, neurons=24, columns=24, scale=7)
            st.image(picture, output_format="PNG", alt=f"24 neurons of {row['trial_id']}: {row['verdict']}")


def show(seen: State) -> None:
    st.set_page_config(page_title=page_title(seen.sweep.name, "Overview"))
    show_links(seen)
    note = read_notes(seen.sweep.path).get(SWEEP)
    if note is not None and (note.text or note.star):
        st.caption(f"{'★ ' if note.star else ''}{plain(note.text)}")
    wanted = choose_filters(seen.trials)
    position = choose_position(seen)
    show_grid(seen, wanted, position)
    show_pictures(seen, wanted, position)


show(frame.begin("Weight banding"))
