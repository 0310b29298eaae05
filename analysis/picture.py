"""Draw reduced weights as the article does: each neuron a small tile of its kernel in three colours.

Axis letters: `n` neurons, `y x` kernel rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Int, Num
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND = (255, 255, 255)
_INK, _FAINT = (30, 30, 36), (110, 110, 120)


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One labelled row of a figure; `note` stands under the label, `order` sorts the neurons by similarity."""

    label: str
    note: str
    reduced: Num[np.ndarray, "n y x 3"]
    order: Int[np.ndarray, " n"]


def neuron_tiles(
    reduced: Num[np.ndarray, "n y x 3"], order: Int[np.ndarray, " m"], columns: int, scale: int = 6
) -> Image.Image:
    """The neurons in `order`, `columns` in a row, a position `scale` pixels wide; values in [0, 1] or uint8."""
    tiles = _levels(reduced)[order]
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    m, height, width, _ = tiles.shape
    gap = max(1, scale // 2)
    rows = -(-m // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return Image.fromarray(canvas)


def evenly(order: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """At most `count` of the neurons, evenly spaced along their order."""
    if len(order) <= count:
        return order
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)]


def figure(rows: Sequence[FigureRow], neurons: int = 24, scale: int = 7, zoom: int = 2) -> Image.Image:
    """The article's figures 5 to 7: one row per trial, its label on the left, `neurons` of its neurons on the right.

    Raises:
        ValueError: there is no row to draw.
    """
    if not rows:
        raise ValueError("a figure needs at least one row; analyse a checkpoint first")
    strips = [
        neuron_tiles(row.reduced, chosen, len(chosen), _tile_scale(row, scale) * zoom)
        for row in rows
        for chosen in [evenly(row.order, neurons)]
    ]
    label_font, note_font = ImageFont.load_default(15 * zoom), ImageFont.load_default(12 * zoom)
    margin, space = 14 * zoom, 12 * zoom
    label_width = 24 * zoom + round(
        max(max(label_font.getlength(row.label), note_font.getlength(row.note)) for row in rows)
    )
    heights = [max(strip.height, 38 * zoom) for strip in strips]
    width = 2 * margin + label_width + max(strip.width for strip in strips)
    canvas = Image.new("RGB", (width, 2 * margin + sum(heights) + space * (len(rows) - 1)), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    top = margin
    for row, strip, height in zip(rows, strips, heights, strict=True):
        middle = top + height // 2
        draw.text((margin, middle - 2 * zoom), row.label, fill=_INK, font=label_font, anchor="ls")
        draw.text((margin, middle + 5 * zoom), row.note, fill=_FAINT, font=note_font, anchor="la")
        canvas.paste(strip, (margin + label_width, middle - strip.height // 2))
        top += height + space
    return canvas


def png(image: Image.Image) -> bytes:
    """A picture's file, without loss."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _levels(reduced: Num[np.ndarray, "n y x 3"]) -> np.ndarray:
    if reduced.dtype == np.uint8:
        return reduced
    return np.rint(np.clip(reduced.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _tile_scale(row: FigureRow, scale: int) -> int:
    """Pixels a position, so that 3x3, 5x5 and 7x7 kernels come out about equally wide."""
    return max(2, round(scale * 5 / row.reduced.shape[2]))
