"""What the pages read: the sweep that is looked at, its tables, its pictures.

Only compacted tables are read on a refresh, and only when they changed. What is kept is what the pages show (a row a
trial, a row a cell, the rows of one trial): the table of layers has a million rows where a sweep has 100,000 trials.
"""

import shlex
import sys

import pandas as pd
import streamlit as st
from PIL import Image
from upath import UPath

from analysis.picture import evenly, neuron_tiles
from dashboard import cells, shape
from sweep.results import ReducedLayer, TableName, read_launches, read_reduced, read_table, sweep_names

REFRESH_S = 5
_TILE_PX = 25


def chosen_sweep() -> UPath:
    """The sweep named on the command line, or chosen among those of a storage; ends the page if there is none."""
    argument = sys.argv[1] if len(sys.argv) > 1 else "runs"
    try:
        path = UPath(argument)
        alone = (path / "sweep.yaml").exists()
        names = [] if alone else sweep_names(path)
        there = alone or path.exists()
    except (ImportError, OSError, ValueError) as error:
        st.error(f"The storage `{argument}` can't be read ({error}). Check its address and your access to it.")
        st.stop()
    if alone:
        return path
    if not names:
        remark = "There is no sweep yet in" if there else "Nothing is there yet at"
        st.info(f"{remark} `{argument}`. Launch a sweep, then reload this page:")
        st.code(f"sweep launch demo --storage {shlex.quote(argument)}", language="shell")
        st.stop()
    return path / _choose(names)


def trials(sweep: UPath) -> pd.DataFrame:
    """The trials as they stand, each with its last conv at the newest checkpoint (`shape.last_convs`)."""
    return _trials(str(sweep), _version(sweep, "trials"), _version(sweep, "layers"))


def grid(sweep: UPath) -> pd.DataFrame:
    """The cells as they stand (`cells.cells`)."""
    return _grid(str(sweep), _version(sweep, "trials"), _version(sweep, "layers"))


def rows_of(sweep: UPath, name: TableName, trial_id: str) -> pd.DataFrame:
    """One trial's rows of a table as they are now."""
    return _rows_of(str(sweep), name, trial_id, _version(sweep, name))


def launch_line(sweep: UPath) -> str:
    """When and how often the sweep was launched, in words."""
    return shape.launch_line(read_launches(sweep))


def reduced_layer(sweep: UPath, trial_id: str, step: int, layer: str) -> ReducedLayer | None:
    """The reduced weights of an analysed layer, read again when the analysis wrote anew."""
    return _reduced(str(sweep), trial_id, step, layer, _version(sweep, "layers"))


def strip(layer: ReducedLayer, neurons: int, columns: int) -> Image.Image:
    """A picture of a layer's neurons, evenly chosen along their order of similarity; any kernel is as wide."""
    chosen = evenly(layer.order, neurons)
    scale = max(2, _TILE_PX // layer.reduced.shape[2])
    return neuron_tiles(layer.reduced, chosen, min(columns, len(chosen)), scale)


def _choose(names: list[str]) -> str:
    named = st.query_params.get("sweep")
    with st.sidebar:
        name = str(st.selectbox("Sweep", names, key="sweep", bind="query-params"))
    if named is not None and named not in names:
        st.warning(f"There is no sweep `{named}` here; this is `{name}`.")
    return name


@st.cache_data(show_spinner=False, max_entries=4)
def _trials(sweep: str, trials_version: float, layers_version: float) -> pd.DataFrame:
    return shape.last_convs(read_table(UPath(sweep), "trials"), read_table(UPath(sweep), "layers"))


@st.cache_data(show_spinner=False, max_entries=4)
def _grid(sweep: str, trials_version: float, layers_version: float) -> pd.DataFrame:
    return cells.cells(_trials(sweep, trials_version, layers_version))


@st.cache_data(show_spinner=False, max_entries=64)
def _rows_of(sweep: str, name: TableName, trial_id: str, version: float) -> pd.DataFrame:
    table = read_table(UPath(sweep), name)
    return table[table["trial_id"] == trial_id].reset_index(drop=True)


@st.cache_data(show_spinner=False, max_entries=256)
def _reduced(sweep: str, trial_id: str, step: int, layer: str, version: float) -> ReducedLayer | None:
    return read_reduced(UPath(sweep), trial_id, step, layer)


def _version(sweep: UPath, name: TableName) -> float:
    """Changes when a table is written anew."""
    path = sweep / "results" / f"{name}.parquet"
    return float(path.stat().st_mtime) if path.exists() else 0.0
