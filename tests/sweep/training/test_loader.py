import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sweep.data.images import Images
from sweep.training.loader import Loader, Wanted

IMAGES, SIDE = 50, 6
LEVELS = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 8, 8), dtype=np.uint8)
LABELS = torch.arange(IMAGES)
CPU = torch.device("cpu")


def wanted(numbers: list[int]) -> Wanted:
    where = torch.tensor(numbers)
    return Wanted(where, torch.stack([where % 3, where % 2], dim=1), torch.Generator().manual_seed(numbers[0]))


def open_loader(threads: int = 1) -> Loader:
    return Loader(Images([LEVELS[:20], LEVELS[20:]]), LABELS, SIDE, CPU, threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_with_their_windows_labels_and_generators(threads: int) -> None:
    lists = [[1, 49, 7], [0, 20], [19, 21, 30, 2], [5], [6]]
    with open_loader(threads) as loader:
        found = list(loader.batches(map(wanted, lists)))
    assert [batch.labels.tolist() for batch in found] == lists
    for batch, numbers in zip(found, lists, strict=True):
        assert batch.draw.initial_seed() == numbers[0]
        for window, number in zip(batch.windows, numbers, strict=True):
            top, left = number % 3, number % 2
            assert np.array_equal(window, LEVELS[number, :, top : top + SIDE, left : left + SIDE])


def test_it_loads_a_few_batches_ahead_and_no_more() -> None:
    asked: list[int] = []

    def ask() -> Iterator[Wanted]:
        for number in range(20):
            asked.append(number)
            yield wanted([number])

    with open_loader() as loader:
        batches = loader.batches(ask())
        next(batches)
        assert asked == [0, 1, 2]
        next(batches)
        assert asked == [0, 1, 2, 3]


def test_what_fails_while_loading_is_raised_where_the_batch_is_taken() -> None:
    with open_loader() as loader:
        batches = loader.batches([wanted([1]), wanted([IMAGES])])
        assert next(batches).labels.tolist() == [1]
        with pytest.raises(IndexError):
            next(batches)


def test_time_spent_waiting_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Images.copy

    def slow(*args: object) -> None:
        time.sleep(0.05)
        plain(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Images, "copy", slow)
    with open_loader() as loader:
        list(loader.batches(wanted([number]) for number in range(4)))
    assert loader.waited_s > 0.15


def test_it_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with open_loader(2) as loader:
        next(loader.batches([wanted([1]), wanted([2]), wanted([3])]))
    assert threading.active_count() == before
