"""How a trial learns that its machine is about to go, and what it does where Ray has renamed what tells it."""

from pathlib import Path

import pytest
import ray
from ray._private.state import GlobalState

from sweep.service import preemption
from sweep.service.worker import TrialWorker
from sweep.spec import Plan, Resources
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import read_log


def test_ray_still_has_the_private_name() -> None:
    """If this fails, Ray has renamed it: mend `sweep.service.preemption.is_draining`, the one place that uses it."""
    assert callable(GlobalState.get_draining_nodes)


def test_a_node_is_drained_or_not(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ray.get_runtime_context().get_node_id()
    assert not preemption.is_draining(here)
    monkeypatch.setattr(GlobalState, "get_draining_nodes", lambda _: {here: 0})
    assert preemption.is_draining(here)
    assert not preemption.is_draining("another")


def test_a_trial_runs_where_ray_has_renamed_it_and_says_so_once(
    local_ray: None, sweep: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(GlobalState, "get_draining_nodes")
    monkeypatch.setattr(preemption, "_LOOK_EVERY_S", 0.0)
    preemption._tell_once.cache_clear()
    sweep.add([plan])
    task = {"sweep": str(sweep.path), "trial_id": plan.trial_id, "root": None, "cwd": str(Path.cwd())}
    worker = TrialWorker({"task": task | Resources().model_dump()})
    worker.give([task | Resources().model_dump()], no_more=True)
    try:
        worker.step()  # says where it is
        events = worker.step()["events"]
    finally:
        worker.cleanup()
    assert [event["row"]["epoch"] for event in events if "row" in event] == [0, 1, 2, 3]
    assert events[-1]["end"] == "finished"
    log = read_log(sweep.trial(plan.trial_id))
    assert log is not None
    assert log.count("only SIGTERM announces a preemption") == 1
