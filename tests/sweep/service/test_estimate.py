"""The estimate before a launch: what is new and left to do, and what that costs at a measured speed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from upath import UPath

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.cost import Capacity, Speed
from sweep.service.estimate import Planned, capacity_at, estimate, probed_speeds
from sweep.spec import Plan, Resources
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from tests.command import run
from tests.sweep.conftest import TINY

HERE = Capacity(cpus=2, gpus=0)


def plans(*settings: str) -> list[Plan]:
    return expand(load_grid("demo", [*TINY, *settings])).plans


def test_an_estimate_counts_what_is_new_and_what_is_left_of_the_whole_sweep(sweep: SweepDir) -> None:
    before = plans("seeds=[0,1]", "recipe.epochs=2")
    sweep.add(before)
    sweep.record_launch({"name": "demo"})
    sweep.trial(before[0].trial_id).write_status(Status(status="finished", epoch=2))
    files = sorted(str(path) for path in Path(str(sweep.path)).rglob("*"))
    speeds = [Speed(architecture="simplified_mini", images_per_s=4.0, device="CPU", gpus=0.0)]
    found = estimate(sweep, [before[0], *plans()], HERE, {}, speeds)
    assert found.planned == Planned(in_grid=2, new=1, finished=1)
    assert (found.cost.trials_left, found.cost.epochs_left, found.cost.images_left) == (2, 3 + 2, 48 * 5)
    assert found.cost.cpu_hours_left == pytest.approx(48 * 5 / 4 / 3600)
    assert found.cost.seconds_left == pytest.approx(48 * 3 / 4)  # of the longer of two beside each other
    weights = 4 * before[0].parameters
    assert (found.kept_bytes, found.passing_bytes) == (weights * 4 + weights * 3, 4 * weights)
    assert files == sorted(str(path) for path in Path(str(sweep.path)).rglob("*"))


def test_an_estimate_takes_the_resources_that_the_launch_would_give(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([plan])
    on_gpu = replace(plan, resources=Resources(cpus=4, gpus=1))
    speeds = [Speed(architecture="simplified_mini", images_per_s=4.0, gpus=1.0)]
    found = estimate(sweep, [on_gpu], Capacity(cpus=8, gpus=2), {}, speeds)
    assert found.planned == Planned(in_grid=1, new=0, finished=0)
    assert found.cost.cpu_hours_left == 0.0
    assert found.cost.gpu_hours_left == pytest.approx(48 * 3 / 4 / 3600)


def test_excluded_and_untrained_cells_cost_nothing(sweep: SweepDir) -> None:
    (untrained,) = plans("interventions=[untrained]")
    found = estimate(sweep, [untrained, replace(untrained, excluded="has no pooling", images=0)], HERE, {})
    assert found.cost.trials_left == 1
    assert (found.cost.images_left, found.cost.cpu_hours_left, found.cost.unmeasured) == (0, 0.0, ())


def test_a_few_steps_of_each_architecture_are_timed(local_ray: None, ray_address: str) -> None:
    settings = ["data.options={train_images: 96, val_images: 16}", "recipe.batch_size=8"]
    chosen = plans(*settings, "interventions=[untrained, baseline, rotate90]")
    (found,) = probed_speeds(chosen, ray_address)
    assert (found.architecture, found.device, found.gpus) == ("simplified_mini", "CPU", 0.0)
    assert found.images_per_s > 1
    assert capacity_at(ray_address) == Capacity(cpus=2, gpus=0)
    with pytest.raises(ValueError, match="a trial needs 1 CPU and 1 GPU"):
        next(probed_speeds(plans(*settings, "resources.gpus=1"), ray_address))
    with pytest.raises(ValueError, match=r"simplified_mini can't be timed: an epoch of 48 images has too few steps"):
        next(probed_speeds(plans("recipe.batch_size=48", "recipe.epochs=1"), ray_address))


def test_a_dry_run_prints_the_estimate_and_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = [word for setting in TINY for word in ("--set", setting)]
    printed = run("launch", "demo", *settings, "--storage", str(tmp_path), "--dry-run")
    said = [line.strip().split(maxsplit=1) for line in printed.splitlines()]
    assert ["trials", "1 in the grid: 1 new, 0 finished; 1 to do in the sweep"] in said
    assert ["epochs", "3"] in said
    assert ["images", "144"] in said
    assert "not measured  simplified_mini; `--dry-run --probe` times a few steps of each" in printed
    assert list(tmp_path.iterdir()) == []
    assert "add it" in run("launch", "demo", *settings, "--storage", str(tmp_path), "--probe", code=2)


def test_status_tells_hours_done_and_left_and_the_time_left(tmp_path: Path) -> None:
    sweep = SweepDir(UPath(tmp_path / "demo"))
    done, begun = (replace(plan, resources=Resources(cpus=4, gpus=0.5)) for plan in plans("seeds=[0,1]"))
    sweep.add([done, begun])
    sweep.record_launch(load_grid("demo", [*TINY, "seeds=[0,1]"]).model_dump(mode="json"))
    rows = [{"epoch": epoch, "step": 3 * epoch, "wall_s": 3600.0 * epoch} for epoch in range(4)]
    facts = {"gpus": 0.5, "cpus": 4, "device": "NVIDIA H100"}
    for plan, state, epochs in ((done, "finished", 3), (begun, "failed", 1)):
        trial = sweep.trial(plan.trial_id)
        trial.write_epochs(rows[: epochs + 1])
        trial.write_status(Status(status=state, epoch=epochs, wall_s=3600.0 * epochs, **facts))  # type: ignore[arg-type]
    command = ["status", "demo", "--storage", str(tmp_path)]
    assert "GPU hours: 2 done, 1 left\n" in re.sub(" +\n", "\n", run(*command))
    told = json.loads(run(*command, "--json"))
    assert (told["cost"]["gpu_hours_done"], told["cost"]["gpu_hours_left"]) == pytest.approx((2.0, 1.0))
    assert [trial["gpu_hours"] for trial in told["trials"]] == [1.5, 0.5]
