"""Over seeds: mean and spread of each cell's scores, and what an intervention changes relative to its baseline."""

import pandas as pd
import streamlit as st

from dashboard import charts, frame, shape
from dashboard.address import choose_one
from sweep.results.state import State
from sweep.results.statistics import CONDITION, condition_titles


def titled(rows: pd.DataFrame, seen: State) -> pd.DataFrame:
    """Rows with the words that tell their data set and recipe from the sweep's others."""
    titles = condition_titles(seen.trials)
    keys = rows[list(CONDITION[:3])].itertuples(index=False, name=None)
    return rows.assign(title=[titles[key] for key in keys])


def show_means(seen: State) -> None:
    st.subheader("Scores of finished trials")
    st.caption("Mean ± standard deviation over seeds, at the last step.")
    st.dataframe(shape.seed_table(titled(seen.over_seeds, seen)), hide_index=True)


def show_differences(seen: State) -> None:
    differences = seen.differences
    st.subheader("Difference from the baseline")
    if differences.empty:
        st.info("Nothing can be compared yet: a pair needs a finished baseline and a finished trial of the same seed.")
        return
    st.caption(
        "Trials are paired by seed. Bars are 95% intervals of the mean (Student's t), each for itself; p is corrected "
        "for all differences in the sweep (Holm). A single pair has neither."
    )
    positions = sorted(differences["position"].unique())
    names = {f"last conv - {position - 1}" if position > 1 else "last conv": position for position in positions}
    chosen = names[choose_one("Layer", list(names), "layer")]
    of_layer = titled(differences[differences["position"] == chosen], seen)
    for (title, _, architecture), part in of_layer.groupby(["title", "data_key", "architecture"], sort=False):
        st.markdown(f"**{architecture}** · {title or part['data'].iloc[0]}")
        st.altair_chart(charts.differences(part), width="stretch")
        st.dataframe(shape.difference_table(part), hide_index=True)


now = frame.begin("Over seeds")
if now.scored.empty:
    st.info("No trial is finished and analysed yet; this page shows its scores once one is.")
else:
    show_means(now)
    show_differences(now)
