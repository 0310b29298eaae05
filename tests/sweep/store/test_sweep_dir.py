"""The sweep directory: dedupe, order, states, and damage told in words."""

from dataclasses import replace

import pytest

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.spec import Plan, Resources
from sweep.store.files import write_json, write_text
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status


def test_planning_the_same_trials_again_adds_none_and_a_larger_grid_only_the_new(sweep: SweepDir) -> None:
    small, large = (expand(load_grid("demo", [f"seeds={seeds}"])).plans for seeds in ("[0]", "[0,1]"))
    assert sweep.add(small) == 4
    assert sweep.add(small) == 0
    assert sweep.add(large) == 4
    assert len(sweep.read(sweep.trials())) == 8


def test_a_trial_keeps_its_resources_until_a_launch_that_names_it_changes_them(sweep: SweepDir, plan: Plan) -> None:
    other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": 1}), resources=Resources(cpus=8, gpus=1))
    old = {key: value for key, value in plan.to_json().items() if key != "resources"}
    sweep.add([plan, other])
    write_json(sweep.trial(plan.trial_id).spec_file, old)
    assert sweep.trial(plan.trial_id).plan() == replace(plan, resources=None)
    assert sweep.add([replace(plan, resources=Resources(cpus=2))]) == 0
    assert sweep.trial(plan.trial_id).plan().resources == Resources(cpus=2)
    assert sweep.trial(other.trial_id).plan() == other


def test_trials_come_in_the_order_in_which_the_grid_names_them(sweep: SweepDir) -> None:
    grid = load_grid("demo", ["interventions=[untrained,baseline,no_pooling]", "seeds=[1,0]"])
    sweep.add(expand(grid).plans)
    sweep.record_launch(grid.model_dump(mode="json"))
    found = [(plan.spec.intervention, plan.spec.init_seed) for plan, _ in sweep.read(sweep.trials())]
    assert found == [(name, seed) for name in ("untrained", "baseline", "no_pooling") for seed in (0, 1)]


def test_an_excluded_cell_keeps_its_reason(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([replace(plan, excluded="has no pooling to remove")])
    ((_, status),) = sweep.read(sweep.trials())
    assert (status.status, status.reason) == ("excluded", "has no pooling to remove")


def test_a_status_survives_its_file(sweep: SweepDir, plan: Plan) -> None:
    trial = sweep.trial(plan.trial_id)
    assert trial.status() == Status()
    status = Status(status="failed", attempts=2, error="ValueError: no", val_accuracy=0.5)
    trial.write_status(status)
    assert trial.status() == status


@pytest.mark.parametrize("content", ["", "{", '{"status": "failed"', '{"status": "fled"}', "[]", "null", "\xff"])
def test_a_damaged_status_makes_the_trial_pending(sweep: SweepDir, plan: Plan, content: str) -> None:
    sweep.add([plan])
    write_text(sweep.trial(plan.trial_id).path / "status.json", content)
    ((_, status),) = sweep.read(sweep.trials())
    assert (status.status, status.reason) == ("pending", "its status was damaged")


def test_a_damaged_status_does_not_make_an_excluded_cell_run(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([replace(plan, excluded="has no pooling to remove")])
    write_text(sweep.trial(plan.trial_id).path / "status.json", "{")
    assert sweep.read(sweep.trials())[0][1].status == "excluded"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7", '{"trial_id": 3}', '{"spec": [], "trial_id": "a"}'])
def test_a_damaged_spec_is_told_with_its_file_and_launching_again_mends_it(
    sweep: SweepDir, plan: Plan, content: str
) -> None:
    sweep.add([plan])
    write_text(sweep.trial(plan.trial_id).spec_file, content)
    with pytest.raises(ValueError, match=r"spec\.json is damaged"):
        sweep.read(sweep.trials())
    assert sweep.add([plan]) == 0
    assert sweep.read(sweep.trials())[0][0] == plan


def test_a_trial_whose_planning_was_cut_short_is_planned_again(sweep: SweepDir, plan: Plan) -> None:
    sweep.trial(plan.trial_id).write_status(Status())
    assert sweep.read(sweep.trials()) == []
    assert sweep.add([plan]) == 1


def test_setting_aside_keeps_everything_beside_and_the_count_of_attempts(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([plan])
    trial = sweep.trial(plan.trial_id)
    for attempts in (1, 2):
        trial.write_status(Status(status="finished", attempts=attempts))
        write_text(trial.checkpoints / "7" / "manifest.json", str(attempts))
        trial.set_aside()
        assert (trial.status().status, trial.status().attempts) == ("pending", attempts)
        assert not trial.checkpoints.exists()
        assert (trial.path / "attempts" / str(attempts) / "checkpoints" / "7" / "manifest.json").read_text() == str(
            attempts
        )
    assert sweep.read(sweep.trials())[0][0] == plan


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


@pytest.mark.parametrize("harm", ["7", '{"epoch": 1}', '{"epoch": 1, "step": "three"}', "[1]", "{"])
def test_a_damaged_row_ends_the_rows_that_are_read(sweep: SweepDir, plan: Plan, harm: str) -> None:
    sweep.add([plan])
    trial = sweep.trial(plan.trial_id)
    trial.write_epochs([{"epoch": 0, "step": 0, "val_accuracy": 0.5}])
    file = trial.path / "epochs.jsonl"
    file.write_text(file.read_text() + harm + "\n")
    assert [row["epoch"] for row in trial.epochs()] == [0]


def test_what_a_file_browser_leaves_behind_is_no_trial(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([plan])
    (sweep.path / "trials" / ".DS_Store").write_bytes(b"")
    assert [trial.trial_id for trial in sweep.trials()] == [plan.trial_id]
