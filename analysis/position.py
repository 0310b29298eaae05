"""How well a linear model reads absolute position from a feature map.

Axis letters: `n` images, `c` channels, `h w` map rows and columns, `p` positions (h, w flattened), `d` c + 1 terms.
At each position of each image the c channels predict the position's row, and its column, by ridge regression; R^2 is
computed on images that the regression has not seen.

Source: after Islam et al. 2020 (arXiv:2001.08248), who read position from VGG and ResNet maps, and Kayhan and
van Gemert 2020 (arXiv:2003.07064). A linear readout of single positions, without their neighbours, is ours: it never
sees the map's border, from which it could read position by itself.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

FOLDS = 5
PENALTY = 1e-3


@dataclass(frozen=True, kw_only=True)
class Readout:
    """R^2 of row and column over unseen images: 1 is perfect, 0 no better than the mean, None where there is
    only one row or one column."""

    row_r2: float | None
    column_r2: float | None


def read_position(maps: Num[np.ndarray, "n c h w"], folds: int = FOLDS) -> Readout:
    """Cross-validate the linear readout of absolute row and column: image i is tested in fold i mod `folds`.

    Channels are standardised over the training images; the ridge penalty is 1e-3 for each training position.

    Raises:
        ValueError: there are fewer images than folds, or numbers that are not finite.
    """
    n, _, h, w = maps.shape
    if n < folds:
        raise ValueError(f"{n} images can't make {folds} folds; give at least {folds} images")
    if not np.isfinite(maps).all():
        raise ValueError("feature maps must be finite; did training diverge?")
    targets = _centred_positions(h, w)
    moments = [_moments(maps[fold::folds], targets) for fold in range(folds)]
    whole = _total(moments)
    errors = sum(_squared_errors(whole - tested, tested) for tested in moments)
    assert isinstance(errors, np.ndarray)
    spread = n * np.square(targets).sum(axis=0)
    row, column = (
        None if length < 2 else float(1 - error / total)
        for length, error, total in zip((h, w), errors, spread, strict=True)
    )
    return Readout(row_r2=row, column_r2=column)


@dataclass(frozen=True)
class _Moments:
    """Sums over positions: `gram` X'X, `cross` X'Y and `squares` of Y, where X has a column of ones at its end."""

    gram: Float[np.ndarray, "d d"]
    cross: Float[np.ndarray, "d 2"]
    squares: Float[np.ndarray, " 2"]

    def __sub__(self, other: "_Moments") -> "_Moments":
        return _Moments(self.gram - other.gram, self.cross - other.cross, self.squares - other.squares)


def _total(moments: list[_Moments]) -> _Moments:
    return _Moments(
        gram=np.sum([part.gram for part in moments], axis=0),
        cross=np.sum([part.cross for part in moments], axis=0),
        squares=np.sum([part.squares for part in moments], axis=0),
    )


def _centred_positions(h: int, w: int) -> Float[np.ndarray, "p 2"]:
    """Row and column of each position, each with mean 0 over the map."""
    positions = np.indices((h, w)).reshape(2, h * w).T.astype(np.float64)
    return positions - positions.mean(axis=0)


def _moments(maps: Num[np.ndarray, "n c h w"], targets: Float[np.ndarray, "p 2"]) -> _Moments:
    n, c, _, _ = maps.shape
    x = np.ones((n, len(targets), c + 1))
    x[:, :, :c] = maps.reshape(n, c, -1).transpose(0, 2, 1)
    x = x.reshape(-1, c + 1)
    y = np.tile(targets, (n, 1))
    return _Moments(x.T @ x, x.T @ y, np.square(y).sum(axis=0))


def _squared_errors(train: _Moments, test: _Moments) -> Float[np.ndarray, " 2"]:
    """Summed squared errors over the tested positions of the ridge fitted to the training ones, for row and column.

    The targets have mean 0 over every image, so that in standardised channels the intercept is 0.
    """
    positions = train.gram[-1, -1]
    mean = train.gram[-1, :-1] / positions
    covariance = train.gram[:-1, :-1] / positions - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0))
    scale = np.where(
        deviation > 1e-6 * (np.abs(mean) + deviation), deviation, np.inf
    )  # a constant channel carries no information
    standard = covariance / np.outer(scale, scale)
    cross = (train.cross[:-1] - np.outer(mean, train.cross[-1])) / scale[:, None] / positions
    slopes = np.linalg.solve(standard + PENALTY * np.eye(len(standard)), cross) / scale[:, None]
    weights = np.vstack([slopes, -mean @ slopes])
    return test.squares - 2 * (weights * test.cross).sum(axis=0) + ((test.gram @ weights) * weights).sum(axis=0)
