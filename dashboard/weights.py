"""What the pages about weights show: layers by their addresses, checkpoints by epoch, orders of neurons, pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from PIL import Image

from analysis.picture import neuron_tiles, png
from sweep.results.statistics import BASELINE, CONDITION
from sweep.results.tables import ReducedLayer
from sweep.results.words import decimal

Sort = Literal["similarity", "horizontal", "vertical", "number"]
SORTS: tuple[str, ...] = get_args(Sort)
ATLAS_COLUMNS = 32
ATLAS_GAP = 1
COLOURS = ("red", "green", "blue")
"""What the three factors are drawn in, in their order."""

PICTURE_PX = 75
_MARGIN = 3  # pixels: Streamlit rounds the corners of pictures


@dataclass(frozen=True)
class Shown:
    """A layer of a trial, in the address `<trial>/<layer>`; without a layer, the trial's last conv."""

    trial_id: str
    layer: str = ""

    @classmethod
    def parse(cls, text: str) -> "Shown":
        trial_id, _, layer = text.partition("/")
        return cls(trial_id, layer)

    def __str__(self) -> str:
        return f"{self.trial_id}/{self.layer}" if self.layer else self.trial_id


def analysed(layers: pd.DataFrame) -> pd.DataFrame:
    """The rows of a trial's layers that have scores, the last conv first, in the order of their checkpoints."""
    good = layers[layers["error"].isna() & layers["verdict"].notna()]
    return good.sort_values(["position", "step"], kind="stable")


def epochs_of(parts: Sequence[pd.DataFrame]) -> list[float]:
    """The epochs at which any of several layers has an analysed checkpoint."""
    return sorted({float(epoch) for part in parts for epoch in part["epoch"].dropna()})


def epoch_of(text: str) -> float | None:
    """An epoch as an address gives it; None if it is none."""
    try:
        epoch = float(text)
    except ValueError:
        return None
    return epoch if 0 <= epoch < math.inf else None


def at_epoch(rows: pd.DataFrame, epoch: float) -> pd.Series | None:
    """A layer's newest row at or before an epoch; None where its first checkpoint is later."""
    reached = rows[rows["epoch"] <= epoch]
    return None if reached.empty else reached.sort_values("step").iloc[-1]


def ordered(layer: ReducedLayer, sort: str, leading: np.ndarray | None = None) -> np.ndarray:
    """The neurons of a layer by similarity, by number, or by a score with the highest first.

    `leading`, the order of another layer, comes before that where it has as many neurons.
    """
    if leading is not None and len(leading) == len(layer.reduced):
        return leading
    if sort == "number":
        return np.arange(len(layer.reduced))
    if sort in ("horizontal", "vertical"):
        return np.argsort(-getattr(layer, sort), kind="stable")
    return layer.order


def rank(scores: np.ndarray, neuron: int) -> int:
    """The place of a neuron by its score; 1 is the highest."""
    return int((scores > scores[neuron]).sum()) + 1


def labels(layer: ReducedLayer) -> list[str]:
    """What each neuron is, in words."""
    scores = zip(layer.horizontal.tolist(), layer.vertical.tolist(), strict=True)
    return [f"neuron {n}: horizontal {decimal(h)}, vertical {decimal(v)}" for n, (h, v) in enumerate(scores)]


def atlas(layer: ReducedLayer) -> bytes:
    """A PNG of all neurons in the order of their numbers, `ATLAS_COLUMNS` a row, one pixel a position."""
    return png(neuron_tiles(layer.reduced, np.arange(len(layer.reduced)), ATLAS_COLUMNS, scale=1))


def factors(layer: ReducedLayer, neuron: int, width: int = PICTURE_PX) -> list[Image.Image]:
    """A neuron's three factors as grey pictures; white is the neuron's largest value."""
    levels = np.rint(np.clip(layer.reduced[neuron], 0, 1) * 255).astype(np.uint8)
    return [magnified(levels[:, :, [factor] * 3], width) for factor in range(len(COLOURS))]


def coloured(layer: ReducedLayer, neuron: int, width: int = PICTURE_PX) -> Image.Image:
    """A neuron as it is drawn among the others, larger."""
    return magnified(np.rint(np.clip(layer.reduced[neuron], 0, 1) * 255).astype(np.uint8), width)


def signed(kernel: np.ndarray, largest: float, width: int = PICTURE_PX) -> Image.Image:
    """A kernel [y, x]: orange where positive, blue where negative, white at 0, full at `largest`."""
    share = np.clip(kernel / (largest or 1.0), -1, 1)[:, :, None]
    full = np.where(share > 0, np.array([213, 94, 0]), np.array([0, 114, 178]))
    return magnified(np.rint(255 + np.abs(share) * (full - 255.0)).astype(np.uint8), width)


def magnified(pixels: np.ndarray, width: int = PICTURE_PX) -> Image.Image:
    """A picture [y, x, 3] with each pixel drawn as a square, about `width` pixels wide, in a transparent margin."""
    scale = max(1, round(width / pixels.shape[1]))
    squares = Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    picture = Image.new("RGBA", (squares.width + 2 * _MARGIN, squares.height + 2 * _MARGIN))
    picture.paste(squares, (_MARGIN, _MARGIN))
    return picture


def baseline_of(trials: pd.DataFrame, trial: pd.Series) -> str | None:
    """The baseline's trial with the conditions and the seed of a trial, which may be itself; None without one."""
    same = trials["intervention"] == BASELINE
    for column in (*CONDITION, "seed"):
        same &= trials[column] == trial[column]
    found = trials.loc[same.fillna(False).astype(bool), "trial_id"]
    return None if found.empty else str(found.iloc[0])
