"""Over seeds: mean and spread of each cell's scores, and what an intervention changes relative to its baseline."""

import pandas as pd
import streamlit as st

from dashboard import charts, frame, grids, shape
from dashboard.address import choose_one
from dashboard.words import page_title, plain
from sweep.results.state import State
from sweep.results.statistics import CONDITION, condition_titles


def titled(rows: pd.DataFrame, seen: State) -> pd.DataFrame:
    """Rows with the words that tell their data set and recipe from the sweep's others."""
    titles = condition_titles(seen.trials)
    keys = rows[list(CONDITION[:3])].itertuples(index=False, name=None)
    return rows.assign(title=[titles[key] for key in keys])


def show_means(rows: pd.DataFrame) -> None:
    st.subheader("Scores of finished trials")
    st.caption("Mean ± standard deviation over seeds, at the last step.")
    st.dataframe(shape.seed_table(rows), hide_index=True)


def show_differences(differences: pd.DataFrame, architecture: str) -> None:
    st.subheader("Difference from the baseline")
    if differences.empty:
        st.info("Nothing can be compared yet: that needs a finished baseline and a finished trial beside it.")
        return
    st.caption(
        "The comparison that each intervention's plan named before it ran: the last conv's score in one direction. "
        "Bars are 95% intervals (Student's t) with the spread between seeds pooled over all cells; p is corrected for "
        "all interventions in the sweep (Holm). Where no cell has two seeds, there is neither."
    )
    show_parts(differences[differences["primary"]], architecture)
    st.subheader("Exploration")
    st.caption("Other layers, the other direction and the accuracy: nothing is tested, each interval is for itself.")
    rest = differences[~differences["primary"]]
    names = {grids.position_name(position): position for position in sorted(rest["position"].unique())}
    chosen = names[choose_one("Layer", list(names), "layer")]
    show_parts(rest[rest["position"] == chosen], architecture)


def show_parts(differences: pd.DataFrame, architecture: str) -> None:
    """A chart and a table for each data set and recipe."""
    for (title, _), part in differences.groupby(["title", "data_key"], sort=False):
        st.markdown(f"**{plain(architecture)}** · {plain(str(title or part['data'].iloc[0]))}")
        st.altair_chart(charts.differences(part), width="stretch", alt="Differences from the baseline with intervals")
        st.dataframe(shape.difference_table(part), hide_index=True)


def show(seen: State) -> None:
    st.set_page_config(page_title=page_title(seen.sweep.name, "Seeds"))
    if seen.scored.empty:
        st.info("No trial is finished and analysed yet; this page shows its scores once one is.")
        return
    architectures = seen.over_seeds["architecture"].unique().tolist()
    architecture = (
        choose_one("Architecture", architectures, "architecture") if len(architectures) > 1 else architectures[0]
    )
    summary, differences = (
        titled(table[table["architecture"] == architecture], seen) for table in (seen.over_seeds, seen.contrasts)
    )
    show_means(summary)
    show_differences(differences, architecture)


show(frame.begin("Over seeds"))
