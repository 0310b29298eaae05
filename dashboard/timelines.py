"""Charts over the hours and days of a sweep: a trial's attempts, and what has failed."""

import altair as alt
import pandas as pd

from dashboard.progress import KINDS, OTHERS
from dashboard.theme import GRAPHICS

_GREY = "#808080"
OUTCOME_COLOURS = {
    "finished": GRAPHICS["green"], "running": GRAPHICS["blue"], "stopped": GRAPHICS["purple"],
    "failed": GRAPHICS["vermillion"], "superseded": _GREY, "cut off": _GREY,
}  # fmt: skip


def attempts(table: pd.DataFrame) -> alt.Chart:
    """A bar from beginning to end for each attempt (`dashboard.trial.attempt_table`), in UTC."""
    colour = alt.Color(
        "Outcome:N",
        title=None,
        scale=alt.Scale(domain=list(OUTCOME_COLOURS), range=list(OUTCOME_COLOURS.values())),
        legend=None,  # the table below says the same
    )
    return (
        alt.Chart(table)
        .mark_bar(height=14, cornerRadius=3, minBandSize=3)
        .encode(
            x=alt.X("Began:T", title="UTC", axis=alt.Axis(labelOverlap=True)),
            x2="Ended:T",
            y=alt.Y("Attempt:O", title="Attempt"),
            color=colour,
            tooltip=["Attempt", "Outcome", "Lasted", "Host", "Last epoch", "Error"],
        )
        .properties(height=26 * len(table) + 50)
    )


def failures(table: pd.DataFrame) -> alt.Chart:
    """How many trials had failed by when, a stepped line for each kind (`dashboard.progress.failures_over_time`)."""
    kinds = [kind for kind in table["kind"].drop_duplicates() if kind != OTHERS]
    colours = dict(zip(kinds, [*GRAPHICS.values()][:KINDS], strict=False)) | {OTHERS: _GREY}
    told = [kind for kind in colours if kind in set(table["kind"])]
    return (
        alt.Chart(table)
        .mark_line(interpolate="step-after", point=True)
        .encode(
            x=alt.X("at:T", title="UTC"),
            y=alt.Y("failed:Q", title="Failed trials", axis=alt.Axis(tickMinStep=1, format="d")),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=told, range=[colours[kind] for kind in told]),
                legend=alt.Legend(orient="top", offset=4, padding=0, direction="vertical", labelLimit=320),
            ),
            tooltip=[alt.Tooltip("kind:N", title="Failure"), alt.Tooltip("at:T", title="At"), "failed:Q"],
        )
        .properties(height=240)
    )
