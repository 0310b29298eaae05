"""Neurons that can be looked at one by one: a tile each, chosen by a click or by the keyboard.

The tiles are parts of one lossless picture, which the browser magnifies without smoothing. They are as many a row as
there is room for, on a phone as on a wide screen. Arrow keys move among them, Enter or space chooses.
"""

import base64
from collections.abc import Callable

import numpy as np
import streamlit as st

from analysis.picture import evenly
from dashboard import source
from dashboard.weights import ATLAS_COLUMNS, ATLAS_GAP, labels
from sweep.results.state import State
from sweep.results.tables import ReducedLayer
from sweep.results.words import count

TILE_PX = 30
"""About how wide a tile is; a whole number of pixels for each position of the kernel."""
_HTML = '<style></style><div class="neurons" role="listbox" aria-label="Neurons" aria-orientation="horizontal"></div>'
_CSS = """
.neurons { display: flex; flex-wrap: wrap; gap: 4px; padding: 4px; max-height: 30rem; overflow-y: auto; }
.neurons > div {
  image-rendering: pixelated; background-repeat: no-repeat; cursor: pointer; forced-color-adjust: none;
}
.neurons > div:hover, .neurons > div:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
.neurons > [aria-selected="true"] { outline: 3px solid var(--st-text-color); outline-offset: 0; }
"""
_JS = """
const AHEAD = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: a_row, ArrowUp: (tiles) => -a_row(tiles) };

function a_row(tiles) {
  const next = tiles.findIndex((tile) => tile.offsetTop !== tiles[0].offsetTop);
  return next === -1 ? tiles.length : next;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector(".neurons");
  const { png, rows, columns, zoom, atlasColumns, gap, order, labels, chosen, name } = data;
  const focused = list.querySelector(":focus")?.dataset.neuron;
  const sheet = (columns + gap) * Math.min(atlasColumns, labels.length) - gap;
  list.setAttribute("aria-label", name);
  // A rule, not a style of each tile: the picture's text would be there 512 times.
  parentElement.querySelector("style").textContent = `.neurons > div {
    width: ${columns * zoom}px; height: ${rows * zoom}px;
    background-image: url(data:image/png;base64,${png}); background-size: ${sheet * zoom}px auto;
  }`;
  const tiles = order.map((neuron) => {
    const tile = document.createElement("div");
    const across = (neuron % atlasColumns) * (columns + gap);
    const down = Math.floor(neuron / atlasColumns) * (rows + gap);
    tile.dataset.neuron = neuron;
    tile.title = labels[neuron];
    tile.tabIndex = -1;
    tile.setAttribute("role", "option");
    tile.setAttribute("aria-label", labels[neuron]);
    tile.setAttribute("aria-selected", String(neuron === chosen));
    tile.style.backgroundPosition = `${-across * zoom}px ${-down * zoom}px`;
    return tile;
  });
  list.replaceChildren(...tiles);
  const reached = (neuron) => tiles.find((tile) => tile.dataset.neuron === String(neuron));
  const entered = reached(focused) ?? reached(chosen) ?? tiles[0];
  if (entered) entered.tabIndex = 0;
  if (focused !== undefined) entered.focus({ preventScroll: true });

  const move = (from, to) => {
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };
  list.onclick = ({ target }) => {
    if (target.dataset.neuron !== undefined) setTriggerValue("neuron", Number(target.dataset.neuron));
  };
  list.onkeydown = (event) => {
    const at = tiles.indexOf(event.target);
    if (at === -1) return;
    if (event.key === "Enter" || event.key === " ") {
      setTriggerValue("neuron", Number(event.target.dataset.neuron));
    } else if (event.key === "Home" || event.key === "End") {
      move(event.target, event.key === "Home" ? tiles[0] : tiles.at(-1));
    } else if (event.key in AHEAD) {
      const to = tiles[at + AHEAD[event.key](tiles)];
      if (to) move(event.target, to);
    } else {
      return;
    }
    event.preventDefault();
  };
}
"""
_component = st.components.v2.component("neuron_tiles", html=_HTML, css=_CSS, js=_JS)


def show_layer(
    seen: State,
    trial_id: str,
    step: int,
    layer: str,
    *,
    order: Callable[[ReducedLayer], np.ndarray],
    most: int,
    name: str,
    key: str,
    chosen: int | None,
    on_choice: Callable[[int], None],
) -> np.ndarray | None:
    """Draw at most `most` neurons of an analysed layer, spaced evenly along an order, which is returned.

    `name` is what a screen reader calls the list. `on_choice` is called with the number of the neuron that the reader
    chooses, before the page is drawn anew. Where the layer's file is missing or damaged, says so and returns None.
    """
    reduced = source.reduced_layer(seen, trial_id, step, layer)
    atlas = source.atlas(seen, trial_id, step, layer)
    if reduced is None or atlas is None:
        st.warning("The file of its pictures is missing or damaged. This rewrites it:")
        st.code(f"sweep analyze {seen.sweep.path}", language="shell")
        return None
    neurons = order(reduced)
    drawn = evenly(neurons, most)
    if len(drawn) < len(neurons):
        st.caption(f"{len(drawn):,} of {len(neurons):,} neurons are drawn, spaced evenly along their order.")
    _, rows, columns, _ = reduced.reduced.shape
    data = {
        "png": base64.b64encode(atlas).decode(),
        "rows": rows,
        "columns": columns,
        "zoom": max(1, round(TILE_PX / columns)),
        "atlasColumns": ATLAS_COLUMNS,
        "gap": ATLAS_GAP,
        "order": drawn.tolist(),
        "labels": labels(reduced),
        "chosen": chosen,
        "name": f"{count(len(drawn), 'neuron')} of {name}",
    }

    def choose() -> None:
        neuron = st.session_state[key].get("neuron")
        if neuron is not None:
            on_choice(int(neuron))

    _component(key=key, data=data, on_neuron_change=choose)
    return neurons
