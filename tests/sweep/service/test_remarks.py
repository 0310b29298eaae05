"""What a launch says before it begins: trials that this machine makes slow, or whose bits it changes."""

import re
from dataclasses import replace

import pytest

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.grid.schema import GridResources
from sweep.service.remarks import other_threads, remarks, slow_precision
from sweep.spec import Plan, Resources
from sweep.store.trial_dir import Status
from sweep.training import machine


@pytest.mark.parametrize(
    ("settings", "address", "native", "told"),
    [
        ([], None, False, False),
        (["recipe.precision=bf16"], None, False, True),
        (["recipe.of={simplified_mini: {precision: bf16}}"], None, False, True),
        (["recipe.precision=bf16"], None, True, False),
        (["recipe.precision=bf16"], "auto", False, False),
        (["recipe.precision=bf16", "resources.gpus=0.5"], None, False, False),
    ],
)
def test_bf16_where_it_is_slow_is_told_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, settings: list[str], address: str | None, native: bool, told: bool
) -> None:
    monkeypatch.setattr(machine, "bf16_is_native", lambda: native)
    grid = load_grid("demo", settings)
    said = slow_precision(grid, expand(grid).plans, address)
    assert len(said) == told
    cure = re.findall(r"--set (\S+)", " ".join(said))
    cured = load_grid("demo", [*settings, *cure])
    assert slow_precision(cured, expand(cured).plans, address) == []


@pytest.mark.parametrize("has", [True, False])
def test_an_x86_without_bf16_is_no_native_one_though_onednn_emulates_it(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine.torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    assert machine.bf16_is_native() == has


def test_going_on_with_other_threads_is_told(plan: Plan) -> None:
    plan = replace(plan, resources=None)
    begun = [(plan, Status(device="CPU", threads=threads, step=step)) for threads, step in ((1, 2), (2, 2), (4, 0))]
    old, gpu = (plan, Status(step=2)), (plan, Status(device="NVIDIA H100", threads=8, step=2))
    (said,) = other_threads([*begun, old, gpu], GridResources(cpus=2))
    assert said.startswith("1 trial started with resources.cpus=1 will continue with 2:")
    assert "--set resources.cpus=1" in said
    assert other_threads(begun[1:], GridResources(cpus=2)) == []
    assert other_threads(begun, GridResources(cpus=2, gpus=1)) == []


def test_a_trials_own_resources_decide_whether_its_threads_change(plan: Plan) -> None:
    wide, on_gpu = (replace(plan, resources=own) for own in (Resources(cpus=4), Resources(cpus=4, gpus=1)))
    begun = Status(device="CPU", threads=2, step=7)
    assert other_threads([(wide, replace(begun, threads=4)), (on_gpu, begun)], GridResources()) == []
    (said,) = other_threads([(wide, begun), (on_gpu, begun)], GridResources(cpus=2))
    assert said.startswith("1 trial started with resources.cpus=2 will continue with 4:")


def test_values_of_single_architectures_are_told() -> None:
    grid = load_grid("demo", ["architectures=[simplified_mini, alexnet]", "data=tiny", "recipe.lr=0.2"])
    said = remarks(grid, expand(grid).plans, None)
    assert said == ["alexnet is trained with lr 0.01, which overrides the recipe (recipe.of)"]
    assert remarks(load_grid("demo", []), [], None) == []
