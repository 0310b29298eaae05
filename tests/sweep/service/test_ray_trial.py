"""A trial as Tune steps through it, here without Tune: its rows, a notice to go, its end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.data.prepare import StoppedError
from sweep.service.ray_trial import RayTrial, bundle
from sweep.spec import Plan, Resources
from sweep.store.sweep_dir import SweepDir


@pytest.fixture
def trainable(sweep: SweepDir, plan: Plan, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayTrial]:
    """A planned trial in this process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    sweep.add([plan])
    task = {"sweep": str(sweep.path), "trial_id": plan.trial_id, "root": None, "delay_s": 0.0, "node": None}
    task["cwd"] = str(Path.cwd())
    made = RayTrial({"task": task | Resources().model_dump()})
    yield made
    made.stop()


def test_each_step_is_an_epoch_and_the_last_one_says_so(trainable: RayTrial, sweep: SweepDir, plan: Plan) -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    epochs = [trainable.step() for _ in range(4)]
    assert [row["epoch"] for row in epochs] == [0, 1, 2, 3]
    assert epochs[0]["kept"] == str(sweep.trial(plan.trial_id).checkpoints / "0")
    assert trainable.step() == {"done": True}
    assert sweep.trial(plan.trial_id).status().status == "finished"


def test_sigterm_saves_and_stops_at_the_next_step(trainable: RayTrial, sweep: SweepDir, plan: Plan) -> None:
    trainable.step()
    signal.raise_signal(signal.SIGTERM)
    assert trainable.step() == {"done": True, "preempted": True}
    status = sweep.trial(plan.trial_id).status()
    assert (status.status, status.step) == ("pending", 1)
    assert (sweep.trial(plan.trial_id).checkpoints / "1" / "manifest.json").exists()


def test_a_trial_stopped_while_its_data_is_prepared_is_preempted_not_failed(
    trainable: RayTrial, sweep: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise StoppedError("stopped while the data set was prepared")

    monkeypatch.setattr("sweep.training.trial.prepare", stopped)
    assert trainable.step() == {"done": True, "preempted": True}
    assert sweep.trial(plan.trial_id).status().status == "pending"


def test_a_trial_that_tune_stops_is_pending_and_gives_the_signal_back(
    trainable: RayTrial, sweep: SweepDir, plan: Plan
) -> None:
    mine = signal.getsignal(signal.SIGTERM)
    trainable.step()
    trainable.stop()
    assert sweep.trial(plan.trial_id).status().reason == "stopped; resumes from its last checkpoint"
    assert signal.getsignal(signal.SIGTERM) != mine


def test_a_trial_reserves_its_resources() -> None:
    task = Resources(cpus=2, gpus=0.5).model_dump()
    assert bundle({"task": task}).bundles == [{"CPU": 2, "GPU": 0.5}]
    assert bundle({"task": task | {"gpus": 0.0}}).bundles == [{"CPU": 2}]
    assert bundle({"task": task | {"accelerator": "H100"}}).bundles == [
        {"CPU": 2, "GPU": 0.5, "accelerator_type:H100": 0.001}
    ]


def test_a_trial_on_several_gpus_has_a_bundle_for_each_on_one_node() -> None:
    group = bundle({"task": Resources(cpus=16, gpus=4).model_dump()})
    assert group.bundles == [{"CPU": 4, "GPU": 1}] * 4
    assert group.strategy == "STRICT_PACK"
