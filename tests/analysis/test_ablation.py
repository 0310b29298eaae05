"""Kernels without their bands: small cases worked out by hand."""

import pytest
import torch

from analysis.ablation import CHANGES, Change

KERNELS = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("none", [[1, 3], [5, 7]]),
        ("row_means", [[2, 2], [6, 6]]),
        ("column_means", [[3, 5], [3, 5]]),
        ("mean", [[4, 4], [4, 4]]),
    ],
)
def test_kernels_are_replaced_by_their_means(change: Change, expected: list[list[float]]) -> None:
    assert CHANGES[change](KERNELS, torch.Generator()).tolist() == [[expected]]


def test_a_shuffle_moves_whole_positions_differently_in_each_neuron() -> None:
    kernels = torch.arange(2 * 3 * 25.0).reshape(2, 3, 5, 5)
    moved = CHANGES["shuffled"](kernels, torch.Generator().manual_seed(0))
    assert not torch.equal(moved, kernels)
    assert torch.equal(moved.flatten(2).sort(dim=2).values, kernels.flatten(2))
    orders = (moved - kernels[:, :, :1, :1]).flatten(2)  # which position came where
    assert torch.equal(orders[:, 0], orders[:, 2])
    assert not torch.equal(orders[0], orders[1])


def test_a_banded_kernel_keeps_all_in_its_rows_means_and_nothing_in_its_columns() -> None:
    banded = torch.randn(4, 3, 5, 1, generator=torch.Generator().manual_seed(0)).expand(4, 3, 5, 5)
    assert torch.allclose(CHANGES["row_means"](banded, torch.Generator()), banded)
    of_columns, of_all = (CHANGES[change](banded, torch.Generator()) for change in ("column_means", "mean"))
    assert torch.allclose(of_columns, of_all)
