"""What the driver does where something is missing: resources, reports, results, the storage."""

import os
import re
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from upath import UPath

from analysis.layers import analyze_checkpoint
from sweep import ROOT
from sweep.grid.schema import Grid
from sweep.results.compact import compact_all
from sweep.results.cost import Budget
from sweep.results.tables import read_table
from sweep.service import driver as module
from sweep.service.cluster import RayCluster
from sweep.service.driver import Driver
from sweep.service.health import Nodes
from sweep.service.shares import Claim, Share
from sweep.spec import Plan, Resources
from sweep.store.lease import hold
from sweep.store.requests import pending_requests, request_retry, request_trial_stop
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, read_error
from sweep.training.trial import run_trial
from tests.command import run
from tests.sweep.service.driving import Told, at_work, behind, failure, report, settle


def test_that_nothing_can_start_is_said_once(
    driven: Driver, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.monotonic()]
    own = replace(plan, resources=Resources(cpus=16, gpus=4, accelerator="H100"))
    driven._placed("w", driven._task(own))
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(5):
        driven.on_step_end(0, [])
        now[0] += 30
    (said,) = told.remarks
    assert said.startswith("no trial could start: a trial needs 16 CPUs and 4 GPUs of type H100, and the analysis has")
    assert re.search(r"the cluster has 2 CPUs, [\d.]+ CPUs? of them free$", said)


def test_each_task_takes_what_its_trial_takes(driven: Driver, plan: Plan) -> None:
    own = Resources(cpus=8, gpus=2, save_every_s=60)
    assert driven._task(replace(plan, resources=own)).items() >= own.model_dump().items()
    of_the_grid = driven._task(replace(plan, resources=None))
    assert of_the_grid.items() >= Resources().model_dump().items()


def test_what_a_worker_reports_is_in_the_tables_before_any_file_is_read(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    trial, actor = at_work(driven, plan)
    assert actor.given == [([plan.trial_id], False)]
    status = Status(status="running", attempts=1, host="far away", epoch=1)
    row = {"epoch": 1, "step": 3, "val_accuracy": 0.5, "wall_s": 1.0}
    about = {"trial_id": plan.trial_id}
    report(driven, trial, about | {"status": status}, about | {"row": row, "kept": None})
    tables = driven._live.tables()
    assert tables["trials"][["status", "host", "epoch"]].to_numpy().tolist() == [["running", "far away", 1]]
    assert tables["epochs"]["val_accuracy"].tolist() == [0.5]
    assert sweep.trial(plan.trial_id).status() == Status()
    done = replace(status, status="finished", val_accuracy=0.75)
    report(driven, trial, about | {"status": done}, about | {"end": "finished"})
    assert told.ends == ["finished, validation accuracy 0.750"]
    assert actor.given[-1] == ([], True)


def test_epochs_of_an_earlier_attempt_are_in_the_tables_too(driven: Driver, plan: Plan) -> None:
    trial, _ = at_work(driven, plan)
    rows = [{"epoch": epoch, "step": 3 * epoch, "val_accuracy": 0.5} for epoch in range(3)]
    report(driven, trial, {"trial_id": plan.trial_id, "rows": rows[:2]})
    report(driven, trial, {"trial_id": plan.trial_id, "row": rows[2], "kept": None})
    assert list(driven._live.tables()["epochs"]["epoch"]) == [0, 1, 2]


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

    monkeypatch.setattr(module, "prove_writable", write)
    monkeypatch.setattr("sweep.service.clerk._AGAIN_S", 0.05)
    trial, _ = at_work(driven, plan)
    report(driven, trial, failure(plan, "OSError: [Errno 5]", storage=True), done=True)
    driven.on_trial_complete(0, [], trial)
    for _ in range(20):
        driven._clerk.tend()
        time.sleep(0.02)
    assert driven._paused()
    assert driven._queue.suggest("x") is None
    assert driven._failures[plan.trial_id] == 0
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
    monkeypatch.setattr(module, "answers", lambda _: True)
    trial, _ = at_work(driven, plan)
    other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": 7}))
    sweep.add([other])
    driven._live.reopen(other, Status())
    driven._workers["w"].tasks.append(driven._task(other) | {"attempts": 0})
    driven._open.add(other.trial_id)
    sweep.trial(plan.trial_id).write_status(Status(status="running", attempts=1))
    driven.on_trial_error(0, [], trial)
    assert driven._queue.holds(plan.trial_id)
    settle(driven)
    assert driven._failures == {plan.trial_id: 1}
    assert driven._queue.waiting(module.kind_of(driven._task(other))) == 1
    assert sweep.trial(plan.trial_id).status().status == "failed"
    assert "process died" in told.remarks[-1]


def test_a_trial_whose_node_is_gone_has_not_failed(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "answers", lambda _: False)
    trial, _ = at_work(driven, plan, node="n1-0123456789")
    sweep.trial(plan.trial_id).write_status(Status(status="running", attempts=1, step=4))
    driven.on_trial_error(0, [], trial)
    settle(driven)
    assert driven._failures[plan.trial_id] == 0
    assert told.remarks == [f"{plan.trial_id}: its node n1-01234 is gone; continues elsewhere from its last checkpoint"]
    assert sweep.trial(plan.trial_id).status().reason == "its node is gone; no checkpoint yet"


def test_a_worker_whose_node_goes_before_it_has_reported_anything_blames_no_trial(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "answers", lambda node: node != "n1")
    trial, _ = at_work(driven, plan)
    driven.on_trial_error(0, [], trial)
    settle(driven)
    assert driven._failures[plan.trial_id] == 0
    assert sweep.trial(plan.trial_id).status() == Status()
    assert driven._queue.waiting(module.kind_of(driven._task(plan))) == 1


def test_a_kind_of_worker_that_cannot_start_fails_its_trials_rather_than_for_ever(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "report_of", lambda _: "ModuleNotFoundError: No module named 'torch'")
    driven._queue.tasks.add(driven._task(plan))
    driven._open.add(plan.trial_id)
    assert isinstance(driven._queue.suggest("w") or driven._placed("w", driven._task(plan)), dict)
    driven._placed("w", driven._task(plan))
    driven.on_trial_error(0, [], SimpleNamespace(trial_id="w", error_file=None))
    settle(driven)
    assert told.ends == ["ModuleNotFoundError: No module named 'torch'"]
    assert sweep.trial(plan.trial_id).status().final
    assert driven._queue.suggest("x") == "FINISHED"


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
    assert set(driven._failures.values()) == {0}
    assert driven._placed("x", driven._task(plan))["avoided"] == ["sick"]


def test_a_trial_that_alone_fails_on_a_node_gets_one_more_chance_elsewhere(
    driven: Driver, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driven._nodes, "_alive", lambda: {"n1", "n2", "n3"})
    driven._cluster = replace(driven._cluster, max_failures=3)
    for node in ["n1"] * 3 + ["n2"] * 4:
        assert told.ends == []
        trial, _ = at_work(driven, plan, node=node)
        report(driven, trial, failure(plan), done=True)
        driven.on_trial_complete(0, [], trial)
        driven._queue.tasks.drop(plan.trial_id)
    assert sum("attempts in a row have failed on node n1" in remark for remark in told.remarks) == 1
    assert driven._nodes.avoided == {"n1"}
    assert told.ends == ["RuntimeError: boom"]


def test_a_request_is_answered_when_its_trial_neither_waits_nor_runs(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    driven._live.read_again(plan.trial_id)
    driven._queue.tasks.hold("another")
    request_retry(sweep.path, plan.trial_id, "scratch")
    driven._answer(pending_requests(sweep.path))
    settle(driven)
    assert pending_requests(sweep.path) == []
    assert driven._live.status(plan.trial_id).reason == "starts from scratch"
    assert driven._live.tables()["epochs"].empty
    assert told.remarks == [f"{plan.trial_id}: retry requested, from scratch"]
    request_retry(sweep.path, plan.trial_id, "scratch")
    driven._answer(pending_requests(sweep.path))  # it waits now
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
    driven._answer(pending_requests(sweep.path))
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
    monkeypatch.setattr(module, "save_and_stop", stopped.extend)
    trial, _ = at_work(driven, plan)
    request_trial_stop(sweep.path, plan.trial_id)
    for _ in range(2):  # two looks, one signal
        driven._answer(pending_requests(sweep.path))
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
    assert not driven._open
    assert driven._queue.suggest("x") == "FINISHED"


def test_a_waiting_trial_that_a_reader_stops_does_not_start_and_one_that_has_ended_stays(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    driven._queue.tasks.add(driven._task(plan))
    driven._queue.tasks.hold("another")
    driven._open.add(plan.trial_id)
    request_trial_stop(sweep.path, plan.trial_id)
    driven._answer(pending_requests(sweep.path))
    settle(driven)
    assert told.ends == ["stopped by a reader; no checkpoint yet"]
    assert not driven._queue.holds(plan.trial_id)
    failed = Status(status="failed", error="RuntimeError: boom")
    sweep.trial(plan.trial_id).write_status(failed)
    request_trial_stop(sweep.path, plan.trial_id)
    driven._answer(pending_requests(sweep.path))
    settle(driven)
    assert pending_requests(sweep.path) == []
    assert sweep.trial(plan.trial_id).status() == failed


def test_a_trial_that_is_stopped_before_it_is_tried_again_has_ended(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    sweep.trial(plan.trial_id).write_status(Status(status="failed", error="RuntimeError: boom"))
    driven._queue.tasks.add(driven._task(plan), delay_s=60.0)
    driven._open.add(plan.trial_id)
    request_trial_stop(sweep.path, plan.trial_id)
    driven._answer(pending_requests(sweep.path))
    settle(driven)
    assert told.ends == ["RuntimeError: boom"]
    assert not driven._open
    assert driven._live.status(plan.trial_id).status == "failed"


def test_what_is_asked_of_a_driver_without_trials_waits_for_the_next(
    driven: Driver, sweep: SweepDir, plan: Plan
) -> None:
    sweep.trial(plan.trial_id).write_status(Status(status="failed", error="RuntimeError: boom"))
    request_retry(sweep.path, plan.trial_id, "scratch")
    driven._queue.closed = False
    driven.run([], [])
    driven._answer(pending_requests(sweep.path))
    settle(driven)
    assert len(pending_requests(sweep.path)) == 1


def test_a_trial_that_waits_behind_another_is_left_at_once_and_the_rest_handed_out_again(
    driven: Driver, sweep: SweepDir, plan: Plan
) -> None:
    _, actor = at_work(driven, plan)
    unwanted, other = actor.not_begun = behind(driven, sweep, plan, 7, 8)
    request_trial_stop(sweep.path, unwanted)
    for _ in range(2):  # two looks, one message
        driven._answer(pending_requests(sweep.path))
    assert actor.given == [([plan.trial_id], False), ([], True)]
    driven._tend()
    settle(driven)
    assert sweep.trial(unwanted).status().reason == "stopped by a reader; no checkpoint yet"
    assert pending_requests(sweep.path) == []
    assert driven._open == {plan.trial_id, other}
    assert [task["trial_id"] for task in driven._workers["w"].tasks] == [plan.trial_id]
    assert [task["trial_id"] for task in driven._queue.take(driven._workers["w"].kind, 5)] == [other]


def test_what_a_worker_begins_before_it_hears_that_it_is_sent_home_is_not_handed_out_twice(
    driven: Driver, sweep: SweepDir, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[tuple[str | None, int | None]] = []
    monkeypatch.setattr(module, "save_and_stop", stopped.extend)
    trial, actor = at_work(driven, plan)
    begun, other = behind(driven, sweep, plan, 7, 8)
    actor.not_begun = [other]
    request_trial_stop(sweep.path, begun)
    driven._answer(pending_requests(sweep.path))
    driven._tend()
    report(driven, trial, {"trial_id": plan.trial_id, "end": "finished"})
    assert [task["trial_id"] for task in driven._workers["w"].tasks] == [begun]
    assert driven._queue.waiting(driven._workers["w"].kind) == 1
    driven._answer(pending_requests(sweep.path))
    assert stopped == [("n1", os.getpid())]


def test_tables_are_not_written_by_two(sweep: SweepDir, tiny: Grid, plan: Plan, tmp_path: Path) -> None:
    """`sweep report` on a sweep that a driver works on leaves the tables to it."""
    sweep.add([plan])
    sweep.record_launch(tiny.model_dump(mode="json"))
    compact_all(sweep)
    table = Path(sweep.path.path) / "results" / "trials.parquet"
    before = table.stat().st_mtime_ns
    report = ["report", str(sweep.path), "-o", str(tmp_path / "r.html")]
    with hold(sweep.path):
        run(*report)
        assert table.stat().st_mtime_ns == before
    run(*report)
    assert table.stat().st_mtime_ns > before
    assert len(read_table(sweep.path, "trials")) == 1


@pytest.mark.ray
def test_where_a_sweep_is_launched_from_and_where_its_python_lies_makes_no_difference(tmp_path: Path) -> None:
    """A researcher's repository has packages of the project's names, and a space in its path."""
    repository = tmp_path / "my repository"
    for name in ("analysis", "dashboard", "models", "sweep"):
        (repository / name).mkdir(parents=True)
        (repository / name / "__init__.py").write_text("raise RuntimeError('this is not the project')")
    tiny = ["--set", "data.options={train_images: 16, val_images: 8}", "--set", "interventions=[untrained]"]
    environment = os.environ | {"HOME": str(repository), "PYTHONPATH": str(ROOT)}
    for storage, python in (("here", sys.executable), ("~/there", python_below(repository / ".venv"))):
        command = [python, "-P", "-m", "sweep.cli", "launch", "demo", *tiny, "--set", "recipe.batch_size=8"]
        command.append(f"--storage={storage}")
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    written = {path.name for path in repository.iterdir() if not path.name.startswith(".")}
    assert written == {"analysis", "dashboard", "models", "sweep", "here", "there"}
    assert UPath(repository / "there" / "demo" / "results" / "trials.parquet").exists()


def python_below(folder: Path) -> str:
    """A Python in a virtual environment of its own that borrows this one's packages."""
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return str(folder / "bin" / "python")


def test_short_trials_are_handed_out_ahead_however_many_workers_wait_for_a_place(driven: Driver, plan: Plan) -> None:
    _, actor = at_work(driven, plan)
    worker = driven._workers["w"]
    for seed in range(1, 11):
        other = replace(plan, spec=plan.spec.model_copy(update={"init_seed": seed}))
        driven._live.reopen(other, Status())
        driven._queue.tasks.add(driven._task(other))
        driven._placed(f"w{seed}", driven._task(other))
    driven._pace_s[worker.kind] = 1.0
    driven._feed(worker)
    given, no_more = actor.given[-1]
    assert (len(given), no_more) == (3, False)


def test_at_most_so_many_trials_run_as_the_user_and_the_other_sweeps_leave(driven: Driver, plan: Plan) -> None:
    driven._cluster = RayCluster(address="auto", at_a_time=2)
    assert not driven._full()
    _, first = at_work(driven, plan, name="w")
    assert not driven._full()
    _, second = at_work(driven, plan, name="x")
    assert driven._full()
    driven._cluster = RayCluster(address="auto")
    driven._seat.tend = lambda claim: claims.append(claim)  # type: ignore[method-assign]
    claims: list[Claim] = []
    driven._seat.share = Share(1.0)
    driven._share()
    assert (claims[0].used, claims[0].unit) == (2.0, "CPU")
    assert [first.given[-1], second.given[-1]] == [([plan.trial_id], False), ([], True)]
    driven._share()
    assert claims[1].used == 1.0
    assert driven._full()


def test_a_launch_stops_when_its_budget_is_used_up(driven: Driver, sweep: SweepDir, plan: Plan, told: Told) -> None:
    driven._cluster = RayCluster(budget=Budget.parse("2h"))
    before = Status(status="running", attempts=1, wall_s=3600, cpus=1, gpus=0.0)
    driven._live.tell(plan.trial_id, before)
    driven._account(driven._write())
    driven._live.tell(plan.trial_id, replace(before, wall_s=2 * 3600))
    driven._account(driven._write())
    assert not driven._queue.closing
    driven._live.tell(plan.trial_id, replace(before, wall_s=3 * 3600))
    driven._account(driven._write())
    assert driven._queue.closing
    assert told.remarks[0].startswith("the budget of 2 hours is used up; resume with another --budget to go on")
    assert read_table(sweep.path, "trials")["cpu_hours"].tolist() == [3.0]


@pytest.mark.parametrize("said", ["", "h", "-3h", "40 hours", "nan", "inf", "0"])
def test_a_budget_is_hours_or_money(said: str) -> None:
    with pytest.raises(ValueError, match="give hours, such as 40h, or money, such as 250"):
        Budget.parse(said)
    assert (str(Budget.parse("40h")), str(Budget.parse(" 250 "))) == ("40 hours", "250")


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
    driven._record(plan.trial_id, Status(status="failed", attempts=1, error="a late one"), "Traceback")
    assert sweep.trial(plan.trial_id).status() == newer


def test_a_trial_handed_out_before_fails_too_if_its_workers_cannot_start(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "report_of", lambda _: "ImportError: libcuda.so.1")
    sweep.trial(plan.trial_id).write_status(Status(status="pending", attempts=3))
    driven._live.read_again(plan.trial_id)
    driven._queue.tasks.add(driven._task(plan) | {"attempts": 1})
    driven._open.add(plan.trial_id)
    driven._placed("w", driven._task(plan))
    driven.on_trial_error(0, [], SimpleNamespace(trial_id="w", error_file=None))
    settle(driven)
    assert told.ends == ["ImportError: libcuda.so.1"]


def test_what_the_tables_lack_after_a_killed_driver_is_written_by_the_next(
    sweep: SweepDir, plan: Plan, tiny: Grid
) -> None:
    sweep.add([plan])
    sweep.record_launch(tiny.model_dump(mode="json"))
    compact_all(sweep)
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)
    for folder in trial.unanalysed(plan):
        analyze_checkpoint(folder / "model.safetensors", trial.layers / folder.name)
    assert "nothing to do" in run("resume", str(sweep.path))
    assert read_table(sweep.path, "trials")["settled"].tolist() == [True]


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
