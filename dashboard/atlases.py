"""What the page about an atlas reads and shows: the chosen atlas, its table for the reader, pictures of layers."""

import sys
from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st
from upath import UPath

from dashboard.source import damage_told
from sweep.results.atlas import read_atlas, read_layer, told_verdicts
from sweep.results.tables import ReducedLayer
from sweep.store.atlas_dir import AtlasDir, atlas_names, is_atlas
from sweep.store.files import version_of

FILTERS = {
    "verdict": "Verdict",
    "pooling": "Pooling",
    "library": "Library",
    "weights": "Weights",
    "kernel": "Kernel",
    "padding": "Padding",
}


def storage() -> UPath:
    """What the dashboard was started for."""
    return UPath(sys.argv[1] if len(sys.argv) > 1 else "runs")


def names() -> list[str]:
    """The atlases of the storage, or the one that the dashboard was started for."""
    return _names(str(storage()))


def opened(name: str) -> AtlasDir:
    return AtlasDir(storage() if is_atlas(storage()) else storage() / name)


def table(atlas: AtlasDir) -> pd.DataFrame:
    """The table as it is now; ends the page if it is damaged."""
    with damage_told():
        return _table(str(atlas.path), version_of(atlas.table) or "")


def layer(atlas: AtlasDir, row: pd.Series) -> ReducedLayer | None:
    return read_layer(atlas.path, row["digest"], row["layer"])


def matching(rows: pd.DataFrame, wanted: Mapping[str, Sequence[str]], search: str) -> pd.DataFrame:
    """The rows that have one of the wanted values of each column, and the words in their source or architecture."""
    for column, values in wanted.items():
        if values:
            rows = rows[rows[column].isin(list(values))]
    for word in search.lower().split():
        text = rows["source"].str.cat(rows["architecture"], sep=" ", na_rep="").str.lower()
        rows = rows[text.str.contains(word, regex=False)]
    return rows


DECIMALS = ("Horizontal", "from", "to", "Vertical", "from ", "to ", "Reliability")
"""Columns of the page's table, which needs a name for each: the intervals' differ by a space."""


def for_reader(rows: pd.DataFrame) -> pd.DataFrame:
    """Scored layers in words, as the page's table shows them."""
    return pd.DataFrame(
        {
            "Network": rows["name"],
            "Library": rows["library"],
            "Weights": rows["weights"],
            "Pooling": rows["pooling"],
            "Layer": rows["layer"],
            "Position": rows["position"],
            "Kernel": rows["kernel"],
            "Padding": rows["padding"],
            "Neurons": rows["neurons"],
            "Horizontal": rows["horizontal"].round(2) + 0.0,
            "from": rows["horizontal_low"].round(2) + 0.0,
            "to": rows["horizontal_high"].round(2) + 0.0,
            "Vertical": rows["vertical"].round(2) + 0.0,
            "from ": rows["vertical_low"].round(2) + 0.0,
            "to ": rows["vertical_high"].round(2) + 0.0,
            "Reliability": rows["reliability"].round(2) + 0.0,
            "Verdict": told_verdicts(rows),
            "Same weights as": rows["same_as"],
        }
    ).reset_index(drop=True)


def key(row: pd.Series) -> str:
    """A layer in the address: the network's source and the layer's position."""
    return f"{row['source']}#{row['position']}"


@st.cache_data(show_spinner=False, ttl=30, max_entries=4)  # every page asks, for the list of pages
def _names(storage: str) -> list[str]:
    place = UPath(storage)
    return [place.name] if is_atlas(place) else atlas_names(place)


@st.cache_data(show_spinner=False, max_entries=4)
def _table(atlas: str, version: str) -> pd.DataFrame:
    return read_atlas(AtlasDir(UPath(atlas)))
