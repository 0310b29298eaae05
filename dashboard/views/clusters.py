"""Clusters: which kinds of kernels the layers have, for any number of kinds; the article's figure 12 beside them."""

import numpy as np
import pandas as pd
import streamlit as st

from analysis.clusters import LABELS
from analysis.figure12 import CLUSTERS, K
from analysis.picture import neuron_tiles
from dashboard import address, frame, source
from dashboard.words import page_title, plain
from sweep.results.figure12 import Centre, ClusterRow, cluster_section
from sweep.results.state import State
from sweep.results.tables import Row
from sweep.results.words import decimal, short_layer

ACROSS = 7
SCALE = 16


def choose_k(ks: list[int]) -> int:
    asked = next(iter(address.read("k")), str(K))
    k = int(asked) if asked.isdecimal() and int(asked) in ks else ks[0]
    if asked != str(k):
        st.warning(f"There are no {plain(asked)} clusters; these are {k}.")
    st.session_state["k of clusters"] = k
    if len(ks) > 1:
        label = "Clusters (k)"
        st.select_slider(label, ks, key="k of clusters", on_change=lambda: write_k(st.session_state["k of clusters"]))
    return k


def write_k(k: int) -> None:
    address.write("k", [str(k)])


def show_centres(centres: list[Centre]) -> None:
    for first in range(0, len(centres), ACROSS):
        for column, (number, centre) in zip(
            st.columns(ACROSS), list(enumerate(centres))[first : first + ACROSS], strict=False
        ):
            with column:
                if centre.kernel is not None:
                    picture = neuron_tiles(centre.kernel[None], np.array([0]), 1, SCALE)
                    st.image(picture, output_format="PNG", alt=f"centre {number + 1}: {centre.label}")
                st.caption(in_words(centre))


def in_words(centre: Centre) -> str:
    faint = " (faint)" if centre.faint else ""
    scores = f"horizontal {decimal(centre.horizontal)}, vertical {decimal(centre.vertical)}"
    return (
        f"**{centre.label}**{faint} · {centre.percent:.0f}% of all neurons · {scores}, its neurons "
        f"{decimal(centre.neurons)}"
    )


def table_of(rows: list[ClusterRow], centres: list[Centre], with_article: bool) -> pd.DataFrame:
    """Percentages: this sweep's clusters, and the article's where it has such a layer."""
    labels = [f"{number} {centre.label}" for number, centre in enumerate(centres, 1)]
    published = [f"article: {name}" for name in CLUSTERS] if with_article else []
    table: list[Row] = []
    for row in rows:
        facts: Row = {"Architecture": row.architecture, "Intervention": row.intervention}
        facts |= {"Layer": short_layer(row.layer), "Data set, recipe": row.condition, "Seeds": row.seeds}
        shares = zip([*labels, *published], [*row.percents, *row.article], strict=False)  # the article may have none
        table.append(facts | dict(shares))
    return pd.DataFrame(table).round(1)


def show(seen: State) -> None:
    st.set_page_config(page_title=page_title(seen.sweep.name, "Clusters"))
    clusters = source.table(seen, "clusters")
    ks = sorted(int(k) for k in clusters["k"].dropna().unique())
    if not ks:
        st.info(
            "The kernels of this sweep have not been sorted into clusters yet. `sweep report` of the sweep does it:"
        )
        st.code(f"sweep report {seen.sweep.path}", language="shell")
        return
    k = choose_k(ks)
    section = cluster_section(seen.sweep.path, seen.trials, clusters, k=k)
    if section is None:
        return
    st.caption(
        f"k-means over the reduced weights of all analysed {section.kernel} layers together, each trial at its newest "
        f"checkpoint, normalised by {section.normalisation}. A centre is an average: it is called faint where its "
        f"neurons are hardly banded themselves. Labels: {', '.join(LABELS)}."
    )
    st.subheader(f"{k} centres")
    show_centres(section.centres[k])
    st.subheader("Share of each layer's neurons, in percent")
    if k == K:
        st.caption("The article's table (figure 12) is about its simplified network, with four clusters.")
    st.dataframe(table_of(list(section.rows), section.centres[k], k == K), hide_index=True)


show(frame.begin("Clusters"))
