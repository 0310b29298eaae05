"""A trial's status: what happened to it, with a cure; and only the newest attempt writes it."""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from upath import UPath

from sweep.spec import Plan, Resources
from sweep.store.log import logger
from sweep.store.manifest import MODEL, checkpoint_steps
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, TrialDir
from sweep.training import machine, trial
from sweep.training.machine import Arithmetic
from sweep.training.train import StoppedError
from sweep.training.trial import SupersededError, run_trial, trial_course


@pytest.fixture
def planned(sweep: SweepDir, plan: Plan) -> TrialDir:
    sweep.add([plan])
    return sweep.trial(plan.trial_id)


def weights(done: TrialDir) -> dict[int, bytes]:
    return {step: (done.checkpoints / str(step) / MODEL).read_bytes() for step in checkpoint_steps(done.checkpoints)}


def test_a_finished_trial_says_where_and_with_what(planned: TrialDir) -> None:
    status = run_trial(planned, None, threads=1)
    assert (status.status, status.attempts, status.epoch, status.step, status.steps) == ("finished", 1, 3, 9, 9)
    assert status.pid == os.getpid()
    assert status.code_version is not None


@pytest.mark.parametrize(
    ("number", "cure"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "read-only"), (errno.EACCES, "restore the permission")],
)
def test_a_storage_that_refuses_fails_the_trial_with_a_cure_and_costs_nothing(
    planned: TrialDir, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    sync = os.fsync
    with monkeypatch.context() as patched:

        def refuse(descriptor: int) -> None:
            if "checkpoints/6/.training" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise OSError(number, os.strerror(number))
            sync(descriptor)

        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            run_trial(planned, None, threads=1)
    status = planned.status()
    assert status.status == "failed"
    assert not status.final
    assert status.error is not None
    assert cure in status.error
    assert list(Path(planned.path.path).rglob("*.part")) == []
    assert checkpoint_steps(planned.checkpoints) == [3, 0]
    run_trial(planned, None, threads=1)
    other = SweepDir(UPath(tmp_path / "quiet"))
    other.add([plan])
    run_trial(other.trial(plan.trial_id), None, threads=1)
    assert weights(planned) == weights(other.trial(plan.trial_id))


def test_a_stopped_trial_is_pending_with_a_reason(planned: TrialDir) -> None:
    with pytest.raises(StoppedError):
        run_trial(planned, None, threads=1, stop=lambda step: step == 4)
    status = planned.status()
    assert (status.status, status.epoch, status.step) == ("pending", 1, 4)
    assert status.reason == "stopped; resumes from its last checkpoint"
    assert run_trial(planned, None, threads=1).attempts == 2


def test_closing_the_course_leaves_the_trial_pending(planned: TrialDir) -> None:
    course = trial_course(planned, None, threads=1)
    next(course)
    next(course)
    course.close()  # type: ignore[attr-defined]
    assert planned.status().status == "pending"
    assert planned.status().reason == "stopped; resumes from its last checkpoint"


def test_a_trial_stopped_with_its_untrained_network_alone_has_no_checkpoint_yet(planned: TrialDir) -> None:
    course = trial_course(planned, None, threads=1)
    next(course)
    course.close()  # type: ignore[attr-defined]
    assert planned.status().reason == "stopped; no checkpoint yet"


def test_a_trial_without_a_checkpoint_is_not_said_to_have_one(planned: TrialDir) -> None:
    assert planned.interrupted("stopped") == "stopped; no checkpoint yet"
    assert planned.interrupted("interrupted on node-7") == "interrupted on node-7; no checkpoint yet"
    run_trial(planned, None, threads=1)
    assert planned.interrupted("stopped") == "stopped; resumes from its last checkpoint"


def test_a_trial_stopped_by_its_first_step_is_at_step_one_whatever_the_clock_says(planned: TrialDir) -> None:
    with pytest.raises(StoppedError):
        run_trial(planned, None, threads=1, stop=lambda step: step == 1)
    assert (planned.status().epoch, planned.status().step) == (0, 1)


def test_a_failed_trial_tells_the_step_it_reached(planned: TrialDir) -> None:
    with pytest.raises(ZeroDivisionError):
        run_trial(planned, None, threads=1, stop=lambda step: step == 5 and step / 0 > 0)
    assert (planned.status().status, planned.status().step) == ("failed", 5)


def test_a_heartbeat_tells_the_step_within_an_epoch(planned: TrialDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "HEARTBEAT_S", 0.0)
    steps: list[int] = []

    def look(step: int) -> bool:
        steps.append(planned.status().step)
        return False

    run_trial(planned, None, threads=1, stop=look)
    assert steps == list(range(1, 10))


def test_an_attempt_that_lives_on_after_another_has_begun_leaves_the_files_alone(planned: TrialDir) -> None:
    course = trial_course(planned, None, threads=1)
    next(course)
    newer = Status(status="running", attempts=2, host="node-7")
    planned.write_status(newer)
    with pytest.raises(SupersededError, match="attempt 2 has started elsewhere"):
        next(course)
    assert planned.status() == newer


def log_of(trial: TrialDir) -> list[str]:
    """The log's lines without their times."""
    lines = (trial.path / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)
    return [line.partition(" ")[2] for line in lines]


def test_the_log_tells_what_happened_attempt_after_attempt(planned: TrialDir) -> None:
    with pytest.raises(StoppedError):
        run_trial(planned, None, threads=1, stop=lambda step: step == 7)
    newest = planned.checkpoints / str(checkpoint_steps(planned.checkpoints)[0])
    (newest / MODEL).write_bytes(b"torn")
    run_trial(planned, None, threads=1)
    first, *epochs, stopped, second, torn, resumes, third, finished = log_of(planned)
    assert first.startswith("attempt 1 starts on ")
    assert [line.split(":")[0] for line in epochs] == [f"epoch {n} ends at step {3 * n}" for n in range(3)]
    assert stopped == "stopped at step 7"
    assert second.startswith("attempt 2 starts on ")
    assert torn.startswith("skips a corrupt checkpoint: ")
    assert str(newest / MODEL) in torn
    assert resumes == "resumes from the checkpoint of step 6"
    assert third.startswith("epoch 3 ends at step 9: loss ")
    assert finished == "finished"


def test_the_log_tells_of_a_failure_and_ends_with_the_trial(planned: TrialDir, plan: Plan) -> None:
    with pytest.raises(ZeroDivisionError):
        run_trial(planned, None, threads=1, stop=lambda step: step / 0 > 0)
    assert log_of(planned)[-1].startswith("failed: ZeroDivisionError")
    lines = len(log_of(planned))
    logger.info("of something else")
    assert len(log_of(planned)) == lines


def test_a_log_that_cannot_be_written_harms_no_trial(planned: TrialDir) -> None:
    (planned.path / "log.txt").mkdir()
    assert run_trial(planned, None, threads=1).status == "finished"


def run_again(planned: TrialDir, threads: int) -> list[str]:
    """The log of a second attempt at a trial whose first, with one thread, was stopped at step 4."""
    with pytest.raises(StoppedError):
        run_trial(planned, None, threads=1, stop=lambda step: step == 4)
    before = len(log_of(planned))
    run_trial(planned, None, threads)
    return log_of(planned)[before:]


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("on_the_cpu")
def test_what_decides_a_trials_bits_is_recorded(planned: TrialDir) -> None:
    status = run_trial(planned, None, threads=2)
    assert (status.device, status.threads, status.torch_version) == ("CPU", 2, torch.__version__)
    assert status.cpu_capability == torch.backends.cpu.get_cpu_capability()


@pytest.mark.usefixtures("on_the_cpu")
def test_going_on_with_the_same_arithmetic_says_nothing(planned: TrialDir) -> None:
    assert not [line for line in run_again(planned, threads=1) if "arithmetic" in line]


@pytest.mark.usefixtures("on_the_cpu")
def test_going_on_with_other_threads_is_told_in_one_line(planned: TrialDir) -> None:
    told = [line for line in run_again(planned, threads=2) if "arithmetic" in line]
    assert len(told) == 1
    assert told[0].startswith("continues with other arithmetic: CPU, 1 thread, ")


@pytest.mark.parametrize(
    ("recorded", "differs"),
    [
        ({}, False),  # by a version that recorded nothing
        ({"device": "CPU", "threads": 4, "cpu_capability": "AVX2", "torch_version": "2.11"}, False),
        ({"device": "CPU", "threads": 1, "cpu_capability": "AVX2", "torch_version": "2.11"}, True),
        ({"device": "CPU", "threads": 4, "cpu_capability": "AVX512", "torch_version": "2.11"}, True),
        ({"device": "CPU", "threads": 4, "cpu_capability": "AVX2", "torch_version": "2.12"}, True),
        ({"device": "NVIDIA H100", "threads": 4, "cpu_capability": "AVX2", "torch_version": "2.11"}, True),
    ],
)
def test_arithmetic_differs_in_what_adds_up_otherwise(recorded: dict[str, Any], differs: bool) -> None:
    here = Arithmetic(device="CPU", threads=4, cpu_capability="AVX2", torch_version="2.11")
    assert here.differs_from(Status(**recorded)) == differs
    gpu = replace(here, device="NVIDIA H100")
    assert not gpu.differs_from(Status(device="NVIDIA H100", threads=1, cpu_capability="DEFAULT", torch_version="2.11"))


def test_a_machine_is_called_what_its_price_list_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_DMI", tmp_path)
    assert machine.node_type() == "CPU"
    (tmp_path / "product_name").write_text("g5.2xlarge\n")
    (tmp_path / "sys_vendor").write_text("QEMU\n")
    assert machine.node_type() == "CPU"
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert machine.node_type() == "g5.2xlarge"


def test_an_attempt_records_what_it_occupies(plan: Plan, sweep: SweepDir) -> None:
    sweep.add([replace(plan, resources=Resources(cpus=2, gpus=0.5))])
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    status = sweep.trial(plan.trial_id).status()
    assert (status.cpus, status.gpus) == (2, 0.5)
