from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.data.images import Images


@pytest.fixture
def shards(tmp_path: Path) -> list[np.ndarray]:
    """Three memory-mapped shards of 4, 1 and 2 images of 3 x 6 x 8 levels."""
    levels = np.random.default_rng(0).integers(0, 256, (7, 3, 6, 8), dtype=np.uint8)
    for name, part in (("a", levels[:4]), ("b", levels[4:5]), ("c", levels[5:])):
        np.save(tmp_path / name, part)
    return [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "abc"]


def test_images_of_all_shards_are_counted_through(shards: list[np.ndarray]) -> None:
    whole = np.concatenate(shards)
    images = Images(shards)
    assert (len(images), images.side, images.nbytes) == (7, (6, 8), whole.nbytes)
    assert np.array_equal(images[:], whole)
    assert np.array_equal(images[3:6], whole[3:6])
    assert np.array_equal(images.gather(torch.tensor([6, 0, 4])), whole[[6, 0, 4]])


def test_rows_choose_some_of_them(shards: list[np.ndarray]) -> None:
    chosen = Images(shards, np.array([5, 1, 4]))
    assert len(chosen) == 3
    assert np.array_equal(chosen[:], np.concatenate(shards)[[5, 1, 4]])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_windows_are_cut_while_they_are_copied(shards: list[np.ndarray], threads: int) -> None:
    numbers, corners = torch.tensor([4, 6, 0]), torch.tensor([[0, 0], [2, 4], [1, 3]])
    out = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with ThreadPoolExecutor(threads) as pool:
        Images(shards).copy(numbers, corners, out, pool, threads)
    whole = np.concatenate(shards)
    for window, number, (top, left) in zip(out, numbers, corners.tolist(), strict=True):
        assert np.array_equal(window, whole[number, :, top : top + 4, left : left + 4])
