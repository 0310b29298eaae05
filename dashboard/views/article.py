"""Article: what it found, cell by cell, beside what this sweep found; differences first, each with its weights."""

from typing import Any

import streamlit as st

from dashboard import findings, frame, grids, source
from dashboard.paging import page_of
from dashboard.words import page_title, plain
from sweep.results.cells import SYMBOLS
from sweep.results.state import State
from sweep.results.words import count, short_layer

ROWS = 12


def show_finding(seen: State, row: dict[str, Any]) -> None:
    facts = (row["intervention"], row["architecture"], short_layer(row["layer"]), row["title"])
    st.markdown(f"**{plain(' · '.join(fact for fact in facts if fact))}**")
    sign = "≠" if row["surprising"] else "✓"
    agreeing = f", {row['agreeing']} of {row['n']} seeds" if row["agreeing"] < row["n"] else ""
    st.markdown(
        f"{sign} expected {row['expected']}, found {SYMBOLS[row['verdict']]} **{row['told']}** "
        f"({findings.score_in_words(row)}; {count(int(row['n']), 'seed')}{agreeing})"
    )
    layer = source.reduced_layer(seen, row["trial_id"], int(row["step"]), row["layer"])
    if layer is not None:
        picture = source.strip(layer, neurons=24, columns=24, scale=7)
        st.image(picture, output_format="PNG", alt=f"24 neurons of {row['trial_id']}, {row['layer']}")
    chosen = {"sweep": seen.sweep.name, "show": grids.shown(row)}
    st.page_link("views/weights.py", label="All its neurons", query_params=chosen)


def show(seen: State) -> None:
    st.set_page_config(page_title=page_title(seen.sweep.name, "Article"))
    st.caption(
        "Petrov et al., Weight Banding, Distill 2021. What is expected of a layer is the article's finding for the "
        "same intervention; where it has none, the row is left out. VGG19's exception (banded without pooling) carries "
        "its authors' own doubt."
    )
    found = findings.findings(seen)
    waiting = findings.unfinished(seen)
    if waiting:
        st.info(f"{count(waiting, 'cell')} {'has' if waiting == 1 else 'have'} no finding yet.")
    if found.empty:
        st.info("Nothing that the article speaks of is finished and analysed yet; this page shows it once it is.")
        return
    differing = int(found["surprising"].sum())
    st.subheader(f"{seen.agreement} · {count(differing, 'difference')}")
    pages = -(-len(found) // ROWS)
    page = page_of(pages, "page", f"of {pages} ({count(len(found), 'finding')})")
    for row in found.iloc[(page - 1) * ROWS : page * ROWS].to_dict("records"):
        show_finding(seen, {str(name): value for name, value in row.items()})


show(frame.begin("Article"))
