import pytest

from sweep.grid.expand import expand
from sweep.grid.load import load_grid

COMMON = ["architectures=[simplified_mini]", "interventions=[baseline]", "seeds=[0]"]


def trial_id(*settings: str) -> str:
    return expand(load_grid("demo", [*COMMON, *settings])).plans[0].trial_id


@pytest.mark.parametrize(
    ("default", "other"),
    [("ghost_batch=null", "ghost_batch=16"), ("deterministic=true", "deterministic=false"),
     ("compile=none", "compile=default"), ("precision=float32", "precision=tf32")],
)  # fmt: skip
def test_what_changes_a_result_changes_the_id_and_a_default_does_not(default: str, other: str) -> None:
    assert trial_id(f"recipe.{default}") == trial_id()
    assert trial_id(f"recipe.{other}") != trial_id()


@pytest.mark.parametrize("parts", ["recipe.ghost_batch=16", "recipe.out_of_memory=split"])
def test_cuda_graphs_of_parts_of_steps_are_refused(parts: str) -> None:
    with pytest.raises(ValueError, match="use compile: default"):
        load_grid("demo", ["recipe.compile=reduce-overhead", parts])


def test_a_step_is_made_of_whole_ghost_batches() -> None:
    with pytest.raises(ValueError, match="batch_size 64 is not a multiple of ghost_batch 24"):
        load_grid("demo", ["recipe.batch_size=64", "recipe.ghost_batch=24"])
