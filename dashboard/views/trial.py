"""One trial: what it is, how it went, what its weights look like, and its error, if any."""

import time
from collections.abc import Callable, Mapping

import pandas as pd
import streamlit as st
from upath import UPath

from dashboard import asking, charts, frame, links, noting, shape, source, timelines, trials
from dashboard import trial as words
from dashboard.trials import View
from dashboard.weights import baseline_of
from dashboard.words import page_title, plain
from sweep.results.attempts import attempts
from sweep.results.cells import SYMBOLS
from sweep.results.state import State
from sweep.results.verdicts import told_verdict
from sweep.results.words import count, decimal, remarkable, short_layer, size_in_words
from sweep.store.files import sizes_below, version_of
from sweep.store.notes import Note, read_notes
from sweep.store.requests import Request, TrialStop, pending_request
from sweep.store.trial_dir import TrialDir, read_error, read_log, read_spec

LISTED = 500  # trials in the box; all of 100,000 would go to the browser each time
TAIL = 200  # lines of the log
STARTS: dict[asking.Action, str] = {"checkpoint": "its last checkpoint", "scratch": "scratch"}
_SEEN = "trial seen last"


def choose(seen: State) -> str:
    """The address's trial (`?trial=`), or one chosen in the sidebar; long lists are searched by part of the id.

    Ends the page if the sweep has no such trial; the address keeps what was asked for.
    """
    names = seen.trials["trial_id"].tolist()
    asked = st.query_params.get("trial") or st.session_state.get(_SEEN) or names[0]
    st.session_state[_SEEN] = st.query_params["trial"] = asked
    with st.sidebar:
        listed = names
        if len(names) > LISTED:
            part = st.text_input("Find a trial", placeholder="part of its id", key="part").strip()
            listed = shape.narrowed(names, part, LISTED, keep=asked)
            st.caption(f"{len(listed):,} of {len(names):,} trials are listed.")
        told = dict(zip(names, shape.trial_names(seen.trials), strict=True))
        st.session_state["trial"] = asked if asked in told else None
        st.selectbox("Trial", listed, key="trial", format_func=told.__getitem__, on_change=go_to_chosen)
    if asked not in told:
        st.title("Trial")
        st.warning(
            f"The sweep {plain(seen.sweep.name)} has no trial {plain(asked)}. The link may be of another sweep; choose "
            "a trial, or the sweep, in the sidebar."
        )
        st.page_link("views/trials.py", label="All trials", query_params={"sweep": seen.sweep.name})
        st.stop()
    return asked


def go_to_chosen() -> None:
    go_to(st.session_state["trial"])


def go_to(trial_id: str) -> None:
    st.session_state[_SEEN] = st.query_params["trial"] = trial_id
    st.query_params.pop("epoch", None)


def show_way(seen: State, trial_id: str, view: View, notes: Mapping[str, Note]) -> None:
    """Back to the trials that the reader came from, to the one before and the one after."""
    ids = trials.shown(seen, view, notes)["trial_id"].tolist()
    before, after = trials.neighbours(ids, trial_id)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "views/trials.py", label="Trials", icon=":material/arrow_upward:",
            query_params={"sweep": [seen.sweep.name]} | view.address(),
        )  # fmt: skip
        for label, other in (("← Previous", before), ("Next →", after)):
            st.button(label, key=label, disabled=other is None, on_click=go_to, args=(other,), type="tertiary")
        if trial_id in ids and len(ids) > 1:
            st.caption(f"{ids.index(trial_id) + 1:,} of {len(ids):,}{' chosen' if view.address() else ''}")


def show(seen: State, trial_id: str) -> None:
    trial = seen.trials[seen.trials["trial_id"] == trial_id].iloc[0]
    st.set_page_config(page_title=page_title(seen.sweep.name, "Trial", f"{trial['intervention']} s{trial['seed']}"))
    notes = read_notes(seen.sweep.path)
    show_way(seen, trial_id, trials.read_view(st.query_params.get_all), notes)
    show_header(seen, trial)
    noting.edit(seen.sweep, trial_id, notes)
    show_trouble(seen, trial)
    if trial["status"] != "excluded":
        show_trajectory(seen, trial)
    show_parts(seen.sweep.trial(trial_id), trial)


def show_header(seen: State, trial: pd.Series) -> None:
    st.title(f"{plain(trial['architecture'])} · {plain(trial['intervention'])}")
    at = trial["heartbeat_at"]
    sign = "" if pd.isna(at) else f" · last heartbeat {shape.ago(time.time() - at)}"
    of_data = trial["title"] or trial["data"]
    st.caption(
        f"{plain(trial['trial_id'])} · seed {trial['seed']} · data set {plain(of_data)} · host "
        f"{text(trial['host'])}{sign}"
    )
    epochs = source.rows(seen, "epochs", trial["trial_id"])
    cost = next((cost for cost in seen.trial_costs if cost.trial_id == trial["trial_id"]), None)
    with st.container(horizontal=True, gap="medium"):
        for name, value in words.facts(trial, epochs, cost).items():
            st.metric(name, value, width="content")


def show_trouble(seen: State, trial: pd.Series) -> None:
    """Why the trial is left out, was interrupted or failed, and what can be done."""
    if trial["status"] == "excluded":
        st.info(f"This cell is left out: {text(trial['reason'])}")
    elif trial["status"] == "pending" and not pd.isna(trial["reason"]):
        st.info(f"This trial waits: {text(trial['reason'])}")
    elif trial["status"] == "failed":
        st.error(text(trial["error"]))
        part = st.expander("Traceback", expanded=True, key="traceback", on_change="rerun")
        if part.open:
            traceback = read_error(seen.sweep.trial(trial["trial_id"]))
            part.code(traceback or "No traceback was recorded.", language="python")
    if not pd.isna(trial["analysis_error"]):
        st.error(f"Its last analysis failed: {text(trial['analysis_error'])}")
    show_requests(seen, trial)


def show_requests(seen: State, trial: pd.Series) -> None:
    """What has been asked for and not been answered, or else what can be asked for."""
    trial_id, path = trial["trial_id"], seen.sweep.path
    request = pending_request(path, trial_id)
    if request is not None:
        st.info(waiting(request, path))
    elif shape.may_be_retried(trial):
        with st.container(horizontal=True):
            for start, what in STARTS.items():
                label = "Retry" if start == "checkpoint" else "Retry from scratch"
                arguments = (path, trial_id, start)
                st.button(label, key=label, help=f"Run this trial again from {what}.", on_click=ask, args=arguments)
        st.caption("The running driver or the next resume picks it up. By hand:")
        st.code(asking.resume_command(path, [trial_id]), language="shell", wrap_lines=True)
    elif trial["status"] in ("running", "pending") and seen.driver is not None:
        what = "It saves and stops; the sweep's other trials go on."
        st.button("Stop this trial", key="stop", help=what, on_click=ask, args=(path, trial_id, "stop"))


def waiting(request: Request | TrialStop, sweep: UPath) -> str:
    since = shape.ago(time.time() - request.requested_at)
    if isinstance(request, TrialStop):
        return f"A stop was requested {since}; the trial saves and stops."
    return (
        f"A retry from {STARTS[request.start]} was requested {since}. The running driver or the next "
        f"`sweep resume {plain(str(sweep))}` picks it up."
    )


def ask(sweep: UPath, trial_id: str, action: asking.Action) -> None:
    """Write a request, or say why it could not be written."""
    for said in asking.ask(sweep, [trial_id], action):
        st.error(f"The request could not be written: {plain(said)}")


def show_trajectory(seen: State, trial: pd.Series) -> None:
    """Curves and weights."""
    trial_id = trial["trial_id"]
    epochs, layers = source.rows(seen, "epochs", trial_id), source.rows(seen, "layers", trial_id)
    scores = shape.trajectory(layers, trial_id)
    if scores.empty:
        st.info("Nothing has been analysed yet; the first checkpoint is analysed as soon as it is written.")
    else:
        st.header("Banding over training")
        st.altair_chart(charts.trajectory(scores), width="stretch")
        show_weights(seen, trial, layers)
    left, right = st.columns(2)
    for column, quantity in ((left, "loss"), (right, "accuracy")):
        values = shape.curves(epochs, trial_id, quantity)
        if len(values):
            column.header(quantity.capitalize())
            column.altair_chart(charts.curve(values, quantity.capitalize()), width="stretch")


def show_weights(seen: State, trial: pd.Series, layers: pd.DataFrame) -> None:
    st.header("Weights")
    layer = choose_layer(layers)
    row = choose_checkpoint(words.checkpoints(layers, layer))
    st.markdown(
        f"{SYMBOLS[row['verdict']]} **{told_verdict(row['verdict'], row['reliability'])}** "
        f"(expected: {text(row['expected'])}): {scored(row, 'horizontal')}, {scored(row, 'vertical')}, "
        f"{row['neurons']} neurons"
    )
    numbers = row[["dead", "single_tap"]].fillna(0)
    if remark := remarkable(row["neurons"], numbers["dead"], numbers["single_tap"]):
        st.caption(remark)
    trial_id = trial["trial_id"]
    st.caption(words.chance(row, source.rows(seen, "probes", trial_id)))
    reduced = source.reduced_layer(seen, trial_id, int(row["step"]), layer)
    if reduced is None:
        cure = f"`sweep analyze {plain(str(seen.sweep.path))}` writes it again."
        st.warning(f"The picture's data is missing or damaged. {cure}")
        return
    picture, histogram = st.columns([3, 2])
    tiles = source.strip(reduced, neurons=96, columns=16, scale=7)
    caption = f"Up to 96 neurons of {plain(layer)} at {at(row['name'])}, by similarity: {row['verdict']}"
    picture.image(tiles, caption=caption, alt=caption, output_format="PNG")
    with picture.container(horizontal=True):
        st.link_button(
            "Look closer", links.to("weights", seen.sweep.name, show=f"{trial_id}/{layer}"), help="On the page Weights."
        )
        baseline = baseline_of(seen.trials, trial)
        if baseline not in (None, trial_id):
            link = trials.compare_link(seen.sweep.name, [trial_id, baseline])
            st.link_button("Compare with its baseline", link, help="On the page Compare.")
    neurons = pd.DataFrame({"horizontal": reduced.horizontal, "vertical": reduced.vertical})
    histogram.altair_chart(charts.neurons(neurons), width="stretch")


def choose_layer(layers: pd.DataFrame) -> str:
    """The address's layer (`?layer=`), or else the last one; the last one beside a word if there is no such layer."""
    own = layers[layers["error"].isna()].sort_values(["position", "step"])
    known = own["layer"].unique().tolist()
    asked = st.query_params.get("layer", known[0])
    if asked not in known:
        st.warning(f"No layer {plain(asked)} of this trial has been analysed; this is {plain(known[0])}.")
    shown = asked if asked in known else known[0]
    st.session_state["layer shown"] = shown
    st.segmented_control(
        "Layer", known, key="layer shown", required=True, format_func=lambda name: plain(short_layer(name)),
        on_change=lambda: st.query_params.update(layer=st.session_state["layer shown"]),
    )  # fmt: skip
    return str(shown)


def choose_checkpoint(checkpoints: pd.DataFrame) -> pd.Series:
    """The address's checkpoint (`?epoch=`), which stays when newer ones come; without one, always the newest."""
    names = checkpoints["name"].tolist()
    asked = st.query_params.get("epoch")
    if asked is not None and asked not in names:
        st.warning(f"No checkpoint of {at(plain(asked))} has been analysed; this is the newest.")
    shown = asked if asked in names else names[-1]
    if len(names) > 1:
        st.session_state["checkpoint shown"] = shown
        st.select_slider(
            "Checkpoint", names, key="checkpoint shown", format_func=at,
            on_change=lambda: st.query_params.update(epoch=st.session_state["checkpoint shown"]),
        )  # fmt: skip
    if shown != names[-1]:
        st.button(f"Newer: {at(names[-1])}", key="newest", on_click=follow_newest)
    return checkpoints[checkpoints["name"] == shown].iloc[0]


def follow_newest() -> None:
    st.query_params.pop("epoch", None)


def show_parts(trial: TrialDir, facts: pd.Series) -> None:
    """What is read only once the reader opens it, and stays open."""
    running = facts["status"] == "running"
    lively = running or facts["status"] == "failed"
    log = st.fragment(follow_log, run_every=f"{source.REFRESH_S}s" if running else None)
    show_part(trial, "Log", lambda: log(trial), at_first=lively)
    again = bool(lively and facts["attempts"] > 1)
    show_part(trial, "Attempts", lambda: show_attempts(trial, facts), at_first=again)
    show_part(trial, "Files", lambda: show_files(trial))
    show_part(trial, "Recipe, data, versions", lambda: show_recipe(trial, facts))


def show_part(trial: TrialDir, title: str, draw: Callable[[], None], *, at_first: bool = False) -> None:
    """A part that is drawn while it is open. Whether it is, the reader decides, not what the trial has become."""
    key = f"{title} of {trial.trial_id}"
    st.session_state.setdefault(key, at_first)
    part = st.expander(title, key=key, on_change="rerun")
    if part.open:
        with part:
            draw()


def follow_log(trial: TrialDir) -> None:
    """The end of the log, and all of it to download; runs alone while the trial does."""
    log = log_of(trial)
    if log is None:
        st.caption("Nothing has been logged yet.")
        return
    lines = len(log.splitlines())
    if lines > TAIL:
        st.caption(f"The last {TAIL} of {lines:,} lines.")
    st.code(words.tail(log, TAIL), language=None, height=min(420, 40 + 24 * min(lines, TAIL)))
    name = f"{trial.trial_id}.log"
    st.download_button("Download the log", log, name, "text/plain", key="log file", on_click="ignore")


def log_of(trial: TrialDir) -> str | None:
    """A trial's log, read anew only when it has been written."""
    return _log(str(trial.path), version_of(trial.log_file))


@st.cache_data(show_spinner=False, max_entries=16)
def _log(trial: str, version: str | None) -> str | None:
    return None if version is None else read_log(TrialDir(UPath(trial)))


def show_attempts(trial: TrialDir, facts: pd.Series) -> None:
    """The attempts on a line of time."""
    beat = 0.0 if pd.isna(facts["heartbeat_at"]) else float(facts["heartbeat_at"])
    table = words.attempt_table(attempts(log_of(trial) or "", beat if facts["status"] == "running" else None))
    if table.empty:
        st.caption("Its log tells of no attempt.")
        return
    st.altair_chart(timelines.attempts(table), width="stretch")
    st.dataframe(table, hide_index=True, placeholder="", alt="The trial's attempts, oldest first")


def show_files(trial: TrialDir) -> None:
    sizes = sizes_below(trial.path)
    total = size_in_words(sum(sizes.values()))
    st.caption(f"{count(len(sizes), 'file')}, {total}, below {plain(str(trial.path))}")
    st.dataframe(words.file_table(sizes), hide_index=True, alt="The trial's files and their sizes")


def show_recipe(trial: TrialDir, facts: pd.Series) -> None:
    """Everything that the trial's result depends on."""
    spec = read_spec(trial)
    st.caption(f"Code {text(facts['code_version'])}, PyTorch {text(facts['torch_version'])}, {text(facts['device'])}")
    if spec is None:
        st.warning(f"{plain(str(trial.spec_file))} is missing or damaged; launching its grid again rewrites it.")
    else:
        st.json(spec)


def scored(row: pd.Series, direction: str) -> str:
    low, high = decimal(row[f"{direction}_low"]), decimal(row[f"{direction}_high"])
    return f"{direction} {decimal(row[direction])} [{low}, {high}]"


def at(name: str) -> str:
    return name if name.startswith("step") else f"epoch {name}"


def text(value: object) -> str:
    return "-" if pd.isna(value) else plain(str(value))  # type: ignore[call-overload]  # scalars of a frame


now = frame.begin()
show(now, choose(now))
