"""What the neurons of a layer respond to most, as `sweep examples` has written it: a sheet, and rows of a table.

Needs no torch. Axis letters: `n` neurons, `k` examples of each, the strongest first, `y x` rows and columns of a tile.
"""

import json
import struct
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from analysis.picture import neuron_tiles
from analysis.write import read_bytes
from sweep.results.tables import DAMAGE
from sweep.store.trial_dir import TrialDir

EXAMPLES = 8
TILE = 32  # pixels
_GAP = 1  # between tiles
_BROKEN_PNG = (*DAMAGE, SyntaxError, struct.error, Image.DecompressionBombError)  # what Pillow raises for one


class DamagedSheetError(ValueError):
    """A sheet is not as it was drawn; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A validation image, by its number, in which a neuron's output is high, and at which position of the map.

    `picture` uint8[y, x, 3] is what this position sees of the image.
    """

    activation: float
    image: int
    row: int
    column: int
    picture: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The strongest of so many `images`; a position sees `height` times `width` pixels, scaled to a tile."""

    images: int
    height: int
    width: int
    strongest: list[Example]


def sheet(tiles: UInt8[np.ndarray, "n k y x 3"]) -> Image.Image:
    """A row of tiles for each neuron."""
    return neuron_tiles(
        tiles.reshape(-1, *tiles.shape[2:]), np.arange(tiles.shape[0] * tiles.shape[1]), tiles.shape[1], 1
    )


def read_sheet(trial: TrialDir, step: int, layer: str) -> UInt8[np.ndarray, "n k y x 3"] | None:
    """The tiles of a layer's sheet, or None where there is none.

    Raises:
        DamagedSheetError: it can't be read.
    """
    file = trial.measured_picture("examples", step, layer)
    try:
        data = read_bytes(file)
    except FileNotFoundError:
        return None
    try:
        with Image.open(BytesIO(data)) as picture:
            pixels = np.pad(np.asarray(picture.convert("RGB")), ((0, _GAP), (0, _GAP), (0, 0)))
    except _BROKEN_PNG as error:
        raise DamagedSheetError(f"{file} is damaged; remove it, and `sweep examples` draws it again") from error
    each = TILE + _GAP
    neurons, examples = pixels.shape[0] // each, pixels.shape[1] // each
    if pixels.shape[:2] != (neurons * each, examples * each):
        raise DamagedSheetError(f"{file} is no sheet of tiles; remove it, and `sweep examples` draws it again")
    return pixels.reshape(neurons, each, examples, each, 3)[:, :TILE, :, :TILE].swapaxes(1, 2)


def examples_of(
    rows: pd.DataFrame, tiles: UInt8[np.ndarray, "n k y x 3"], step: int, layer: str, neuron: int
) -> Examples | None:
    """A neuron's examples, from a trial's rows of the table `examples` and a layer's tiles; None where it has none."""
    own = rows[(rows["step"] == step) & (rows["layer"] == layer) & (rows["neuron"] == neuron)]
    if own.empty or neuron >= len(tiles):
        return None
    row = own.iloc[0]
    try:
        told = [json.loads(row[name]) for name in ("activations", "image_numbers", "positions", "windows")]
        strongest = [
            Example(activation=activation, image=image, row=down, column=across, picture=picture)
            for activation, image, (down, across), _, picture in zip(*told, tiles[neuron], strict=True)
        ]
        top, left, bottom, right = told[-1][0]
    except (ValueError, TypeError, LookupError):  # a damaged file or the sheet of another run, which a new one mends
        return None
    return Examples(images=int(row["images"]), height=bottom - top, width=right - left, strongest=strongest)
