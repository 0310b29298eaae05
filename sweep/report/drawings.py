"""Small drawings for the report: lines, intervals, strips of neurons; SVG text and PNG data URIs."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from markupsafe import Markup
from PIL import Image

from analysis.banding import THRESHOLD
from analysis.picture import evenly, neuron_tiles
from sweep.results.cells import COLOURS

NEURONS = 24

_WIDTH, _HEIGHT = 250, 128
_LEFT, _RIGHT, _TOP, _BOTTOM = 26, 6, 6, 18
_LOW, _HIGH = -0.35, 1.0
_TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A score over epochs; `thick` for a mean over seeds, thin for a single seed."""

    direction: str
    epochs: Sequence[float]
    scores: Sequence[float]
    thick: bool


def trajectory_svg(lines: Sequence[Line]) -> Markup:
    """Banding scores over epochs, on a logarithmic axis as checkpoints are kept; dashed: the threshold of a verdict."""
    last = max((max(line.epochs) for line in lines), default=1.0) or 1.0
    marks = [_rule(THRESHOLD, "4 3"), _rule(0.0, ""), *(_y_label(value) for value in (0.0, 0.5, 1.0))]
    marks += [_x_label(tick, last) for tick in _ticks(last)]
    marks += [_polyline(line, last) for line in sorted(lines, key=lambda line: line.thick)]
    return Markup(  # built from numbers and names of directions
        f'<svg class="trajectory" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="banding scores over epochs">'
        + "".join(marks)
        + "</svg>"
    )


def interval_svg(mean: float, interval: tuple[float, float] | None, colour: str) -> Markup:
    """A mean and its interval on an axis from -1.5 to 1.5, cut off there; just a dot where there is no interval."""

    def x(value: float) -> float:
        return round(90 + 58 * min(max(value, -1.5), 1.5), 1)

    parts = ['<line x1="90" x2="90" y1="0" y2="16" stroke="#888"/>']
    if interval is not None:
        low, high = interval
        parts.append(f'<line x1="{x(low)}" x2="{x(high)}" y1="8" y2="8" stroke="{colour}" stroke-width="3"/>')
    parts.append(f'<circle cx="{x(mean)}" cy="8" r="4" fill="{colour}"/>')
    return Markup('<svg class="interval" viewBox="0 0 180 16">' + "".join(parts) + "</svg>")  # numbers


def strip(reduced: np.ndarray, order: np.ndarray, neurons: int = NEURONS) -> str:
    """Neurons evenly spaced along their order, side by side, one pixel per kernel position; the page enlarges it."""
    chosen = evenly(order, neurons)
    return data_uri(neuron_tiles(reduced, chosen, len(chosen), scale=1))


def data_uri(image: Image.Image) -> str:
    """An image as a PNG within the page."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _x(epoch: float, last: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log1p(epoch) / math.log1p(last)


def _y(score: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (_HIGH - min(max(score, _LOW), _HIGH)) / (_HIGH - _LOW)


def _ticks(last: float) -> list[float]:
    """Round epochs, and the last one; none so close to it that the numbers would touch."""
    round_ones = [tick for tick in _TICKS if _x(last, last) - _x(tick, last) > 20]
    return [*round_ones, last]


def _rule(score: float, dash: str) -> str:
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(score):.1f}" y2="{_y(score):.1f}" class="rule"{style}/>'


def _y_label(score: float) -> str:
    return f'<text x="{_LEFT - 4}" y="{_y(score) + 3:.1f}" text-anchor="end">{score:g}</text>'


def _x_label(epoch: float, last: float) -> str:
    anchor = "end" if epoch == last else "middle"
    return f'<text x="{_x(epoch, last):.1f}" y="{_HEIGHT - 5}" text-anchor="{anchor}">{epoch:g}</text>'


def _polyline(line: Line, last: float) -> str:
    points = [(_x(epoch, last), _y(score)) for epoch, score in zip(line.epochs, line.scores, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    colour, width, opacity = COLOURS[line.direction], *((2.2, 1.0) if line.thick else (1.0, 0.4))
    style = f'fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}" stroke-linejoin="round"'
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in points if line.thick)
    return f'<polyline points="{path}" {style}/>{dots}'
