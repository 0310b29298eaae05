"""What one neuron is made of: its factors, its scores, the kernels of its strongest inputs."""

import base64

import numpy as np
import streamlit as st
from PIL import Image

from dashboard import source, weights
from dashboard.weights import COLOURS
from dashboard.words import plain
from sweep.results.raw_weights import UnreadableWeightsError, strongest_inputs
from sweep.results.state import State
from sweep.results.tables import ReducedLayer
from sweep.results.words import count, decimal

INPUTS = 8
COLOURS_IN_WORDS = (
    "NMF writes the neuron's weights, split into positive and negative parts, as a sum of three factors: patterns over "
    "the kernel's positions, each with its own mix of inputs. They are drawn in red, green and blue; bright is strong, "
    "and white in the grey pictures is the neuron's largest value. One principal component over all neurons of the "
    "layer orders the factors: red lies at the top (or at the left, where patterns vary more sideways), blue at the "
    "other end, green between. So a colour means the same in every neuron of a layer, but not in different layers."
)


def show_parts(seen: State, trial_id: str, step: int, layer: str, reduced: ReducedLayer, neuron: int) -> None:
    """Draw a neuron's factors and scores, and beside them its strongest inputs."""
    left, right = st.columns(2, gap="large")
    with left:
        _show_factors(reduced, neuron)
    with right:
        _show_inputs(seen, trial_id, step, layer, neuron)


def _show_factors(reduced: ReducedLayer, neuron: int) -> None:
    """A neuron's colours apart, its scores, and what the colours stand for."""
    st.subheader("Three factors")
    with st.container(horizontal=True):
        _show_picture(weights.coloured(reduced, neuron), "together")
        for colour, picture in zip(COLOURS, weights.factors(reduced, neuron), strict=True):
            _show_picture(picture, colour)
    for direction in ("horizontal", "vertical"):
        scores = getattr(reduced, direction)
        place = f"{weights.rank(scores, neuron):,} of {len(scores):,}"
        st.markdown(f"{direction.capitalize()} score **{decimal(scores[neuron])}**, rank {place}")
    st.caption(COLOURS_IN_WORDS)


def _show_inputs(seen: State, trial_id: str, step: int, layer: str, neuron: int) -> None:
    """The kernels of the inputs that the neuron listens to most."""
    st.subheader("Strongest inputs")
    try:
        kernels = source.neuron_weights(str(seen.sweep.path), trial_id, step, layer, neuron)
    except UnreadableWeightsError as error:
        st.info(f"The raw weights can't be shown: {plain(str(error))}.")
        return
    strong = strongest_inputs(kernels, INPUTS)
    largest = float(np.abs(strong.kernels).max())
    with st.container(horizontal=True):
        for channel, kernel, share in zip(strong.channels, strong.kernels, strong.shares, strict=True):
            _show_picture(weights.signed(kernel, largest), f"input {channel} · {100 * share:.1f} %")
    st.caption(
        f"The weights themselves of the {len(strong.channels)} of {count(strong.inputs, 'input channel')} with the "
        "largest share of the neuron's squared weights (the number below). Orange is positive, blue negative, white "
        f"zero; the strongest colour is ±{largest:.3g}."
    )


def _show_picture(picture: Image.Image, caption: str) -> None:
    """Draw a picture in its own size, since a browser that magnifies it would smooth it.

    It is a data URL: while a slider moves fast, Streamlit forgets files before the browser has asked for them.
    """
    url = f"data:image/png;base64,{base64.b64encode(weights.png(picture)).decode()}"
    st.image(url, caption=caption, alt=caption, width=picture.width)
