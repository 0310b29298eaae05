"""What one neuron is made of, its factors, its scores and its strongest inputs, and what it responds to."""

import base64

import numpy as np
import streamlit as st
from PIL import Image

from analysis.picture import png
from dashboard import source, weights
from dashboard.weights import COLOURS
from dashboard.words import plain
from sweep.results.example_sheets import DamagedSheetError
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
    """Draw a neuron's factors and scores, beside them its strongest inputs, and below what it responds to."""
    left, right = st.columns(2, gap="large")
    with left:
        _show_factors(reduced, neuron)
    with right:
        _show_inputs(seen, trial_id, step, layer, neuron)
    _show_examples(seen, trial_id, step, layer, neuron)


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


def _show_examples(seen: State, trial_id: str, step: int, layer: str, neuron: int) -> None:
    """The images that activate the neuron most, each cut to what the position sees that they activate."""
    st.subheader("Dataset examples")
    try:
        found = source.examples(seen, trial_id, step, layer, neuron)
    except DamagedSheetError as error:
        st.info(f"They can't be shown: {plain(str(error))}.")
        return
    if found is None:
        st.caption(
            "The images that activate this neuron most have not been looked for at this checkpoint. `sweep examples` "
            "finds them for each trial's newest one:"
        )
        st.code(f"sweep examples {seen.sweep.path}", language="shell")
        return
    with st.container(horizontal=True):
        for example in found.strongest:
            place = f"row {example.row}, column {example.column}"
            told = f"activation {example.activation:.3g} by validation image {example.image} at {place}"
            _show_picture(weights.magnified(example.picture), f"{example.activation:.3g} · {place}", told)
    st.caption(
        f"Of {count(found.images, 'validation image')}, those that activate the neuron most, the strongest first. The "
        "number is the conv's highest output, before batch norm and ReLU; row and column are where in its map that is. "
        f"Of each image, as the network is shown it, the {found.height} x {found.width} pixels are drawn that this "
        "position depends on, which may be all of them. Grey is outside the image."
    )


def _show_picture(picture: Image.Image, caption: str, alt: str | None = None) -> None:
    """Draw a picture in its own size, since a browser that magnifies it would smooth it.

    It is a data URL: while a slider moves fast, Streamlit forgets files before the browser has asked for them.
    """
    url = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
    st.image(url, caption=caption, alt=alt or caption, width=picture.width)
