"""What the pages read: the chosen sweep, its tables, its pictures.

Tables are read again when they change.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import streamlit as st
from PIL import Image
from upath import UPath

from analysis.picture import evenly, neuron_tiles
from dashboard.address import choose_one
from sweep.results import cells
from sweep.results.tables import DamagedTableError, ReducedLayer, TableName, read_reduced, read_table
from sweep.store.lease import holder
from sweep.store.sweep_dir import SweepDir, is_sweep, sweep_names

REFRESH_S = 5


def chosen_sweep() -> UPath:
    """The sweep named on the command line, or chosen among those of a storage; ends the page if there is none."""
    argument = sys.argv[1] if len(sys.argv) > 1 else "runs"
    path = UPath(argument)
    if is_sweep(path):
        return path
    names = sweep_names(path)
    if not names:
        st.info(f"There are no sweeps in `{argument}` yet. Launch one, then reload this page:")
        st.code(f"sweep launch demo --storage {argument}", language="shell")
        st.stop()
    with st.sidebar:
        name = choose_one("Sweep", names, "sweep")
    return path / name


def table(sweep: UPath, name: TableName) -> pd.DataFrame:
    """A results table in its current state; ends the page if it is damaged."""
    with _damage_told():
        return _table(str(sweep), name, _version(sweep, name))


def trials(sweep: UPath) -> pd.DataFrame:
    """The trials as they are: none runs while no driver works on the sweep."""
    return cells.standing(table(sweep, "trials"), holder(sweep))


def last_convs(sweep: UPath) -> pd.DataFrame:
    """Each trial with its last conv's newest scores (`cells.last_convs`); ends the page if a table is damaged."""
    with _damage_told():
        last = _last_convs(str(sweep), _version(sweep, "trials"), _version(sweep, "layers"))
    return cells.standing(last, holder(sweep))


@contextmanager
def _damage_told() -> Iterator[None]:
    """Say which table is damaged and which command rewrites it: the dashboard itself writes only requests."""
    try:
        yield
    except DamagedTableError as error:
        st.error(str(error))
        st.stop()


def reduced_layer(sweep: UPath, trial_id: str, step: int, layer: str) -> ReducedLayer | None:
    """The reduced weights of an analysed layer; a finished analysis does not change."""
    return _reduced(str(sweep), trial_id, step, layer, _version(sweep, "layers"))


def strip(layer: ReducedLayer, neurons: int, columns: int, scale: int) -> Image.Image:
    """A picture of a layer's neurons, evenly spaced along their order by similarity."""
    chosen = evenly(layer.order, neurons)
    return neuron_tiles(layer.reduced, chosen, min(columns, len(chosen)), scale)


@st.cache_data(show_spinner=False, max_entries=16)
def _table(sweep: str, name: TableName, version: float) -> pd.DataFrame:
    return read_table(UPath(sweep), name)


@st.cache_data(show_spinner=False, max_entries=4)
def _last_convs(sweep: str, trials: float, layers: float) -> pd.DataFrame:
    return cells.last_convs(_table(sweep, "trials", trials), _table(sweep, "layers", layers))


@st.cache_data(show_spinner=False, max_entries=256)
def _reduced(sweep: str, trial_id: str, step: int, layer: str, version: float) -> ReducedLayer | None:
    return read_reduced(UPath(sweep), trial_id, step, layer)


def _version(sweep: UPath, name: TableName) -> float:
    """Changes when a table is rewritten."""
    path = SweepDir(sweep).table(name)
    return float(path.stat().st_mtime) if path.exists() else 0.0
