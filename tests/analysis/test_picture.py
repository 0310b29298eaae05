"""The pictures show the neurons they should, where they should."""

import numpy as np
import pytest

from analysis.picture import FigureRow, evenly, figure, neuron_tiles


def test_tiles_show_neurons_in_their_order_magnified() -> None:
    reduced = np.zeros((3, 2, 2, 3), dtype=np.float32)
    reduced[0, ..., 0], reduced[1, ..., 1], reduced[2, ..., 2] = 1, 1, 1
    picture = np.asarray(neuron_tiles(reduced, np.array([2, 0]), columns=2, scale=4))
    assert picture.shape == (8, 18, 3)
    assert picture[0, 0].tolist() == [0, 0, 255]
    assert picture[0, -1].tolist() == [255, 0, 0]
    assert picture[0, 9].tolist() == [255, 255, 255]


def test_neurons_are_chosen_evenly_along_their_order() -> None:
    assert evenly(np.arange(9)[::-1], 3).tolist() == [8, 4, 0]
    assert evenly(np.arange(2), 3).tolist() == [0, 1]


def test_a_figure_has_a_row_a_trial() -> None:
    reduced = np.ones((4, 5, 5, 3), dtype=np.uint8) * 200
    row = FigureRow(label="baseline", note="horizontal 0.90 / -0.10", reduced=reduced, order=np.arange(4))
    one, two = figure([row]), figure([row, row])
    assert two.width == one.width
    assert two.height > 1.5 * one.height


@pytest.mark.parametrize("kernel", [(2, 2), (11, 11), (3, 7), (31, 31)])
def test_a_figure_of_fifty_layers_of_any_kernel_stays_of_a_size_to_look_at(kernel: tuple[int, int]) -> None:
    row = FigureRow(label="layer4.2.conv2", note="none", reduced=np.ones((64, *kernel, 3)), order=np.arange(64))
    picture = figure([row] * 50, zoom=1)
    assert picture.width < 2000
    assert picture.height < 6000


def test_a_figure_of_nothing_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="analyse a checkpoint"):
        figure([])
