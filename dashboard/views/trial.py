"""One trial: what it is, how it went, what its weights look like, and its error, if any."""

import time

import pandas as pd
import streamlit as st
from upath import UPath

from dashboard import charts, frame, shape, source
from dashboard.address import choose_one
from sweep.results.cells import SYMBOLS
from sweep.results.state import State
from sweep.store.requests import Start, pending_request, request_retry
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import read_error, read_log, read_spec

LISTED = 500  # trials in the box; all of 100,000 would go to the browser each time
STARTS: dict[Start, str] = {"checkpoint": "its last checkpoint", "scratch": "scratch"}


def choose(trials: pd.DataFrame) -> str:
    """The address's trial (`?trial=`), or one chosen in the sidebar; long lists are searched by part of the id."""
    names = trials["trial_id"].tolist()
    with st.sidebar:
        if len(names) > LISTED:
            part = st.text_input("Find a trial", placeholder="part of its id", key="part").strip()
            shown = shape.narrowed(names, part, LISTED, keep=st.query_params.get("trial"))
            st.caption(f"{len(shown):,} of {len(names):,} trials are listed.")
            names = shown
        words = dict(zip(trials["trial_id"], shape.trial_names(trials), strict=True))
        return choose_one("Trial", names, "trial", words.__getitem__)


def show(seen: State, trial_id: str) -> None:
    trial = seen.trials[seen.trials["trial_id"] == trial_id].iloc[0]
    show_header(trial)
    show_trouble(seen.sweep, trial)
    if trial["status"] != "excluded":
        show_trajectory(seen, trial_id)
    show_recipe(seen.sweep, trial)
    log = read_log(seen.sweep.trial(trial_id))
    if log is not None:
        with st.expander("Log"):
            st.code(log, language=None)


def show_header(trial: pd.Series) -> None:
    st.title(f"{trial['architecture']} · {trial['intervention']}")
    at = trial["heartbeat_at"]
    sign = "" if pd.isna(at) else f" · last heartbeat {shape.ago(time.time() - at)}"
    st.caption(
        f"{trial['trial_id']} · seed {trial['seed']} · data set {trial['data']} · host {text(trial['host'])}{sign}"
    )
    epochs = 0 if trial["intervention"] == "untrained" else trial["epochs"]
    facts = {
        "Status": str(trial["status"]).capitalize(),
        "Epochs": f"{number(trial['epoch'], '.0f')} of {epochs}",
        "Validation accuracy": number(trial["val_accuracy"], ".3f"),
        "Parameters": number(trial["parameters"], ",.0f"),
        "Training time": f"{number(trial['wall_s'], '.0f')} s",
        "Attempts": number(trial["attempts"], ".0f"),
    }
    with st.container(horizontal=True, gap="medium"):
        for name, value in facts.items():
            st.metric(name, value, width="content")


def show_trouble(sweep: SweepDir, trial: pd.Series) -> None:
    """Why the trial is left out or failed, and what can be done."""
    if trial["status"] == "excluded":
        st.info(f"This cell is left out: {text(trial['reason'])}")
    if trial["status"] == "failed":
        st.error(text(trial["error"]))
        traceback = read_error(sweep.trial(trial["trial_id"]))
        if traceback is not None:
            with st.expander("Traceback"):
                st.code(traceback, language="python")
    if shape.may_be_retried(trial):
        show_retry(sweep.path, trial["trial_id"])


def show_retry(sweep: UPath, trial_id: str) -> None:
    request = pending_request(sweep, trial_id)
    if request is not None:
        since = shape.ago(time.time() - request.requested_at)
        st.info(
            f"A retry from {STARTS[request.start]} was requested {since}. The running driver or the next "
            f"`sweep resume {sweep}` picks it up."
        )
        return
    with st.container(horizontal=True):
        for start, words in STARTS.items():
            label = "Retry" if start == "checkpoint" else "Retry from scratch"
            st.button(label, help=f"Run this trial again from {words}.", on_click=ask, args=(sweep, trial_id, start))
    st.caption(f"The running driver or the next resume picks it up. By hand: `sweep resume {sweep} --only {trial_id}`")


def ask(sweep: UPath, trial_id: str, start: Start) -> None:
    """Write a request, or say why it could not be written."""
    try:
        request_retry(sweep, trial_id, start)
    except (OSError, ValueError) as error:
        st.error(f"The request could not be written: {error}")


def show_recipe(sweep: SweepDir, trial: pd.Series) -> None:
    """Everything that the trial's result depends on."""
    spec = read_spec(sweep.trial(trial["trial_id"]))
    if spec is not None:
        with st.expander("Recipe, data, versions"):
            st.caption(f"Code {text(trial['code_version'])}, PyTorch {text(trial['torch_version'])}")
            st.json(spec)


def show_trajectory(seen: State, trial_id: str) -> None:
    """Curves and weights."""
    epochs, layers = source.rows(seen, "epochs", trial_id), source.rows(seen, "layers", trial_id)
    scores = shape.trajectory(layers, trial_id)
    if scores.empty:
        st.info("Nothing has been analysed yet; the first checkpoint is analysed as soon as it is written.")
    else:
        st.subheader("Banding over training")
        st.altair_chart(charts.trajectory(scores), width="stretch")
        show_weights(seen, trial_id, layers)
    left, right = st.columns(2)
    for column, quantity in ((left, "loss"), (right, "accuracy")):
        values = shape.curves(epochs, trial_id, quantity)
        if len(values):
            column.subheader(quantity.capitalize())
            column.altair_chart(charts.curve(values, quantity.capitalize()), width="stretch")


def show_weights(seen: State, trial_id: str, layers: pd.DataFrame) -> None:
    own = layers[(layers["trial_id"] == trial_id) & layers["error"].isna()].sort_values(["position", "step"])
    st.subheader("Weights")
    layer = st.segmented_control("Layer", own["layer"].unique().tolist(), default=own["layer"].iloc[0], required=True)
    of_layer = own[own["layer"] == layer]
    epoch_of = dict(zip(of_layer["step"], of_layer["epoch"], strict=True))
    steps = of_layer["step"].tolist()
    step = steps[-1]
    if len(steps) > 1:
        step = st.select_slider("Checkpoint", steps, value=steps[-1], format_func=lambda s: f"epoch {epoch_of[s]:.0f}")
    row = of_layer[of_layer["step"] == step].iloc[0]
    st.markdown(
        f"{SYMBOLS[row['verdict']]} **{row['verdict']}** (expected: {text(row['expected'])}): "
        f"horizontal {row['horizontal']:.2f} [{row['horizontal_low']:.2f}, {row['horizontal_high']:.2f}], "
        f"vertical {row['vertical']:.2f} [{row['vertical_low']:.2f}, {row['vertical_high']:.2f}], "
        f"{row['neurons']} neurons, chance below {row['null_horizontal_high']:.2f}"
    )
    reduced = source.reduced_layer(seen, trial_id, int(step), str(layer))
    if reduced is not None:
        picture, histogram = st.columns([3, 2])
        picture.image(source.strip(reduced, neurons=96, columns=16, scale=7))
        frame = pd.DataFrame({"horizontal": reduced.horizontal, "vertical": reduced.vertical})
        histogram.altair_chart(charts.neurons(frame), width="stretch")


def number(value: object, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)  # type: ignore[call-overload]  # scalars of a frame


def text(value: object) -> str:
    return "-" if pd.isna(value) else str(value)  # type: ignore[call-overload]  # scalars of a frame


now = frame.begin()
show(now, choose(now.trials))
