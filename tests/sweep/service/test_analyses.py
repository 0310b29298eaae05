"""Analyses: all checkpoints are, what fails is told and recorded, an outage of the storage is waited for."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.actors import Analysed
from analysis.write import RESULTS
from sweep.service.driver import Driver
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import run_trial
from tests.sweep.service.driving import Told, settle


def test_a_checkpoint_that_its_trial_had_no_time_to_report_is_analysed(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)  # nobody has heard of its checkpoints
    driven._live.read_again(plan.trial_id)
    driven._analyses.submit_missing()
    driven._analyses.wait(driven._lease, told.remark)
    assert trial.unanalysed(plan) == []
    assert (trial.layers / "9" / RESULTS).exists()
    assert driven._live.tables()["trials"]["settled"].all()


def test_an_analysis_that_fails_is_told_and_recorded_or_else_counted(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told
) -> None:
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)
    driven._live.read_again(plan.trial_id)
    trial.layers.mkdir()
    (trial.layers / "9").write_text("a file where its results should go")
    (trial.checkpoints / "0" / "model.safetensors").write_bytes(b"torn")
    driven._analyses.submit_missing()
    driven._analyses.wait(driven._lease, told.remark)
    settle(driven)
    assert driven.lost_analyses == 1
    of_analyses = [remark for remark in told.remarks if remark.startswith(plan.trial_id)]  # a slow start is told too
    assert sorted(remark.split(":")[1] for remark in of_analyses) == [
        " the analysis of step 0 failed", " the analysis of step 9 failed",
    ]  # fmt: skip


def test_an_analysis_that_meets_an_outage_is_repeated_when_the_storage_answers(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)
    driven._live.read_again(plan.trial_id)
    asked = []

    def probe(_: object) -> None:
        asked.append(Path(trial.layers.path).is_symlink())
        if len(asked) == 3:
            Path(trial.layers.path).unlink()
        if asked[-1]:
            raise OSError(errno.EBUSY, "Please reduce your request rate")

    monkeypatch.setattr("sweep.service.analyses.prove_writable", probe)
    monkeypatch.setattr("sweep.service.clerk._AGAIN_S", 0.05)
    monkeypatch.setattr("sweep.service.failures._BACKOFF_S", 0.05)
    Path(trial.layers.path).symlink_to(trial.layers.path)  # whatever is below a link to itself, the system can't say
    driven._analyses.submit_missing()
    driven._analyses.wait(driven._lease, told.remark)
    assert trial.unanalysed(plan) == []
    assert driven._live.tables()["layers"]["error"].isna().all()
    assert [remark for remark in told.remarks if remark.startswith(plan.trial_id)] == []


class Pool:
    """Remembers when it was given a checkpoint, and reports an outage each time."""

    def __init__(self, now: list[float]) -> None:
        self.now, self.given, self.pending, self._ended = now, [now[0]], 0, []  # type: ignore[var-annotated]

    def submit(self, model_file: str, out_dir: str) -> None:
        self.given.append(self.now[0])
        self._ended.append(Analysed(model_file, [{"error": "PermissionError: expired"}], outage=True))

    def poll(self, timeout_s: float) -> list[Analysed]:
        ended, self._ended = self._ended, []
        return ended

    def holds(self, model_file: str) -> bool:
        return False

    def close(self) -> None: ...


def test_outages_in_a_row_are_waited_out_for_minutes_and_then_left_to_the_next_resume(
    driven: Driver, sweep: SweepDir, plan: Plan, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    driven._live.read_again(plan.trial_id)
    now = [100.0]
    monkeypatch.setattr("sweep.service.analyses.time", SimpleNamespace(monotonic=lambda: now[0]))
    analyses, pool = driven._analyses, Pool(now)
    analyses._pool.close()
    monkeypatch.setattr(analyses, "_pool", pool)
    checkpoint = sweep.trial(plan.trial_id).checkpoints / "9"
    analyses.submit(checkpoint)
    while analyses.busy_with(plan.trial_id):
        analyses.collect()
        settle(driven)
        now[0] += 1.0
    waits = [int(after - before) for before, after in zip(pool.given[1:], pool.given[2:], strict=False)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert (analyses.pending, driven.lost_analyses) == (0, 1)
    assert told.remarks == [
        f"{plan.trial_id}: the analysis of step 9 has met 11 outages in a row (PermissionError: expired); "
        "the next resume repeats it"
    ]
    assert not sweep.trial(plan.trial_id).results_file("9").exists()
    assert not driven._live.tables()["trials"]["settled"].any()
    analyses.record([Analysed(str(checkpoint / "model.safetensors"), [{"error": None, "layer": "c"}])])
    assert driven.lost_analyses == 0
