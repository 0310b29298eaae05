"""Charts of the dashboard."""

import altair as alt
import pandas as pd

from analysis.banding import THRESHOLD
from sweep.results.cells import COLOURS

ROOMY, CROWDED = 4, 10
"""Up to this many architectures, a cell has room for the spread over seeds, and for any number at all."""
_DRAWN = (
    "architecture", "intervention", "outcome", "expected", "score", "direction", "spread", "agreement", "state",
    "reason", "label", "brief", "sign",
)  # fmt: skip
_LIGHT = ["none", "unscored", "excluded", "waiting", "running"]


CLICKED = "cell"
"""The name of what a click on the grid chooses: an architecture and an intervention."""


def cell_chart(cells: pd.DataFrame) -> alt.LayerChart:
    """Interventions x architectures; the colour is the verdict, the text the score; a click chooses a cell."""
    cells = cells[list(_DRAWN)]
    columns = cells["architecture"].nunique()
    roomy = columns <= ROOMY
    base = alt.Chart(cells).encode(
        x=alt.X(
            "architecture:N",
            title=None,
            sort=None,
            axis=alt.Axis(
                orient="top", labelAngle=0 if roomy else -40, labelLimit=220, labelFontSize=12, labelOverlap=False
            ),
        ),
        y=alt.Y("intervention:N", title=None, sort=None, axis=alt.Axis(labelLimit=220, labelFontSize=12)),
        tooltip=[
            alt.Tooltip("architecture:N", title="Architecture"),
            alt.Tooltip("intervention:N", title="Intervention"),
            alt.Tooltip("outcome:N", title="Verdict"),
            alt.Tooltip("expected:N", title="Expected"),
            alt.Tooltip("score:Q", title="Score", format=".3f"),
            alt.Tooltip("direction:N", title="of"),
            alt.Tooltip("spread:Q", title="Spread over seeds", format=".3f"),
            alt.Tooltip("agreement:N", title="Seeds that share the verdict"),
            alt.Tooltip("state:N", title="Trials"),
            alt.Tooltip("reason:N", title="Remark"),
        ],
    )
    colour = alt.Color(
        "outcome:N",
        title=None,
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=None,  # the words of the cells say the same
    )
    text_colour = alt.condition(alt.FieldOneOfPredicate("outcome", _LIGHT), alt.value("#222222"), alt.value("white"))
    clicked = alt.selection_point(name=CLICKED, fields=["architecture", "intervention"])
    boxes = base.mark_rect(cornerRadius=5, cursor="pointer", xOffset=1, yOffset=1).encode(color=colour)
    boxes = boxes.add_params(clicked)
    words = base.mark_text(fontSize=14 if roomy else 12).encode(
        text="label:N" if roomy else "brief:N" if columns <= CROWDED else "sign:N", color=text_colour
    )
    return boxes + words


def cell_chart_height(cells: pd.DataFrame) -> int:
    """The height of the grid in pixels: a row for each intervention, and the axis."""
    rows = int(cells["intervention"].nunique())
    return (44 if rows <= 2 * ROOMY else 28) * rows + (40 if cells["architecture"].nunique() <= ROOMY else 100)


def trajectory(scores: pd.DataFrame) -> alt.LayerChart:
    """Horizontal and vertical scores of each layer over training, with 95% intervals and the threshold of a verdict."""
    colour = alt.Color(
        "direction:N",
        title=None,
        scale=alt.Scale(domain=["horizontal", "vertical"], range=[COLOURS["horizontal"], COLOURS["vertical"]]),
        legend=alt.Legend(orient="top", offset=4, padding=0, symbolOpacity=1),
    )
    layer = alt.Legend(
        orient="top",
        offset=4,
        padding=0,
        direction="vertical",
        symbolType="stroke",
        symbolSize=400,
        symbolFillColor="transparent",
    )
    x = alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d"))
    base = alt.Chart(scores).encode(x=x, strokeDash=alt.StrokeDash("layer:N", title=None, legend=layer))
    bands = base.mark_area(opacity=0.2).encode(
        y=alt.Y("low:Q", title="Banding score", scale=alt.Scale(domain=[-0.3, 1])), y2="high:Q", color=colour,
        detail="layer:N",
    )  # fmt: skip
    lines = base.mark_line(point=True).encode(
        y="score:Q", color=colour, tooltip=["layer", "epoch", "direction", "score"]
    )
    rule = (
        alt.Chart(pd.DataFrame({"y": [THRESHOLD]}))
        .mark_rule(strokeDash=[2, 3], color="#888888", aria=False)
        .encode(y="y:Q")
    )
    return (bands + lines + rule).properties(height=320)


def differences(values: pd.DataFrame) -> alt.LayerChart:
    """Mean differences from the baseline with their intervals, a row for each intervention and quantity."""
    told = values["quantity"].drop_duplicates().tolist()
    base = alt.Chart(values).encode(
        y=alt.Y("intervention:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)),
        yOffset=alt.YOffset("quantity:N"),
        color=alt.Color(
            "quantity:N",
            title=None,
            scale=alt.Scale(domain=told, range=[COLOURS.get(name, COLOURS["none"]) for name in told]),
            legend=alt.Legend(orient="top", offset=4, padding=0),
        ),
        tooltip=[
            "intervention",
            "quantity",
            "n",
            "n_baseline",
            *(alt.Tooltip(name, format=".3f") for name in ("difference", "low", "high")),
        ],
    )
    x = alt.X("difference:Q", title="Minus the baseline's")
    bars = base.transform_filter("datum.low != null").mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q")
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color="#888888", strokeDash=[2, 3], aria=False).encode(x="x:Q")
    rows = int(values["intervention"].nunique())
    return (zero + bars + base.mark_point(filled=True, size=60).encode(x=x)).properties(height=44 * rows + 110)


def curve(values: pd.DataFrame, title: str) -> alt.Chart:
    """Training and validation curves over epochs."""
    return (
        alt.Chart(values)
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=title),
            color=alt.Color(
                "images:N",
                title=None,
                scale=alt.Scale(domain=["training", "validation"], range=["#999999", "#009E73"]),
                legend=alt.Legend(orient="top", offset=4, padding=0),
            ),
            tooltip=["images", "epoch", alt.Tooltip("value", format=".4f")],
        )
        .properties(height=260)
    )


def neurons(scores: pd.DataFrame) -> alt.Chart:
    """How the scores of a layer's neurons are distributed."""
    long = scores.melt(value_vars=["horizontal", "vertical"], var_name="direction", value_name="score")
    return (
        alt.Chart(long)
        .mark_bar(opacity=0.7)
        .encode(
            x=alt.X("score:Q", bin=alt.Bin(step=0.1), title="Score of a neuron"),
            y=alt.Y("count():Q", title="Neurons", stack=None),
            color=alt.Color(
                "direction:N",
                title=None,
                scale=alt.Scale(domain=["horizontal", "vertical"], range=[COLOURS["horizontal"], COLOURS["vertical"]]),
                legend=alt.Legend(orient="top", offset=4, padding=0, direction="vertical"),
            ),
        )
        .properties(height=260)
    )
