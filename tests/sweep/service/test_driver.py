"""What the driver does where something is missing: resources, reports, results, the storage."""

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from upath import UPath

from analysis.write import RESULTS
from sweep import ROOT
from sweep.grid.schema import Grid
from sweep.results.compact import compact_all
from sweep.results.tables import read_table
from sweep.service import driver as module
from sweep.service.driver import Driver
from sweep.spec import Plan, Resources
from sweep.store.lease import hold
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import run_trial
from tests.command import run


class Told:
    """A display that remembers."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.ends: list[str] = []

    def epoch(self, trial_id: str, epoch: int, val_accuracy: float | None) -> None: ...
    def another_trial(self, trial_id: str, epochs: int) -> None: ...
    def analysed(self, done: int, waiting: int) -> None: ...

    def ended(self, trial_id: str, outcome: str) -> None:
        self.ends.append(outcome)

    def remark(self, line: str) -> None:
        self.remarks.append(line)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def driven(sweep: SweepDir, tiny: Grid, told: Told, local_ray: None) -> Any:
    """A driver of a sweep, outside Tune."""
    with hold(sweep.path) as lease:
        made = Driver(sweep, tiny, told, lease, max_failures=0)
        yield made
        made._analyses.close()


def tune_trial(plan: Plan, **facts: Any) -> SimpleNamespace:
    return SimpleNamespace(config={"task": {"trial_id": plan.trial_id}}, error_file=None, last_result={}, **facts)


def test_a_checkpoint_that_its_trial_had_no_time_to_report_is_analysed(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    sweep.add([plan])
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)  # nobody has heard of its checkpoints
    unfinished = trial.layers / "9" / ".features.3a.conv.npz.0123abcd.part"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"half")
    driven._analyses.submit_missing([plan])
    driven._analyses.wait(driven._lease, told.remark)
    assert trial.unanalysed(plan) == []
    assert (trial.layers / "9" / RESULTS).exists()
    assert not unfinished.exists()


def test_an_analysis_that_fails_is_told_and_recorded_or_else_counted(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    sweep.add([plan])
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)
    trial.layers.mkdir()
    (trial.layers / "9").write_text("a file where its results should go")
    (trial.checkpoints / "0" / "model.safetensors").write_bytes(b"torn")
    driven._analyses.submit_missing([plan])
    driven._analyses.wait(driven._lease, told.remark)
    assert driven.lost_analyses == 1
    of_analyses = [remark for remark in told.remarks if remark.startswith(plan.trial_id)]  # a slow start is told too
    assert sorted(remark.split(":")[1] for remark in of_analyses) == [
        " the analysis of step 0 failed", " the analysis of step 9 failed",
    ]  # fmt: skip
    driven._analyses.record([(str(trial.checkpoints / "3" / "model.safetensors"), [{"error": "KeyError: 'a'"}])])
    assert told.remarks[-1] == f"{plan.trial_id}: the analysis of step 3 failed: KeyError: 'a'"


def test_that_nothing_can_start_is_said_once(driven: Driver, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    task = Resources(cpus=16, gpus=4, accelerator="H100").model_dump()
    waiting = SimpleNamespace(status="PENDING", config={"task": task})
    for _ in range(5):
        driven.on_step_end(0, [waiting])
        now[0] += 30
    (said,) = told.remarks
    assert said.startswith("no trial could start: a trial needs 16 CPUs and 4 GPUs of type H100, and the analysis has")
    assert said.endswith("the cluster has 2 CPUs")


def test_each_task_takes_what_its_trial_takes(driven: Driver, plan: Plan) -> None:
    own = Resources(cpus=8, gpus=2, save_every_s=60)
    assert driven._task(replace(plan, resources=own)).items() >= own.model_dump().items()
    of_the_grid = driven._task(replace(plan, resources=None))
    assert of_the_grid.items() >= Resources().model_dump().items()


def test_a_storage_that_fails_in_a_callback_ends_no_sweep(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.add([plan])

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(driven._analyses, "submit", fail)
    monkeypatch.setattr(module.TrialDir, "status", fail)
    result = {"epoch": 1, "val_accuracy": 0.5, "kept": str(sweep.path)}
    driven.on_trial_result(0, [], tune_trial(plan), result)
    driven.on_trial_error(0, [], tune_trial(plan))
    assert "the storage is unavailable: [Errno 5]" in told.remarks[0]
    assert "its status can't be read" in told.remarks[1]
    assert "process died" in told.ends[0]


def test_a_request_that_comes_after_the_end_waits_for_the_next_resume(driven: Driver) -> None:
    assert driven._queue.suggest("") == "FINISHED"
    assert driven._queue.closed
    driven._sweep = None  # type: ignore[assignment]  # it must not be looked at
    driven._answer_requests()


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
