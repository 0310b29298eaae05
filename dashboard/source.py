"""What the pages read: the chosen sweep's state, the rows of single trials, pictures.

A page is drawn anew when the sweep has changed, and not before (`dashboard.frame`).
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image
from upath import UPath

from analysis.picture import evenly, neuron_tiles
from dashboard import weights
from dashboard.address import choose_one
from sweep.results.example_sheets import Examples, examples_of, read_sheet
from sweep.results.raw_weights import read_neuron
from sweep.results.state import State, Version, glance, read_state
from sweep.results.tables import DamagedTableError, ReducedLayer, TableName, read_reduced, read_table
from sweep.store.sweep_dir import SweepDir, is_sweep, sweep_names
from sweep.store.trial_dir import read_spec

REFRESH_S = 5


def chosen_sweep() -> SweepDir:
    """The sweep named on the command line, or chosen among those of a storage; ends the page if there is none."""
    argument = sys.argv[1] if len(sys.argv) > 1 else "runs"
    path = UPath(argument)
    if is_sweep(path):
        return SweepDir(path)
    names = sweep_names(path)
    if not names:
        st.info(f"There are no sweeps in `{argument}` yet. Launch one, then reload this page:")
        st.code(f"sweep launch demo --storage {argument}", language="shell")
        st.stop()
    with st.sidebar:
        name = choose_one("Sweep", names, "sweep")
    return SweepDir(path / name)


def state(sweep: SweepDir) -> State:
    """The sweep as it is now; read anew when it has changed. Ends the page if a table is damaged."""
    with damage_told():
        return _state(str(sweep.path), glance(sweep)[0])


def rows(seen: State, name: TableName, trial_id: str) -> pd.DataFrame:
    """One trial's rows of a table, in all its columns; ends the page if the table is damaged."""
    with damage_told():
        return _rows(str(seen.sweep.path), name, trial_id, _table_version(seen, name))


def table(seen: State, name: TableName) -> pd.DataFrame:
    """A whole table that no driver rewrites, such as `clusters`; ends the page if it is damaged."""
    with damage_told():
        return _table(str(seen.sweep.path), name, _table_version(seen, name))


@contextmanager
def damage_told() -> Iterator[None]:
    """Say which table is damaged and which command rewrites it: the dashboard itself writes only requests."""
    try:
        yield
    except DamagedTableError as error:
        st.error(str(error))
        st.stop()


def reduced_layer(seen: State, trial_id: str, step: int, layer: str) -> ReducedLayer | None:
    """The reduced weights of an analysed layer; a finished analysis does not change."""
    return _reduced(str(seen.sweep.path), trial_id, step, layer, _table_version(seen, "layers"))


def atlas(seen: State, trial_id: str, step: int, layer: str) -> bytes | None:
    """`dashboard.weights.atlas` of an analysed layer; None where its arrays are missing or damaged."""
    return _atlas(str(seen.sweep.path), trial_id, step, layer, _table_version(seen, "layers"))


def examples(seen: State, trial_id: str, step: int, layer: str, neuron: int) -> Examples | None:
    """What a neuron responds to most; None where `sweep examples` has not found it at this checkpoint.

    Raises:
        DamagedSheetError: its picture can't be read; the message says what to do.
    """
    found = rows(seen, "examples", trial_id)
    if found.empty:
        return None
    tiles = _sheet(str(seen.sweep.path), trial_id, step, layer, _table_version(seen, "examples"))
    return None if tiles is None else examples_of(found, tiles, step, layer, neuron)


@st.cache_data(show_spinner=False, max_entries=64)
def neuron_weights(sweep: str, trial_id: str, step: int, layer: str, neuron: int) -> np.ndarray:
    """One neuron's weights [c, y, x] (`sweep.results.raw_weights.read_neuron`); a checkpoint does not change."""
    return read_neuron(SweepDir(UPath(sweep)).trial(trial_id), step, layer, neuron)


@st.cache_data(show_spinner=False, ttl=60, max_entries=64)
def spec(sweep: str, trial_id: str) -> dict[str, Any] | None:
    """What a trial was planned as; None if it can't be read, which the next launch may mend."""
    return read_spec(SweepDir(UPath(sweep)).trial(trial_id))


def strip(layer: ReducedLayer, neurons: int, columns: int, scale: int) -> Image.Image:
    """A picture of a layer's neurons, evenly spaced along their order by similarity."""
    chosen = evenly(layer.order, neurons)
    return neuron_tiles(layer.reduced, chosen, min(columns, len(chosen)), scale)


@st.cache_resource(show_spinner=False, max_entries=2, hash_funcs={Version: repr})  # shared: pages only read it
def _state(sweep: str, version: Version) -> State:
    found = read_state(SweepDir(UPath(sweep)))
    gc.collect()
    gc.freeze()  # Streamlit collects garbage after each run, and would look through all that stays each time
    return found


@st.cache_data(show_spinner=False, max_entries=32)
def _rows(sweep: str, name: TableName, trial_id: str, version: str) -> pd.DataFrame:
    return read_table(UPath(sweep), name, trial_id=trial_id)


@st.cache_data(show_spinner=False, max_entries=4)
def _table(sweep: str, name: TableName, version: str) -> pd.DataFrame:
    return read_table(UPath(sweep), name)


@st.cache_data(show_spinner=False, max_entries=256)
def _reduced(sweep: str, trial_id: str, step: int, layer: str, version: str) -> ReducedLayer | None:
    return read_reduced(UPath(sweep), trial_id, step, layer)


@st.cache_data(show_spinner=False, max_entries=256)
def _atlas(sweep: str, trial_id: str, step: int, layer: str, version: str) -> bytes | None:
    reduced = _reduced(sweep, trial_id, step, layer, version)
    return None if reduced is None else weights.atlas(reduced)


@st.cache_resource(show_spinner=False, max_entries=8)  # shared: pages only read it
def _sheet(sweep: str, trial_id: str, step: int, layer: str, version: str) -> np.ndarray | None:
    return read_sheet(SweepDir(UPath(sweep)).trial(trial_id), step, layer)


def _table_version(seen: State, name: TableName) -> str:
    return dict(seen.version.tables).get(name, "")
