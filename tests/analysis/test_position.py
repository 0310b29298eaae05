"""The position readout on maps whose position is known."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from analysis.position import PENALTY, read_position


def noise(n: int = 20, c: int = 3, h: int = 4, w: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, c, h, w))


def test_a_channel_that_is_the_row_is_read_perfectly_and_tells_no_column() -> None:
    maps = noise()
    maps[:, 1] = np.arange(4)[:, None]
    readout = read_position(maps)
    assert readout.row_r2 == pytest.approx(1, abs=1e-5)
    assert readout.column_r2 == pytest.approx(0, abs=0.05)


def test_noise_tells_nothing() -> None:
    readout = read_position(noise(n=200))
    assert readout.row_r2 == pytest.approx(0, abs=0.01)
    assert readout.column_r2 == pytest.approx(0, abs=0.01)


def test_it_is_scikit_learns_ridge_over_unseen_images() -> None:
    maps = noise() + 0.3 * np.arange(4)[:, None] - 0.1 * np.arange(5)
    rows, columns = (np.tile(axis.ravel(), 20) for axis in np.indices((4, 5)))
    x, image = maps.transpose(0, 2, 3, 1).reshape(400, 3), np.repeat(np.arange(20), 20)
    predicted = np.empty((400, 2))
    for fold in range(5):
        train, test = image % 5 != fold, image % 5 == fold
        mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
        ridge = Ridge(alpha=PENALTY * train.sum()).fit((x[train] - mean) / deviation, np.c_[rows, columns][train])
        predicted[test] = ridge.predict((x[test] - mean) / deviation)
    readout = read_position(maps)
    assert readout.row_r2 == pytest.approx(r2_score(rows, predicted[:, 0]), abs=1e-9)
    assert readout.column_r2 == pytest.approx(r2_score(columns, predicted[:, 1]), abs=1e-9)


def test_memory_of_single_images_does_not_help() -> None:
    # More channels than training positions, all noise: fitted perfectly where seen, worthless where not.
    readout = read_position(noise(n=5, c=100))
    assert readout.row_r2 is not None
    assert readout.row_r2 < 0


def test_constant_channels_are_ignored() -> None:
    maps = noise()
    maps[:, 0] = 7.0
    assert read_position(maps).row_r2 == pytest.approx(read_position(maps[:, 1:]).row_r2)


def test_a_map_of_one_row_has_no_row_to_read() -> None:
    readout = read_position(noise(h=1))
    assert readout.row_r2 is None
    assert readout.column_r2 is not None


@pytest.mark.parametrize(
    ("maps", "complaint"), [(noise(n=4), "at least 5 images"), (np.full((5, 1, 2, 2), np.nan), "finite")]
)
def test_what_cannot_be_probed_says_why(maps: np.ndarray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_position(maps)
