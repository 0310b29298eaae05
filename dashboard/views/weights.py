"""Weights: layers of any trials beside each other, at one moment of training, neuron by neuron."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import address, frame, source, tiles, weights
from dashboard.finding import find_trial
from dashboard.neuron import show_parts
from dashboard.weights import SORTS, Shown
from dashboard.words import page_title, plain
from sweep.results.cells import SYMBOLS
from sweep.results.state import State
from sweep.results.verdicts import told_verdict
from sweep.results.words import decimal, short_layer

MOST = 6
ACROSS = 3
CHOICES = ("show", "baseline", "epoch", "sort", "same", "neuron")
DRAWN = 1024  # neurons of a layer; of more, these are spaced evenly


@dataclass(frozen=True)
class Entry:
    """A layer to draw: where it stands in the address (None for the pinned baseline), and what its trial has."""

    place: int | None
    trial: pd.Series
    layer: str
    checkpoints: pd.DataFrame  # of all layers

    @property
    def key(self) -> str:
        return "baseline" if self.place is None else str(self.place)

    @property
    def own(self) -> pd.DataFrame:
        """The checkpoints of this layer."""
        return self.checkpoints[self.checkpoints["layer"] == self.layer]

    @property
    def title(self) -> str:
        facts = (self.trial["intervention"], f"seed {self.trial['seed']}", self.trial["architecture"])
        return " · ".join([*map(str, facts), short_layer(self.layer)])


def restore_choices() -> None:
    """An address that names layers is a link: what it leaves out is not chosen. Else the session's choices are back."""
    complete = CHOICES[0] in st.query_params
    for name in CHOICES:
        address.write(name, st.query_params.get_all(name) if complete else address.read(name))


def asked_layers(seen: State) -> list[Shown]:
    """What the address asks for; without any, the last conv of a trial that has been analysed."""
    asked = address.read("show")
    if not asked:
        analysed = seen.trials.loc[seen.trials["verdict"].notna(), "trial_id"]
        asked = [str(trial_id) for trial_id in analysed.head(1)]
    address.write("show", asked)
    return [Shown.parse(text) for text in asked]


def entry_of(seen: State, place: int | None, shown: Shown) -> Entry | None:
    """The layer to draw; says what is wrong where there is none."""
    found = seen.trials[seen.trials["trial_id"] == shown.trial_id]
    if found.empty:
        st.warning(f"There is no trial {plain(shown.trial_id)} in this sweep.")
        show_removal(place)
        return None
    rows = weights.analysed(source.rows(seen, "layers", shown.trial_id))
    if rows.empty:
        st.info(f"{plain(shown.trial_id)}: nothing has been analysed yet, or its analysis failed.")
        show_removal(place)
        return None
    layers = rows["layer"].unique().tolist()
    layer = shown.layer or layers[0]
    if layer not in layers:
        st.warning(
            f"{plain(shown.trial_id)} has no analysed layer {plain(layer)}; it has {plain(', '.join(layers))}. "
            "Choose one below."
        )
    return Entry(place, found.iloc[0], layer, rows)


def pinned(seen: State, entries: Sequence[Entry]) -> list[Entry]:
    """The baseline of the first entry, at the same position, unless it is shown already."""
    if not entries:
        return []
    first = entries[0]
    at = first.own["position"]
    trial_id = weights.baseline_of(seen.trials, first.trial)
    if trial_id is None:
        st.info("The first trial has no baseline of the same data, recipe, architecture and seed in this sweep.")
        return []
    entry = entry_of(seen, None, Shown(trial_id)) if len(at) else None
    if entry is None:
        return []
    same = entry.checkpoints.loc[entry.checkpoints["position"] == at.iloc[0], "layer"]
    if same.empty:
        st.info(f"The baseline has no analysed layer at the position of {plain(first.layer)}.")
        return []
    entry = Entry(None, entry.trial, str(same.iloc[0]), entry.checkpoints)
    shown = [(other.trial["trial_id"], other.layer) for other in entries]
    return [] if (trial_id, entry.layer) in shown else [entry]


def choose_epoch(entries: Sequence[Entry]) -> float:
    """One slider for all; it follows the newest checkpoint until the reader moves it."""
    epochs = weights.epochs_of([entry.own for entry in entries])
    asked = next(iter(address.read("epoch")), None)
    epoch = None if asked is None else weights.epoch_of(asked)
    if asked is not None and epoch is None:
        st.warning(f"The address asks for epoch {plain(asked)}, which is not an epoch; the newest is shown.")
    options = sorted({*epochs, *([] if epoch is None else [epoch])}) or [0.0]
    st.session_state["epoch slider"] = options[-1] if epoch is None else epoch
    if len(options) > 1:
        st.select_slider(
            "Epoch",
            options,
            key="epoch slider",
            format_func=lambda epoch: f"{epoch:g}",
            on_change=lambda: address.write("epoch", [f"{st.session_state['epoch slider']:g}"]),
            help="Each layer shows its newest checkpoint up to this epoch. The arrow keys move the slider.",
        )
    return float(st.session_state["epoch slider"])


def choose_sort() -> tuple[str, bool]:
    """How neurons are sorted, and whether all layers follow the first one."""
    asked = next(iter(address.read("sort")), SORTS[0])
    if asked not in SORTS:
        st.warning(f"Neurons can't be sorted by {plain(asked)}; they are sorted by {SORTS[0]}.")
    st.session_state["sort neurons"] = asked if asked in SORTS else SORTS[0]
    sort = st.segmented_control(
        "Sort neurons by",
        SORTS,
        key="sort neurons",
        required=True,
        on_change=lambda: address.write("sort", [st.session_state["sort neurons"]]),
    )
    same = flag("same", "Same neurons in each", "All layers of as many neurons are sorted as the first one is.")
    return str(sort), same


def flag(name: str, label: str, what: str) -> bool:
    """A switch that is kept in the address."""
    key = f"{name} switch"
    st.session_state[key] = address.read(name) == ["1"]
    write = partial(write_flag, name, key)
    return st.toggle(label, key=key, help=what, on_change=write)


def write_flag(name: str, key: str) -> None:
    address.write(name, ["1"] if st.session_state[key] else [])


def show_entries(seen: State, entries: Sequence[Entry], epoch: float, sort: str, same: bool) -> None:
    st.header(f"Neurons up to epoch {epoch:g}")
    leading: np.ndarray | None = None
    for start in range(0, len(entries), ACROSS):
        columns = st.columns(min(len(entries), ACROSS))
        for column, entry in zip(columns, entries[start : start + ACROSS], strict=False):  # the last row may be short
            with column:
                order = show_entry(seen, entry, epoch, sort, leading)
            if same and leading is None:
                leading = order


def show_entry(seen: State, entry: Entry, epoch: float, sort: str, leading: np.ndarray | None) -> np.ndarray | None:
    """Draw a layer; returns the order of its neurons."""
    show_header(seen, entry)
    row = weights.at_epoch(entry.own, epoch)
    if row is None:
        said = f"its first is at epoch {entry.own['epoch'].min():g}" if len(entry.own) else "it has none"
        st.info(f"No checkpoint of this layer was analysed up to epoch {epoch:g}; {said}.")
        return None
    net = plain(str(entry.trial["architecture"])) + (" · pinned baseline" if entry.place is None else "")
    scores = f"horizontal {decimal(row['horizontal'])}, vertical {decimal(row['vertical'])}"
    verdict = f"{SYMBOLS[row['verdict']]} {told_verdict(row['verdict'], row['reliability'])}"
    st.caption(f"{net} · epoch {row['epoch']:g} · {verdict} · {scores}")
    return tiles.show_layer(
        seen,
        entry.trial["trial_id"],
        int(row["step"]),
        entry.layer,
        order=partial(weights.ordered, sort=sort, leading=leading),
        most=DRAWN,
        name=f"{entry.title} at epoch {row['epoch']:g}, sorted by {sort}",
        key=f"tiles {entry.key} {entry.trial['trial_id']} {entry.layer}",
        chosen=chosen_neuron(entry),
        on_choice=partial(choose_neuron, entry),
    )


def show_header(seen: State, entry: Entry) -> None:
    """The trial, and what can be done about its place on the page."""
    trial_id = entry.trial["trial_id"]
    st.subheader(plain(f"{entry.trial['intervention']} · seed {entry.trial['seed']}"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layers = entry.checkpoints["layer"].unique().tolist()
        key = f"layer of {entry.key} {trial_id}"
        st.session_state[key] = entry.layer
        st.selectbox(
            "Layer",
            layers if entry.layer in layers else [entry.layer, *layers],
            key=key,
            format_func=short_layer,
            disabled=entry.place is None,
            on_change=partial(change_layer, entry.place, key),
        )
        show_removal(entry.place)
        st.page_link(
            "views/trial.py", label="Trial", icon=":material/monitoring:", query_params=address.link(trial=trial_id)
        )


def show_removal(place: int | None) -> None:
    if place is not None:
        st.button("Remove", key=f"remove {place}", on_click=partial(remove, place))


def change_layer(place: int | None, key: str) -> None:
    if place is None:
        return
    asked = address.read("show")
    asked[place] = str(Shown(Shown.parse(asked[place]).trial_id, st.session_state[key]))
    address.write("show", asked)


def remove(place: int) -> None:
    address.write("show", [text for index, text in enumerate(address.read("show")) if index != place])
    address.write("neuron", [])


def add(shown: Shown) -> None:
    address.write("show", [*address.read("show"), str(shown)])


def show_adding(seen: State, number: int) -> None:
    """A form that adds a layer of any trial."""
    if number >= MOST:
        st.caption(f"{MOST} layers are shown, which is the most; remove one to add another.")
        return
    with st.popover("Add a layer", icon=":material/add:"):
        trial_id = find_trial(seen, "trial to add")
        if trial_id is None:
            return
        own = seen.newest[(seen.newest["trial_id"] == trial_id) & seen.newest["verdict"].notna()]
        if own.empty:
            st.info("Nothing of this trial has been analysed yet.")
            return
        layer = st.selectbox("Layer", own["layer"].tolist(), key="layer to add", format_func=short_layer)
        st.button("Add", on_click=partial(add, Shown(trial_id, str(layer))), type="primary")


def choose_neuron(entry: Entry, neuron: int) -> None:
    address.write("neuron", [f"{entry.key}:{neuron}"])


def chosen_neuron(entry: Entry) -> int | None:
    """The neuron of this layer that the address asks for."""
    place, _, neuron = next(iter(address.read("neuron")), "").partition(":")
    return int(neuron) if place == entry.key and neuron.isdecimal() else None


def show_neuron(seen: State, entries: Sequence[Entry], epoch: float) -> None:
    """The neuron that the reader has chosen."""
    asked = next(iter(address.read("neuron")), None)
    chosen = [(entry, neuron) for entry in entries for neuron in [chosen_neuron(entry)] if neuron is not None]
    if not chosen:
        if asked is None:
            st.caption("Choose a neuron by a click, or by the arrow keys and Enter, to see what it is made of.")
        else:
            st.warning(f"The address asks for neuron {plain(asked)}, which is not on this page.")
        return
    entry, neuron = chosen[0]
    row = weights.at_epoch(entry.own, epoch)
    trial_id = entry.trial["trial_id"]
    reduced = None if row is None else source.reduced_layer(seen, trial_id, int(row["step"]), entry.layer)
    if row is None or reduced is None:
        return
    most = len(reduced.reduced) - 1
    st.header(f"Neuron {neuron} of {plain(entry.title)}, epoch {row['epoch']:g}")
    show_going_on(entry, neuron, most)
    if neuron > most:
        st.warning(f"There is no neuron {neuron}: the layer's neurons have the numbers 0 to {most}.")
        return
    show_parts(seen, trial_id, int(row["step"]), entry.layer, reduced, neuron)


def show_going_on(entry: Entry, neuron: int, most: int) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.session_state["neuron by number"] = min(neuron, most)
        st.number_input(
            "Number",
            min_value=0,
            max_value=most,
            key="neuron by number",
            on_change=lambda: choose_neuron(entry, st.session_state["neuron by number"]),
            width=160,
        )
        st.button("Close", on_click=partial(address.write, "neuron", []))


def main() -> None:
    seen = frame.begin("Weights")
    st.set_page_config(page_title=page_title(seen.sweep.name, "Weights"))
    restore_choices()
    shown = asked_layers(seen)
    if not shown:
        st.info("Nothing has been analysed yet; each trial's first checkpoint is analysed as soon as it is written.")
        return
    if len(shown) > MOST:
        st.warning(f"The address asks for {len(shown)} layers; the first {MOST} are shown.")
    entries = [entry for place, one in enumerate(shown[:MOST]) for entry in [entry_of(seen, place, one)] if entry]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sort, same = choose_sort()
        pin = flag("baseline", "Pin the baseline", "The baseline of the first trial stands beside the others.")
        show_adding(seen, len(shown))
    if pin:
        entries = [*pinned(seen, entries), *entries]
    if entries:
        epoch = choose_epoch(entries)
        show_entries(seen, entries, epoch, sort, same)
        show_neuron(seen, entries, epoch)


main()
