"""What readers ask for: a trial to be run again, or to be stopped, whether it runs, waits or has ended."""

import os
from dataclasses import replace

import pytest

from sweep.service.driver import Driver
from sweep.spec import Plan
from sweep.store.requests import pending_requests, request_retry, request_trial_stop
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.training.trial import run_trial
from tests.sweep.service.driving import Told, at_work, behind, report, settle


def test_a_request_is_answered_when_its_trial_neither_waits_nor_runs(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    driven._live.read_again(plan.trial_id)
    driven._queue.tasks.hold("another")
    request_retry(sweep.path, plan.trial_id, "scratch")
    driven._asked.answer(pending_requests(sweep.path))
    settle(driven)
    assert pending_requests(sweep.path) == []
    assert driven._live.status(plan.trial_id).reason == "starts from scratch"
    assert driven._live.tables()["epochs"].empty
    assert told.remarks == [f"{plan.trial_id}: retry requested, from scratch"]
    request_retry(sweep.path, plan.trial_id, "scratch")
    driven._asked.answer(pending_requests(sweep.path))  # it waits now
    settle(driven)
    assert len(pending_requests(sweep.path)) == 1


def test_a_failed_trial_that_is_asked_for_again_waits_as_the_tables_say(
    driven: Driver, sweep: SweepDir, plan: Plan
) -> None:
    failed = Status(status="failed", attempts=2, error="RuntimeError: boom", epoch=1)
    sweep.trial(plan.trial_id).write_status(failed)
    driven._live.tell(plan.trial_id, failed)
    driven._queue.tasks.hold("another")
    request_retry(sweep.path, plan.trial_id, "checkpoint")
    driven._asked.answer(pending_requests(sweep.path))
    settle(driven)
    row = driven._live.tables()["trials"].iloc[0]
    assert (row["status"], row["reason"], row["attempts"]) == ("pending", "waits to be run again", 2)
    assert row[["error"]].isna().all()
    assert driven._queue.holds(plan.trial_id)
    assert sweep.trial(plan.trial_id).status() == failed


def test_a_running_trial_that_a_reader_stops_saves_and_is_left_until_it_is_asked_for(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[tuple[str | None, int | None]] = []
    monkeypatch.setattr("sweep.service.asked.save_and_stop", stopped.extend)
    trial, _ = at_work(driven, plan)
    request_trial_stop(sweep.path, plan.trial_id)
    for _ in range(2):  # two looks, one signal
        driven._asked.answer(pending_requests(sweep.path))
    assert stopped == [("n1", os.getpid())]
    assert len(pending_requests(sweep.path)) == 1
    saved = Status(attempts=1, step=4, reason="stopped; resumes from its last checkpoint")
    sweep.trial(plan.trial_id).write_status(saved)
    about = {"trial_id": plan.trial_id}
    report(driven, trial, about | {"status": saved}, about | {"end": "preempted"}, done=True)
    driven.on_trial_complete(0, [], trial)
    settle(driven)
    left = replace(saved, reason="stopped by a reader; no checkpoint yet")
    assert sweep.trial(plan.trial_id).status() == driven._live.status(plan.trial_id) == left
    assert pending_requests(sweep.path) == []
    assert told.ends == ["stopped by a reader; no checkpoint yet"]
    assert not driven._ledger.open
    assert driven._queue.suggest("x") == "FINISHED"


def test_a_waiting_trial_that_a_reader_stops_does_not_start_and_one_that_has_ended_stays(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    driven._queue.tasks.add(driven._task(plan))
    driven._queue.tasks.hold("another")
    driven._ledger.open.add(plan.trial_id)
    request_trial_stop(sweep.path, plan.trial_id)
    driven._asked.answer(pending_requests(sweep.path))
    settle(driven)
    assert told.ends == ["stopped by a reader; no checkpoint yet"]
    assert not driven._queue.holds(plan.trial_id)
    failed = Status(status="failed", error="RuntimeError: boom")
    sweep.trial(plan.trial_id).write_status(failed)
    request_trial_stop(sweep.path, plan.trial_id)
    driven._asked.answer(pending_requests(sweep.path))
    settle(driven)
    assert pending_requests(sweep.path) == []
    assert sweep.trial(plan.trial_id).status() == failed


def test_a_trial_that_is_stopped_before_it_is_tried_again_has_ended(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    sweep.trial(plan.trial_id).write_status(Status(status="failed", error="RuntimeError: boom"))
    driven._queue.tasks.add(driven._task(plan), delay_s=60.0)
    driven._ledger.open.add(plan.trial_id)
    request_trial_stop(sweep.path, plan.trial_id)
    driven._asked.answer(pending_requests(sweep.path))
    settle(driven)
    assert told.ends == ["RuntimeError: boom"]
    assert not driven._ledger.open
    assert driven._live.status(plan.trial_id).status == "failed"


def test_what_is_asked_of_a_driver_without_trials_waits_for_the_next(
    driven: Driver, sweep: SweepDir, plan: Plan
) -> None:
    sweep.trial(plan.trial_id).write_status(Status(status="failed", error="RuntimeError: boom"))
    request_retry(sweep.path, plan.trial_id, "scratch")
    driven._queue.closed = False
    driven.run([], [])
    driven._asked.answer(pending_requests(sweep.path))
    settle(driven)
    assert len(pending_requests(sweep.path)) == 1


def test_a_trial_that_waits_behind_another_is_left_at_once_and_the_rest_handed_out_again(
    driven: Driver, sweep: SweepDir, plan: Plan
) -> None:
    _, actor = at_work(driven, plan)
    unwanted, other = actor.not_begun = behind(driven, sweep, plan, 7, 8)
    request_trial_stop(sweep.path, unwanted)
    for _ in range(2):  # two looks, one message
        driven._asked.answer(pending_requests(sweep.path))
    assert actor.given == [([plan.trial_id], False), ([], True)]
    driven._tend()
    settle(driven)
    assert sweep.trial(unwanted).status().reason == "stopped by a reader; no checkpoint yet"
    assert pending_requests(sweep.path) == []
    assert driven._ledger.open == {plan.trial_id, other}
    assert [task["trial_id"] for task in driven._workers["w"].tasks] == [plan.trial_id]
    assert [task["trial_id"] for task in driven._queue.take(driven._workers["w"].kind, 5)] == [other]


def test_what_a_worker_begins_before_it_hears_that_it_is_sent_home_is_not_handed_out_twice(
    driven: Driver, sweep: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[tuple[str | None, int | None]] = []
    monkeypatch.setattr("sweep.service.asked.save_and_stop", stopped.extend)
    trial, actor = at_work(driven, plan)
    begun, other = behind(driven, sweep, plan, 7, 8)
    actor.not_begun = [other]
    request_trial_stop(sweep.path, begun)
    driven._asked.answer(pending_requests(sweep.path))
    driven._tend()
    report(driven, trial, {"trial_id": plan.trial_id, "end": "finished"})
    assert [task["trial_id"] for task in driven._workers["w"].tasks] == [begun]
    assert driven._queue.waiting(driven._workers["w"].kind) == 1
    driven._asked.answer(pending_requests(sweep.path))
    assert stopped == [("n1", os.getpid())]
