"""The sweep directory: dedupe, order, states, and damage told in words."""

from dataclasses import replace

import pytest

from sweep.files import write_text
from sweep.grid import expand, load_grid
from sweep.store import Plan, Status, SweepDir


def test_planning_the_same_trials_again_adds_none_and_a_larger_grid_only_the_new(sweep: SweepDir) -> None:
    small, large = (expand(load_grid("demo", [f"seeds={seeds}"])).plans for seeds in ("[0]", "[0,1]"))
    assert sweep.add(small) == 4
    assert sweep.add(small) == 0
    assert sweep.add(large) == 4
    assert len(sweep.read_all()) == 8


def test_trials_come_in_the_order_in_which_the_grid_names_them(sweep: SweepDir) -> None:
    grid = load_grid("demo", ["interventions=[untrained,baseline,no_pooling]", "seeds=[1,0]"])
    sweep.add(expand(grid).plans)
    sweep.record_launch(grid.model_dump(mode="json"))
    found = [(plan.spec.intervention, plan.spec.init_seed) for plan, _ in sweep.read_all()]
    assert found == [(name, seed) for name in ("untrained", "baseline", "no_pooling") for seed in (0, 1)]


def test_an_excluded_cell_keeps_its_reason(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([replace(plan, excluded="has no pooling to remove")])
    ((_, status),) = sweep.read_all()
    assert (status.status, status.reason) == ("excluded", "has no pooling to remove")


def test_a_status_survives_its_file(sweep: SweepDir, plan: Plan) -> None:
    trial = sweep.trial(plan.trial_id)
    assert trial.status() == Status()
    status = Status(status="failed", attempts=2, error="ValueError: no", val_accuracy=0.5)
    trial.write_status(status)
    assert trial.status() == status


@pytest.mark.parametrize("content", ["", "{", '{"status": "failed"', '{"colour": 1}', "[]", "null"])
def test_a_damaged_status_is_told_with_its_file_and_a_cure(sweep: SweepDir, plan: Plan, content: str) -> None:
    trial = sweep.trial(plan.trial_id)
    write_text(trial.path / "status.json", content)
    with pytest.raises(ValueError, match=r"status\.json .*sweep resume"):
        trial.status()


def test_a_spec_of_another_version_or_changed_by_hand_is_refused(sweep: SweepDir, plan: Plan) -> None:
    values = plan.to_json()
    with pytest.raises(ValueError, match="spec version 99"):
        Plan.from_json(values | {"spec": values["spec"] | {"schema_version": 99}})
    with pytest.raises(ValueError, match="changed by hand"):
        Plan.from_json(values | {"spec": values["spec"] | {"init_seed": 5}})


def test_the_union_of_launches_is_recorded_without_repetition(sweep: SweepDir) -> None:
    for grid in ({"name": "a"}, {"name": "a"}, {"name": "b"}):
        sweep.record_launch(grid)
    assert [launch["grid"]["name"] for launch in sweep.launches()] == ["a", "b"]
