"""Cost: speeds as measured, hours and money that follow from them, and nothing where nothing is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweep.results import cost
from sweep.results.compact import survey
from sweep.results.cost import (
    Capacity,
    Price,
    Speed,
    checkpoint_bytes,
    cost_of,
    measured_speeds,
    read_prices,
    trial_costs,
)
from sweep.results.tables import table_of
from sweep.spec import Plan, Resources
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status

TRIAL = {
    "trial_id": "a", "architecture": "vgg19", "intervention": "baseline", "status": "pending", "epoch": 0, "epochs": 4,
    "wall_s": 0.0, "gpus": 1.0, "cpus": 8, "images": 7200, "gpu_hours": 0.0, "cpu_hours": 0.0,
}  # fmt: skip
H100, A10G = "NVIDIA H100", "NVIDIA A10G"


def trials(*changes: dict[str, Any]) -> pd.DataFrame:
    return table_of("trials", [TRIAL | changed for changed in changes])


def speed(images_per_s: float, **facts: Any) -> Speed:
    return Speed(**{"architecture": "vgg19", "device": H100, "gpus": 1.0, "images_per_s": images_per_s} | facts)


def expected(found: list[Speed], **changes: Any) -> float | None:
    return trial_costs(trials(changes), found)[0].images_per_s


def test_a_trials_speed_is_the_median_of_its_epochs() -> None:
    rows = [{"trial_id": "a", "epoch": epoch, "images_per_s": rate} for epoch, rate in enumerate((None, 90, 100, 400))]
    (found,) = measured_speeds(trials({"device": H100}), table_of("epochs", rows))
    assert found == speed(100, trial_id="a")


def test_rows_without_a_speed_tell_it_by_the_images_of_an_epoch_and_its_seconds() -> None:
    rows = [{"trial_id": "a", "epoch": epoch, "wall_s": wall_s} for epoch, wall_s in enumerate((0.0, 10.0, 30.0, 40.0))]
    (found,) = measured_speeds(trials({}), table_of("epochs", rows))
    assert found.images_per_s == 7200 / 4 / 10
    assert measured_speeds(trials({"images": None}), table_of("epochs", rows)) == []
    assert measured_speeds(trials({}), table_of("epochs", rows[:1])) == []


def test_the_speed_of_the_same_device_is_preferred_then_that_of_as_many_gpus() -> None:
    found = [speed(100), speed(300), speed(50, device=A10G), speed(90, device=A10G, gpus=2.0)]
    assert expected(found, device=H100) == 200
    assert expected(found, device=A10G, gpus=2.0) == 90
    assert expected(found, device="NVIDIA L4", gpus=2.0) == 90
    assert expected([*found, speed(7, trial_id="a")]) == 7


def test_another_architectures_speed_or_a_cpus_tells_nothing_of_a_gpu() -> None:
    of_others = [speed(100, architecture="alexnet"), speed(5, device="CPU", gpus=0.0)]
    assert expected(of_others) is None
    assert expected(of_others, gpus=0.0) == 5
    assert expected([speed(5, device="CPU", trial_id="a")]) is None  # started on a CPU, goes on with a GPU


def test_hours_left_are_the_images_left_at_that_speed_times_what_is_occupied() -> None:
    table = trials(
        {"status": "running", "epoch": 1, "gpus": 4.0, "wall_s": 1800.0, "gpu_hours": 2.0},
        {"trial_id": "b", "gpus": 0.0, "cpus": 2},
        {"trial_id": "c", "status": "finished", "epoch": 4, "gpu_hours": 1.0},
        {"trial_id": "d", "status": "excluded", "images": 0, "gpu_hours": None},
    )
    found = cost_of(trial_costs(table, [speed(1, gpus=4.0), speed(0.5, device="CPU", gpus=0.0)]), Capacity(16, 4))
    assert (found.trials_left, found.epochs_left, found.images_left) == (2, 3 + 4, 5400 + 7200)
    assert (found.gpu_hours_done, found.gpu_hours_left) == (3.0, 1.5 * 4)
    assert (found.cpu_hours_done, found.cpu_hours_left) == (0.0, 4.0 * 2)
    assert found.unmeasured == ()
    assert found.seconds_left == 3600 * 4.0  # of the longest trial


def test_the_time_left_is_that_of_as_many_trials_at_a_time_as_fit() -> None:
    table = trials(*({"trial_id": str(number), "gpus": 0.5, "cpus": 4} for number in range(6)))
    found = trial_costs(table, [speed(1, gpus=0.5)])  # two hours each
    assert cost_of(found, Capacity(cpus=64, gpus=1)).seconds_left == 6 * 7200 / 2
    assert cost_of(found, Capacity(cpus=4, gpus=8)).seconds_left == 6 * 7200
    assert cost_of(found, Capacity(cpus=64, gpus=8)).seconds_left == 7200
    assert cost_of(found, Capacity(cpus=64, gpus=0)).seconds_left is None
    assert cost_of(found).seconds_left is None
    running = [replace(trial, status="running") for trial in found[:2]]
    assert cost_of([*running, *found[2:]]).seconds_left == 6 * 7200 / 2


def test_what_was_not_measured_is_unknown_and_named() -> None:
    table = trials({}, {"trial_id": "b", "architecture": "alexnet", "images": None}, {"trial_id": "c", "images": 0})
    found = cost_of(trial_costs(table, []), Capacity(8, 1))
    assert (found.gpu_hours_left, found.seconds_left, found.images_left) == (None, None, None)
    assert (found.unmeasured, found.unsized) == (("vgg19",), 1)
    nothing = cost_of(trial_costs(trials({"images": 0}), []), Capacity(8, 1))
    assert (nothing.gpu_hours_left, nothing.seconds_left, nothing.epochs_left) == (0.0, 0.0, 0)


def test_money_is_the_price_of_the_share_of_a_node_that_a_trial_occupies() -> None:
    prices = {"p5.48xlarge": Price(per_hour=80.0, gpus=8), "m7i.xlarge": Price(per_hour=0.2, cpus=4)}
    table = trials(
        {"status": "failed", "epoch": 2, "gpus": 4.0, "wall_s": 3600.0, "node_type": "p5.48xlarge"},
        {"trial_id": "b", "gpus": 0.0, "cpus": 2},
    )
    speeds = [speed(1, gpus=4.0), speed(1, device="CPU", gpus=0.0)]
    found = cost_of(trial_costs(table, speeds, prices))
    assert found.money_done == 40.0
    assert found.money_left == 40.0 * 1 + 0.1 * 2
    elsewhere = trials({"node_type": "g5.2xlarge"})
    assert cost_of(trial_costs(elsewhere, speeds, prices)).money_left is None


def test_where_prices_differ_the_node_type_that_the_sweep_used_counts() -> None:
    prices = {"g5.2xlarge": Price(per_hour=1.0, gpus=1), "p5.48xlarge": Price(per_hour=80.0, gpus=8)}
    pending = {"trial_id": "b"}
    assert cost_of(trial_costs(trials(pending), [speed(1)], prices)).money_left is None
    used = {"status": "finished", "epoch": 4, "node_type": "g5.2xlarge"}
    assert cost_of(trial_costs(trials(pending, used), [speed(1)], prices)).money_left == 2.0


def test_prices_are_read_from_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cost.PRICES, raising=False)
    assert read_prices() == {}
    file = tmp_path / "prices.yaml"
    monkeypatch.setenv(cost.PRICES, str(file))
    with pytest.raises(ValueError, match=r"there is no file of prices .*prices\.yaml \(SWEEP_PRICES\)"):
        read_prices()
    file.write_text("g5.2xlarge: {per_hour: 0.5, gpus: 1}\n")
    assert read_prices() == {"g5.2xlarge": Price(per_hour=0.5, gpus=1)}
    for wrong in ("g5.2xlarge: 0.5", "g5.2xlarge: {per_hour: -1}", "g5.2xlarge: {per_hour: 1, gpu: 1}"):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r"g5\.2xlarge.*it maps node types to prices, such as") as error:
            read_prices()
        assert "\n" not in str(error.value)


def test_checkpoints_take_the_weights_of_each_epoch_kept_and_two_to_resume_from() -> None:
    assert checkpoint_bytes(parameters=1000, epochs=3) == (4000 * 4, 4 * 4000)  # of epochs 0, 1, 2, 3


@pytest.mark.parametrize(
    ("state", "gpus"),
    [("running", 1.0), ("finished", 1.0), ("pending", 2.0), ("failed", 2.0)],
)
def test_the_table_has_what_a_trial_occupies_or_will_and_what_it_has_taken(
    sweep: SweepDir, plan: Plan, state: Any, gpus: float
) -> None:
    sweep.add([replace(plan, resources=Resources(cpus=8, gpus=2))])
    status = Status(status=state, wall_s=1800.0, gpus=1.0, cpus=4, node_type="g5.xlarge", device=A10G)
    sweep.trial(plan.trial_id).write_status(status)
    (row,) = survey(sweep).tables["trials"].to_dict("records")
    assert (row["gpus"], row["gpu_hours"], row["cpu_hours"]) == (gpus, 0.5, 0.0)
    assert (row["node_type"], row["device"], row["images"]) == ("g5.xlarge", A10G, 3 * 48)


def test_a_trial_of_an_older_version_takes_what_is_planned_and_unknown_where_nothing_is(
    sweep: SweepDir, plan: Plan
) -> None:
    for resources, hours in ((Resources(cpus=4), 2.0), (None, None)):
        sweep.trial(plan.trial_id).write_plan(replace(plan, resources=resources))
        sweep.trial(plan.trial_id).write_status(Status(status="failed", wall_s=1800.0, device="CPU"))
        table = survey(sweep).tables["trials"]
        assert table["cpu_hours"].isna()[0] if hours is None else table["cpu_hours"][0] == hours
