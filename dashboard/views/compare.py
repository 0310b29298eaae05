"""Compare: two to six trials, their curves laid over each other, and what their recipes differ in."""

from functools import partial

import pandas as pd
import streamlit as st

from dashboard import address, compare, frame, overlays, source, tiles
from dashboard.address import choose_one
from dashboard.finding import find_trial
from dashboard.weights import Shown
from dashboard.words import page_title, plain
from sweep.results.cells import SYMBOLS
from sweep.results.specs import spec_differences
from sweep.results.state import State
from sweep.results.tables import Row, records
from sweep.results.verdicts import told_verdict
from sweep.results.words import decimal, short_layer

LEAST, MOST = 2, 6
DRAWN = 48


def choose_trials(seen: State) -> pd.DataFrame:
    """The trials that the address asks for, in its order."""
    asked = list(dict.fromkeys(address.read("trial")))
    known = set(seen.trials["trial_id"])
    for trial_id in asked:
        if trial_id not in known:
            st.warning(f"There is no trial {plain(trial_id)} in this sweep.")
    found = [trial_id for trial_id in asked if trial_id in known]
    if len(found) > MOST:
        st.warning(f"The address asks for {len(found)} trials; the first {MOST} are compared.")
    address.write("trial", asked)
    trials = seen.trials.set_index("trial_id", drop=False).loc[found[:MOST]]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        show_chosen(trials, asked)
        if len(trials) < MOST:
            with st.popover("Add a trial", icon=":material/add:"):
                new = find_trial(seen, "trial to compare")
                if new is not None:
                    st.button("Add", on_click=address.write, args=("trial", [*asked, new]), type="primary")
    return trials


def show_chosen(trials: pd.DataFrame, asked: list[str]) -> None:
    """A box from which trials can be removed."""
    ids = trials["trial_id"].tolist()
    words = dict(zip(ids, compare.telling_names(trials), strict=True))
    st.session_state["compared trials"] = ids

    def keep() -> None:
        kept = st.session_state["compared trials"]
        address.write("trial", [trial_id for trial_id in asked if trial_id in kept])

    st.multiselect(
        "Trials", ids, key="compared trials", format_func=lambda trial_id: words.get(trial_id, trial_id), on_change=keep
    )


def show(seen: State, trials: pd.DataFrame) -> None:
    names = compare.telling_names(trials)
    by_id = dict(zip(trials["trial_id"], names, strict=True))
    position = choose_position(seen)
    show_scores(seen, trials, by_id, position)
    show_curves(seen, by_id)
    show_recipes(seen, by_id)
    show_weights(seen, by_id, position)


def choose_position(seen: State) -> int:
    """Which conv is compared, counted from the network's last one."""
    names = {f"last conv - {place - 1}" if place > 1 else "last conv": place for place in seen.positions or [1]}
    return names[choose_one("Layer", list(names), "layer")]


def show_scores(seen: State, trials: pd.DataFrame, names: dict[str, str], position: int) -> None:
    st.header("Banding")
    rows = {trial_id: source.rows(seen, "layers", trial_id) for trial_id in names}
    values = compare.trajectories(rows, names, position)
    if values.empty:
        st.info("Nothing of this layer has been analysed yet; a checkpoint is analysed as soon as it is written.")
        return
    st.altair_chart(overlays.scores(values, list(names.values())), width="stretch")
    table = compare.score_table(trials, seen.newest, list(names.values()), position)
    st.dataframe(table, hide_index=True, placeholder="-")
    st.caption("At each trial's newest analysed checkpoint, with 95% intervals over the layer's neurons.")


def show_curves(seen: State, names: dict[str, str]) -> None:
    epochs = {trial_id: source.rows(seen, "epochs", trial_id) for trial_id in names}
    for column, quantity in zip(st.columns(2), ("loss", "accuracy"), strict=True):
        values = compare.curves(epochs, names, quantity)
        with column:
            st.header(quantity.capitalize())
            if values.empty:
                st.info("No epoch is finished yet.")
            else:
                st.altair_chart(overlays.curves(values, list(names.values()), quantity.capitalize()), width="stretch")


def show_recipes(seen: State, names: dict[str, str]) -> None:
    st.header("What differs")
    specs = {trial_id: source.spec(str(seen.sweep.path), trial_id) for trial_id in names}
    read = {trial_id: spec for trial_id, spec in specs.items() if spec is not None}
    unread = [names[trial_id] for trial_id in names if trial_id not in read]
    if unread:
        st.warning(f"No readable spec: {plain(', '.join(unread))}. Launching the grid again rewrites it.")
    if len(read) < LEAST:
        return
    table = spec_differences(list(read.values()))
    if table.empty:
        st.info("Their specs are the same.")
        return
    table.columns = pd.Index([names[trial_id] for trial_id in read])
    st.dataframe(table)


def show_weights(seen: State, names: dict[str, str], position: int) -> None:
    """The trials' layers beside each other; a click on a neuron opens it on the page about weights."""
    st.header("Weights")
    found = seen.newest[(seen.newest["position"] == position) & seen.newest["verdict"].notna()]
    rows = {row["trial_id"]: row for row in records(found[found["trial_id"].isin(list(names))])}
    order = [trial_id for trial_id in names if trial_id in rows]
    if not order:
        st.info("Nothing of this layer has been analysed yet; a checkpoint is analysed as soon as it is written.")
        return
    link = address.link(show=[str(Shown(trial_id, rows[trial_id]["layer"])) for trial_id in order])
    opened = st.session_state.pop("neuron to open", None)
    if opened is not None:
        st.switch_page("views/weights.py", query_params=link | {"neuron": opened})
    st.page_link("views/weights.py", label="Open these layers in Weights", icon=":material/apps:", query_params=link)
    for place, trial_id in enumerate(order):
        show_layer(seen, names[trial_id], rows[trial_id], place)


def show_layer(seen: State, name: str, row: Row, place: int) -> None:
    st.subheader(plain(name))
    verdict = f"{SYMBOLS[row['verdict']]} {told_verdict(row['verdict'], row['reliability'])}"
    scores = f"horizontal {decimal(row['horizontal'])}, vertical {decimal(row['vertical'])}"
    st.caption(f"{plain(short_layer(row['layer']))} · epoch {row['epoch']:g} · {verdict} · {scores}")
    tiles.show_layer(
        seen,
        row["trial_id"],
        int(row["step"]),
        row["layer"],
        order=lambda layer: layer.order,
        most=DRAWN,
        name=name,
        key=f"tiles {row['trial_id']} {row['layer']}",
        chosen=None,
        on_choice=partial(open_neuron, place),
    )


def open_neuron(place: int, neuron: int) -> None:
    st.session_state["neuron to open"] = f"{place}:{neuron}"


def main() -> None:
    seen = frame.begin("Compare")
    st.set_page_config(page_title=page_title(seen.sweep.name, "Compare"))
    trials = choose_trials(seen)
    if len(trials) < LEAST:
        st.info(f"Choose {LEAST} to {MOST} trials: here, or by their boxes on the page of trials.")
    else:
        show(seen, trials)


main()
