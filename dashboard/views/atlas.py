"""Atlas: which trained networks are banded? Verdicts by pooling, a table of scored layers, and their weights."""

import pandas as pd
import streamlit as st

from dashboard import address, atlases, source
from dashboard.words import page_title, plain
from sweep.results.atlas import failures, told_verdicts, verdicts_by
from sweep.results.cells import SYMBOLS
from sweep.results.words import count, decimal, remarkable
from sweep.store.atlas_dir import AtlasDir

NEURONS = 48
SHOWN = "shown"


def choose_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The scored layers that the reader wants to see."""
    scored = table[table["verdict"].notna()]
    told = scored.assign(verdict=told_verdicts(scored))
    positions = [str(position) for position in sorted(scored["position"].unique())]
    varied = {name: label for name, label in atlases.FILTERS.items() if len(told[name].unique()) > 1}
    wanted = {}
    with st.container(horizontal=True):
        place = address.choose_one("Position, 1 is the last", positions, "position")
        for name, label in varied.items():
            wanted[name] = address.choose_some(label, sorted(told[name].dropna().unique()), name)
        st.session_state["search networks"] = next(iter(address.read("search")), "")
        search = st.text_input("Search", key="search networks", on_change=write_search)
    return scored.loc[atlases.matching(told[told["position"] == int(place)], wanted, search).index]


def write_search() -> None:
    said = st.session_state["search networks"].strip()
    address.write("search", [said] if said else [])


def show_table(rows: pd.DataFrame) -> None:
    """The table; a click on a row shows its weights."""
    st.caption(f"{count(len(rows), 'layer')}. Click a row to see its weights, a column's head to sort.")
    decimals = st.column_config.NumberColumn(format="%.2f", width="small")
    event = st.dataframe(
        atlases.for_reader(rows),
        hide_index=True,
        column_config=dict.fromkeys(atlases.DECIMALS, decimals),
        on_select="rerun",
        selection_mode="single-row",
        key=f"atlas {pd.util.hash_pandas_object(rows['source'], index=False).sum()}",
    )
    if chosen := event["selection"]["rows"]:
        address.write(SHOWN, [atlases.key(rows.iloc[chosen[0]])])


def show_weights(atlas: AtlasDir, table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """The picture of the layer that the address names, or of the first one."""
    asked = next(iter(address.read(SHOWN)), None)
    found = table[table["verdict"].notna()]
    keys = found["source"] + "#" + found["position"].astype("string")
    named = found[keys == asked] if asked else rows
    if named.empty:
        st.warning(f"There is no scored layer {plain(str(asked))} in this atlas.")
        return
    row = named.iloc[0]
    st.subheader(f"{plain(row['source'])} · {plain(row['layer'])}")
    scores = f"horizontal {decimal(row['horizontal'])}, vertical {decimal(row['vertical'])}"
    verdict = told_verdicts(named).iloc[0]
    st.caption(f"{SYMBOLS[row['verdict']]} {verdict} · {scores} · {plain(row['pooling'])} · {row['kernel']}")
    numbers = row[["dead", "single_tap"]].fillna(0)
    if remark := remarkable(row["neurons"], numbers["dead"], numbers["single_tap"]):
        st.caption(remark)
    layer = atlases.layer(atlas, row)
    if layer is None:
        st.info("Its picture can't be read; remove the folder of its results and run `sweep atlas` again.")
        return
    picture = source.strip(layer, neurons=NEURONS, columns=24, scale=9)
    st.image(picture, output_format="PNG", alt=f"Neurons of {row['source']}, {row['layer']}: {verdict}")


def show_failures(table: pd.DataFrame) -> None:
    for number, error, sources in failures(table):
        with st.expander(f"{count(number, 'network')} without scores: {plain(error)}"):
            st.code("\n".join(sources), language=None)


def main() -> None:
    names = atlases.names()
    st.title("Atlas")
    if not names:
        st.info("There is no atlas in this storage yet. Make one, then reload this page:")
        st.code(f"sweep atlas timm torchvision --storage {atlases.storage()}", language="shell")
        return
    name = names[0]
    if len(names) > 1:
        with st.sidebar:
            name = address.choose_one("Atlas", names, "atlas")
    st.set_page_config(page_title=page_title(name, "Atlas"))
    atlas = atlases.opened(name)
    table = atlases.table(atlas)
    if table["verdict"].notna().any():
        st.subheader("Verdicts of last layers by pooling")
        st.dataframe(verdicts_by(table, "pooling"), hide_index=True, width="content")
        rows = choose_rows(table)
        if rows.empty:
            st.info("No layer matches the filters above.")
        else:
            show_table(rows)
            show_weights(atlas, table, rows)
    else:
        st.info("Nothing is scored yet; `sweep atlas` writes its table every half a minute.")
    show_failures(table)


main()
