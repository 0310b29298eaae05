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
from sweep.service.shares import Claim, Share
from sweep.spec import Plan, Resources
from sweep.store.lease import hold
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.training.trial import run_trial
from tests.command import run
from tests.sweep.service.driving import Told, at_work, behind, report


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
    driven._handing._pace_s[worker.kind] = 1.0
    driven._handing.feed(worker)
    given, no_more = actor.given[-1]
    assert (len(given), no_more) == (3, False)


@pytest.mark.ray
def test_what_waits_behind_a_long_trial_is_handed_out_again(driven: Driver, sweep: SweepDir, plan: Plan) -> None:
    _, actor = at_work(driven, plan)
    worker = driven._workers["w"]
    actor.not_begun = behind(driven, sweep, plan, 7, 8)
    driven._handing._pace_s[worker.kind] = 0.01  # as after failures at once
    driven._handing.take_back()
    assert len(worker.tasks) == 3
    worker.since -= 60
    driven._handing.take_back()
    driven._handing.take_back()  # the answer may come with the second look
    assert [task["trial_id"] for task in worker.tasks] == [plan.trial_id]
    given = len(actor.given)
    driven._handing.feed(worker)  # nor does it get them again
    assert len(actor.given) == given
    assert all(driven._queue.holds(trial_id) for trial_id in actor.not_begun)


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
