"""Steps, learning rates and kept epochs."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(2, 50)), min_size=1, max_size=4), st.integers(1, 40))
def test_steps_are_those_of_all_epochs_before(gaps: list[tuple[int, int]], epochs: int) -> None:
    starts = [0, *itertools.accumulate(gap for gap, _ in gaps[1:])]
    phases = [{"from_epoch": start, "size": size} for start, (_, size) in zip(starts, gaps, strict=True)]
    changed = recipe().model_dump(exclude={"of"}) | {"epochs": epochs, "batch_size": phases}
    schedule = Schedule(Recipe.model_validate(changed), images=120)
    for epoch in range(epochs + 1):
        assert schedule.first_step(epoch) == sum(schedule.steps_in(before) for before in range(epoch))
