"""A worker as Tune steps through it, here without Tune: what it reports of its trials, a notice to go, its end."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.data.prepare import StoppedError
from sweep.service.queue import Task
from sweep.service.worker import TrialWorker, bundle
from sweep.spec import Plan, Resources
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import trial_course


@pytest.fixture
def work(sweep: SweepDir, plan: Plan, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A planned trial as a task."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("sweep.service.worker._REPORT_EVERY_S", 0.0)  # an epoch a step
    sweep.add([plan])
    task = {"sweep": str(sweep.path), "trial_id": plan.trial_id, "root": None, "cwd": str(Path.cwd())}
    return task | Resources().model_dump()


@pytest.fixture
def worker(work: Task) -> Iterator[TrialWorker]:
    """A worker in this process that has been given the trial, and nothing more is to come."""
    made = TrialWorker({"task": work})
    made.give([work], no_more=True)
    assert made.step()["process"] == os.getpid()  # the first report only says where it is
    yield made
    made.stop()


def events(worker: TrialWorker) -> list[dict[str, Any]]:
    """What a worker reports until it is done."""
    found: list[dict[str, Any]] = []
    for _ in range(50):
        result = worker.step()
        found += result["events"]
        if result["done"]:
            return found
    raise AssertionError("it never ends")


def test_epochs_statuses_and_the_end_are_reported(worker: TrialWorker, sweep: SweepDir, plan: Plan) -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    told = events(worker)
    rows = [event for event in told if "row" in event]
    assert [event["row"]["epoch"] for event in rows] == [0, 1, 2, 3]
    assert rows[0]["kept"] == str(sweep.trial(plan.trial_id).checkpoints / "0")
    assert told[-1] == {"trial_id": plan.trial_id, "end": "finished"}
    statuses = [event["status"] for event in told if "status" in event]
    assert [statuses[0].status, statuses[-1].status] == ["running", "finished"]
    assert statuses[-1] == sweep.trial(plan.trial_id).status()


def test_a_worker_that_is_sent_home_ends_with_its_trial_and_gives_the_others_back(work: Task, plan: Plan) -> None:
    worker = TrialWorker({"task": work})
    worker.give([work, work | {"trial_id": "other"}, work | {"trial_id": "another"}], no_more=False)
    worker.step()
    told = worker.step()["events"]
    assert worker.give_back() == ["other", "another"]
    worker.give([work | {"trial_id": "other"}], no_more=False)
    assert worker.go_home() == ["other"]
    told += events(worker)
    worker.stop()
    assert {event["trial_id"] for event in told} == {plan.trial_id}
    assert told[-1]["end"] == "finished"


def test_an_attempt_reports_the_epochs_that_an_earlier_one_had_no_time_to_report(
    work: Task, sweep: SweepDir, plan: Plan
) -> None:
    trial = sweep.trial(plan.trial_id)
    course = trial_course(trial, None, threads=1)
    done = [next(course)[0] for _ in range(3)]
    course.close()
    trial.epochs_file.unlink()  # as on an object store, where it is written now and then
    for last in ("resumes in the middle", "finds the trial finished"):
        worker = TrialWorker({"task": work})
        worker.give([work], no_more=True)
        told = events(worker)
        worker.stop()
        (found,) = [event["rows"] for event in told if "rows" in event]
        assert found == (done if last == "resumes in the middle" else trial.epochs())
        assert [row["epoch"] for row in trial.epochs()] == [0, 1, 2, 3]


def test_one_trial_after_another_in_one_process(work: Task, sweep: SweepDir, plan: Plan) -> None:
    other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": 7}))
    sweep.add([other])
    worker = TrialWorker({"task": work})
    worker.give([work, work | {"trial_id": other.trial_id}], no_more=True)
    ends = [event for event in events(worker) if "end" in event]
    worker.stop()
    assert [(event["trial_id"], event["end"]) for event in ends] == [
        (plan.trial_id, "finished"), (other.trial_id, "finished"),
    ]  # fmt: skip
    assert {sweep.trial(trial.trial_id).status().pid for trial in (plan, other)} == {os.getpid()}


def test_without_anything_to_do_it_waits_until_it_is_told_that_nothing_comes(work: Task) -> None:
    worker = TrialWorker({"task": work})
    assert (worker.step()["events"], worker.step()["done"]) == ([], False)
    worker.give([], no_more=True)
    assert worker.step()["done"]
    worker.stop()


def test_sigterm_saves_and_stops_at_the_next_step(worker: TrialWorker, sweep: SweepDir, plan: Plan) -> None:
    worker.step()
    worker.step()
    signal.raise_signal(signal.SIGTERM)
    assert events(worker)[-1] == {"trial_id": plan.trial_id, "end": "preempted"}
    status = sweep.trial(plan.trial_id).status()
    assert (status.status, status.step) == ("pending", 1)
    assert (sweep.trial(plan.trial_id).checkpoints / "1" / "manifest.json").exists()


def test_after_sigterm_no_other_trial_begins(worker: TrialWorker, sweep: SweepDir, plan: Plan) -> None:
    signal.raise_signal(signal.SIGTERM)
    assert events(worker) == []
    assert sweep.trial(plan.trial_id).status().status == "pending"


def test_a_trial_stopped_while_its_data_is_prepared_is_preempted_not_failed(
    worker: TrialWorker, sweep: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise StoppedError("stopped while the data set was prepared")

    monkeypatch.setattr("sweep.training.trial.prepare", stopped)
    assert events(worker)[-1]["end"] == "preempted"
    assert sweep.trial(plan.trial_id).status().status == "pending"


@pytest.mark.parametrize(
    ("error", "final", "storage"),
    [
        (KeyError("a"), True, False),
        (RuntimeError("cuda"), False, False),
        (OSError(5, "Input/output error"), False, True),
        (FileExistsError("a file"), False, False),
    ],
)
def test_a_failure_is_reported_whole_and_ends_the_process(
    worker: TrialWorker, plan: Plan, monkeypatch: pytest.MonkeyPatch, error: Exception, final: bool, storage: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("sweep.training.trial.prepare", fail)
    last = events(worker)[-1]
    assert last["end"] == "failed"
    assert (last["final"], last["storage"]) == (final, storage)
    assert last["error"].startswith(type(error).__name__)
    assert "Traceback" in last["traceback"]


def test_a_trial_that_tune_stops_is_pending_and_gives_the_signal_back(
    worker: TrialWorker, sweep: SweepDir, plan: Plan
) -> None:
    mine = signal.getsignal(signal.SIGTERM)
    worker.step()
    worker.step()
    worker.stop()
    assert sweep.trial(plan.trial_id).status().reason == "stopped; no checkpoint yet"
    assert signal.getsignal(signal.SIGTERM) != mine


def test_a_worker_reserves_its_resources() -> None:
    task = Resources(cpus=2, gpus=0.5).model_dump()
    assert bundle({"task": task}).bundles == [{"CPU": 2, "GPU": 0.5}]
    assert bundle({"task": task | {"gpus": 0.0}}).bundles == [{"CPU": 2}]
    assert bundle({"task": task | {"accelerator": "H100"}}).bundles == [
        {"CPU": 2, "GPU": 0.5, "accelerator_type:H100": 0.001}
    ]


def test_a_worker_on_several_gpus_has_a_bundle_for_each_on_one_node_and_keeps_off_avoided_ones() -> None:
    task = Resources(cpus=16, gpus=4).model_dump() | {"avoided": ["b", "a"]}
    group = bundle({"task": task})
    assert group.bundles == [{"CPU": 4, "GPU": 1}] * 4
    assert group.strategy == "STRICT_PACK"
    assert group._bound.arguments["bundle_label_selector"] == [{"ray.io/node-id": "!in(a,b)"}] * 4
