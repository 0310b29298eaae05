"""Steps, learning rates and kept epochs."""

import pytest
import torch

from sweep.grid.load import load_grid
from sweep.spec import Recipe
from sweep.store.kept import epochs_to_keep
from sweep.training.schedule import Schedule


def recipe(*settings: str) -> Recipe:
    return load_grid("demo", list(settings)).recipe


def test_one_cycle_is_pytorchs() -> None:
    schedule = Schedule(recipe("recipe.epochs=4", "recipe.batch_size=10"), images=100)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=schedule.steps, cycle_momentum=False)
    highest = max(schedule.learning_rate(epoch, step) for epoch in range(4) for step in range(10))
    assert schedule.learning_rate(0, 0) == pytest.approx(theirs.get_last_lr()[0])
    assert highest == pytest.approx(0.1)
    assert schedule.learning_rate(3, 9) < 0.001


def test_steps_under_growing_batches() -> None:
    phases = "recipe.batch_size=[{from_epoch: 0, size: 10}, {from_epoch: 2, size: 25}]"
    schedule = Schedule(recipe("recipe.epochs=3", phases), images=55)
    assert [schedule.steps_in(epoch) for epoch in range(3)] == [5, 5, 2]
    assert [schedule.first_step(epoch) for epoch in range(3)] == [0, 5, 10]
    assert schedule.steps == 12


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size 64 is larger than the 10 training images"):
        Schedule(recipe(), images=10)


@pytest.mark.parametrize(
    ("epochs", "kept"), [(1, [0, 1]), (2, [0, 1, 2]), (12, [0, 1, 2, 4, 8, 12]), (16, [0, 1, 2, 4, 8, 16])]
)
def test_weights_are_kept_at_powers_of_two_and_the_end(epochs: int, kept: list[int]) -> None:
    assert epochs_to_keep(epochs) == kept
