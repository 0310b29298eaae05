"""What becomes of trials that fail, whose process dies, whose node or storage goes away."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sweep.service.driver import Driver
from sweep.service.health import Nodes
from sweep.service.queue import kind_of
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, read_error
from tests.sweep.service.driving import Told, at_work, failure, report, settle


def test_a_failure_is_retried_then_recorded_for_good(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.failures._BACKOFF_S", 0.0)
    for name in ("w", "x"):
        trial, _ = at_work(driven, plan, name=name)
        report(driven, trial, failure(plan), done=True)
        driven.on_trial_complete(0, [], trial)
    assert told.remarks == [f"{plan.trial_id}: failed (RuntimeError: boom); retry 1 of 1 in 0 s"]
    assert told.ends == ["RuntimeError: boom"]
    settle(driven)
    assert sweep.trial(plan.trial_id).status().error == "RuntimeError: boom"
    assert read_error(sweep.trial(plan.trial_id)) == "Traceback\nRuntimeError: boom"


def test_an_epoch_finished_between_two_failures_begins_the_count_anew(driven: Driver, plan: Plan, told: Told) -> None:
    row = {"epoch": 1, "step": 3, "val_accuracy": 0.5}
    for _ in range(3):  # one more than retries
        trial, _ = at_work(driven, plan)
        report(driven, trial, {"trial_id": plan.trial_id, "row": row, "kept": None}, failure(plan), done=True)
        driven.on_trial_complete(0, [], trial)
        driven._queue.tasks.drop(plan.trial_id)
    assert told.ends == []
    assert sum("retry 1 of 1" in remark for remark in told.remarks) == 3


def test_a_storage_that_fails_is_nobodys_failure_and_pauses_until_it_answers(
    driven: Driver, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True]

    def write(*_: object) -> None:
        if away[0]:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("sweep.service.verdicts.prove_writable", write)
    monkeypatch.setattr("sweep.service.clerk._AGAIN_S", 0.05)
    trial, _ = at_work(driven, plan)
    report(driven, trial, failure(plan, "OSError: [Errno 5]", storage=True), done=True)
    driven.on_trial_complete(0, [], trial)
    for _ in range(20):
        driven._clerk.tend()
        time.sleep(0.02)
    assert driven._paused()
    assert driven._queue.suggest("x") is None
    assert driven._ledger.failures[plan.trial_id] == 0
    away[0] = False
    for _ in range(100):
        driven._clerk.tend()
        time.sleep(0.02)
    assert not driven._paused()
    assert sum("the storage is unavailable" in remark for remark in told.remarks) == 1
    assert told.remarks[-1] == "the storage answers again"
    assert isinstance(driven._queue.suggest("x"), dict)


def test_of_a_worker_that_dies_the_trial_it_was_at_has_failed_and_the_others_go_on(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.verdicts.answers", lambda _: True)
    trial, _ = at_work(driven, plan)
    other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": 7}))
    sweep.add([other])
    driven._live.reopen(other, Status())
    driven._workers["w"].tasks.append(driven._task(other) | {"attempts": 0})
    driven._ledger.open.add(other.trial_id)
    sweep.trial(plan.trial_id).write_status(Status(status="running", attempts=1))
    driven.on_trial_error(0, [], trial)
    assert driven._queue.holds(plan.trial_id)
    settle(driven)
    assert driven._ledger.failures == {plan.trial_id: 1}
    assert driven._queue.waiting(kind_of(driven._task(other))) == 1
    assert sweep.trial(plan.trial_id).status().status == "failed"
    assert "process died" in told.remarks[-1]


def test_a_trial_whose_node_is_gone_has_not_failed(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.verdicts.answers", lambda _: False)
    trial, _ = at_work(driven, plan, node="n1-0123456789")
    sweep.trial(plan.trial_id).write_status(Status(status="running", attempts=1, step=4))
    driven.on_trial_error(0, [], trial)
    settle(driven)
    assert driven._ledger.failures[plan.trial_id] == 0
    assert told.remarks == [f"{plan.trial_id}: its node n1-01234 is gone; continues elsewhere from its last checkpoint"]
    assert sweep.trial(plan.trial_id).status().reason == "its node is gone; no checkpoint yet"


def test_a_worker_whose_node_goes_before_it_has_reported_anything_blames_no_trial(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.verdicts.answers", lambda node: node != "n1")
    trial, _ = at_work(driven, plan)
    driven.on_trial_error(0, [], trial)
    settle(driven)
    assert driven._ledger.failures[plan.trial_id] == 0
    assert sweep.trial(plan.trial_id).status() == Status()
    assert driven._queue.waiting(kind_of(driven._task(plan))) == 1


def test_a_kind_of_worker_that_cannot_start_fails_its_trials_rather_than_for_ever(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.driver.report_of", lambda _: "ModuleNotFoundError: No module named 'torch'")
    driven._queue.tasks.add(driven._task(plan))
    driven._ledger.open.add(plan.trial_id)
    assert isinstance(driven._queue.suggest("w") or driven._placed("w", driven._task(plan)), dict)
    driven._placed("w", driven._task(plan))
    driven.on_trial_error(0, [], SimpleNamespace(trial_id="w", error_file=None))
    settle(driven)
    assert told.ends == ["ModuleNotFoundError: No module named 'torch'"]
    assert sweep.trial(plan.trial_id).status().final
    assert driven._queue.suggest("x") == "FINISHED"


def test_a_trial_handed_out_before_fails_too_if_its_workers_cannot_start(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.driver.report_of", lambda _: "ImportError: libcuda.so.1")
    sweep.trial(plan.trial_id).write_status(Status(status="pending", attempts=3))
    driven._live.read_again(plan.trial_id)
    driven._queue.tasks.add(driven._task(plan) | {"attempts": 1})
    driven._ledger.open.add(plan.trial_id)
    driven._placed("w", driven._task(plan))
    driven.on_trial_error(0, [], SimpleNamespace(trial_id="w", error_file=None))
    settle(driven)
    assert told.ends == ["ImportError: libcuda.so.1"]


def test_ten_trials_that_fail_alike_stop_the_launch(driven: Driver, plan: Plan, told: Told) -> None:
    for number in range(10):
        other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": number}))
        driven._live.reopen(other, Status())
        assert not driven._queue.closing
        trial, _ = at_work(driven, other, name=f"w{number}")
        report(driven, trial, failure(other, f"ValueError: no file /data/{number}", final=True), done=True)
        driven.on_trial_complete(0, [], trial)
    assert driven._queue.closing
    assert told.remarks[-1].startswith("10 trials in a row have failed in the same way (ValueError: no file /data/9)")


def test_a_node_on_which_trials_fail_in_a_row_is_avoided_and_they_are_not_to_blame(
    driven: Driver, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driven._nodes, "_alive", lambda: {"sick", "well"})
    for number in range(3):
        other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": number}))
        driven._live.reopen(other, Status())
        trial, _ = at_work(driven, other, node="sick", name=f"w{number}")
        report(driven, trial, failure(other), done=True)
        driven.on_trial_complete(0, [], trial)
    assert told.remarks[-2] == "3 attempts in a row have failed on node sick: it is avoided for 5 minutes"
    assert set(driven._ledger.failures.values()) == {0}
    assert driven._placed("x", driven._task(plan))["avoided"] == ["sick"]


def test_a_trial_that_alone_fails_on_a_node_gets_one_more_chance_elsewhere(
    driven: Driver, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driven._nodes, "_alive", lambda: {"n1", "n2", "n3"})
    driven._verdicts._max_failures = 3
    for node in ["n1"] * 3 + ["n2"] * 4:
        assert told.ends == []
        trial, _ = at_work(driven, plan, node=node)
        report(driven, trial, failure(plan), done=True)
        driven.on_trial_complete(0, [], trial)
        driven._queue.tasks.drop(plan.trial_id)
    assert sum("attempts in a row have failed on node n1" in remark for remark in told.remarks) == 1
    assert driven._nodes.avoided == {"n1"}
    assert told.ends == ["RuntimeError: boom"]


def test_a_trial_that_another_process_has_taken_is_left_alone_and_tried_later(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    trial, _ = at_work(driven, plan)
    report(driven, trial, {"trial_id": plan.trial_id, "end": "superseded"}, done=True)
    driven.on_trial_complete(0, [], trial)
    settle(driven)
    assert driven._queue.holds(plan.trial_id)
    assert sweep.trial(plan.trial_id).status() == Status()
    assert told.ends == []


def test_a_failure_is_not_recorded_over_a_newer_attempt(driven: Driver, sweep: SweepDir, plan: Plan) -> None:
    newer = Status(status="finished", attempts=2)
    sweep.trial(plan.trial_id).write_status(newer)
    driven._verdicts._record(plan.trial_id, Status(status="failed", attempts=1, error="a late one"), "Traceback")
    assert sweep.trial(plan.trial_id).status() == newer


def test_a_trial_is_tried_elsewhere_only_while_there_is_an_elsewhere_and_its_node_is_suspected() -> None:
    alive = {"a"}
    nodes = Nodes(print, lambda: alive)
    nodes.failed("a", "t")
    assert not nodes.suspected("a")
    alive.add("b")
    assert nodes.suspected("a")
    nodes.succeeded("a")
    assert not nodes.suspected("a")
    assert not nodes.suspected(None)
