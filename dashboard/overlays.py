"""Charts that lay several trials over each other: a colour for each trial, a dash for what else differs."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from analysis.banding import THRESHOLD
from dashboard.theme import GRAPHICS

PALETTE = (*GRAPHICS.values(), "#A6761D", "#7F7F7F")
"""One for each trial; all stand out from both backgrounds, by a contrast of 3 or more."""
_SOLID, _DASHED = [1, 0], [5, 3]


def scores(values: pd.DataFrame, names: Sequence[str]) -> alt.LayerChart:
    """Trajectories of banding scores (`dashboard.compare.trajectories`) with their 95% intervals."""
    base = alt.Chart(values).encode(
        x=_epochs(), color=_trials(names), strokeDash=_dashes("direction", ["horizontal", "vertical"])
    )
    y = alt.Y("score:Q", title="Banding score", scale=alt.Scale(domain=[-0.3, 1]))
    bands = base.mark_area(opacity=0.12).encode(
        y=alt.Y("low:Q", title="Banding score"), y2="high:Q", detail="direction:N"
    )
    tooltip = ["trial", "layer", "epoch", "direction", alt.Tooltip("score", format=".3f")]
    lines = base.mark_line(point=True).encode(y=y, tooltip=tooltip)
    rule = (
        alt.Chart(pd.DataFrame({"y": [THRESHOLD]}))
        .mark_rule(strokeDash=[2, 3], color="#888888", aria=False)
        .encode(y="y:Q")
    )
    return (bands + lines + rule).properties(
        height=360, description=f"Banding scores over epochs of {', '.join(names)}"
    )


def curves(values: pd.DataFrame, names: Sequence[str], title: str) -> alt.Chart:
    """Curves of loss or accuracy (`dashboard.compare.curves`)."""
    return (
        alt.Chart(values)
        .mark_line(point=True)
        .encode(
            x=_epochs(),
            y=alt.Y("value:Q", title=title),
            color=_trials(names),
            strokeDash=_dashes("images", ["validation", "training"]),
            tooltip=["trial", "images", "epoch", alt.Tooltip("value", format=".4f")],
        )
        .properties(height=300, description=f"{title} over epochs of {', '.join(names)}")
    )


def _epochs() -> alt.X:
    return alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d"))


def _trials(names: Sequence[str]) -> alt.Color:
    legend = alt.Legend(orient="top", direction="vertical", offset=4, padding=0, labelLimit=320, symbolOpacity=1)
    scale = alt.Scale(domain=list(names), range=list(PALETTE[: len(names)]))
    return alt.Color("trial:N", title=None, scale=scale, legend=legend)


def _dashes(column: str, values: Sequence[str]) -> alt.StrokeDash:
    """The first value is drawn solid, the second dashed."""
    legend = alt.Legend(
        orient="top", direction="vertical", offset=4, padding=0, symbolType="stroke", symbolSize=400,
        symbolFillColor="transparent",
    )  # fmt: skip
    scale = alt.Scale(domain=list(values), range=[_SOLID, _DASHED])
    return alt.StrokeDash(f"{column}:N", title=None, scale=scale, legend=legend)
