"""A trial on S3: few requests, and whatever write it is cut off at, the next attempt ends at the same bits."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from upath import UPath

from analysis.actors import Analyst
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.spec import Plan
from sweep.store import log
from sweep.store.checkpoint import read_checkpoint
from sweep.store.files import STORAGE_ERRORS
from sweep.store.manifest import MEASURED, MODEL, EpochRow, checkpoint_files
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, TrialDir, read_log
from sweep.training import trial as trials
from sweep.training.trial import SupersededError, run_trial, trial_course
from tests.counting import Answer, CountedS3, counted_s3, served

MOST_REQUESTS = 60  # of a trial of four epochs and the analysis of its checkpoints
_READING = ("GET", "HEAD", "LIST")


@pytest.fixture(scope="module")
def module_server(object_store: int) -> Iterator[CountedS3]:
    with counted_s3(object_store) as server:
        UPath("s3://trials").mkdir(exist_ok=True)
        yield server


@pytest.fixture
def server(module_server: CountedS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountedS3]:
    """The S3, asked nothing yet; a trial's requests don't depend on how fast this machine is."""
    monkeypatch.setattr(log, "WRITE_AFTER_S", 3600.0)
    monkeypatch.setattr(trials, "HEARTBEAT_S", 3600.0)
    module_server.requests.clear()
    yield module_server
    module_server.answer = served


@pytest.fixture(scope="module")
def four_epochs() -> Plan:
    return expand(load_grid("smoke", ["recipe.epochs=4", "data.options={train_images: 32, val_images: 16}"])).plans[0]


def first_writes(number: int) -> Answer:
    """Serves so many writes and no more."""
    left = iter(range(number))

    def answer(method: str, key: str) -> int | None:
        return 403 if method not in _READING and next(left, None) is None else None

    return answer


def planned(name: str, plan: Plan) -> TrialDir:
    sweep = SweepDir(UPath(f"s3://trials/lr=[1]/{name}"))
    sweep.add([plan])
    return sweep.trial(plan.trial_id)


def outcome(trial: TrialDir) -> tuple[list[EpochRow], dict[int, set[str]], dict[int, bytes]]:
    """Rows without what the machine decides, the files of all checkpoints, and the weights in them."""
    files = checkpoint_files(trial.checkpoints)
    rows = [{key: value for key, value in row.items() if key not in MEASURED} for row in trial.epochs()]
    for step in files:
        read_checkpoint(trial.checkpoints / str(step))
    return rows, files, {step: (trial.checkpoints / str(step) / MODEL).read_bytes() for step in files}


def test_a_trial_and_its_analysis_take_few_requests(server: CountedS3, four_epochs: Plan) -> None:
    trial = planned("counted", four_epochs)
    kept = [folder for _, folder in trial_course(trial, None, threads=1) if folder is not None]
    analyst = Analyst(num_gpus=0.0)
    rows = [analyst.analyze(str(folder / MODEL), str(trial.layers / folder.name), "final") for folder in kept]
    assert len(server.requests) <= MOST_REQUESTS
    assert [row["error"] for rows_of_one in rows for row in rows_of_one] == [None] * 8
    assert trial.unanalysed(four_epochs) == []
    server.requests.clear()
    again = [analyst.analyze(str(folder / MODEL), str(trial.layers / folder.name), "final") for folder in kept]
    assert again == rows
    assert server.counts() == {"GET": len(kept)}


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_cut_off_at_any_write_the_next_attempt_ends_at_the_same_bits(
    server: CountedS3, four_epochs: Plan, every: int
) -> None:
    quiet = planned(f"quiet {every}", four_epochs)
    server.requests.clear()
    run_trial(quiet, None, threads=1)
    writes = [request for request in server.requests if request.method not in _READING]
    wanted = outcome(quiet)
    for number in range(0, len(writes), every):
        trial = planned(f"cut off at {number} of {every}", four_epochs)
        server.answer = first_writes(number)
        with suppress(*STORAGE_ERRORS):  # a log that can't be written fails no trial
            run_trial(trial, None, threads=1)
        server.answer = served
        assert run_trial(trial, None, threads=1).status == "finished"
        assert outcome(trial) == wanted, writes[number]


def test_an_attempt_learns_at_its_end_that_another_has_begun(server: CountedS3, four_epochs: Plan) -> None:
    trial = planned("twice", four_epochs)
    course = trial_course(trial, None, threads=1)
    next(course)
    newer = Status(status="running", attempts=2, host="node-7")
    trial.write_status(newer)
    with pytest.raises(SupersededError, match="attempt 2 has started elsewhere"):
        list(course)
    assert trial.status() == newer


def test_an_attempt_learns_at_a_heartbeat_that_another_has_begun(
    server: CountedS3, four_epochs: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = planned("beaten", four_epochs)
    course = trial_course(trial, None, threads=1)
    next(course)
    trial.write_status(Status(status="running", attempts=2, host="node-7"))
    monkeypatch.setattr(trials, "HEARTBEAT_S", 0.0)
    with pytest.raises(SupersededError, match="attempt 2 has started elsewhere"):
        next(course)


def test_each_status_is_told_whether_it_is_written_or_not(server: CountedS3, four_epochs: Plan) -> None:
    trial = planned("told", four_epochs)
    told: list[Status] = []
    course = trial_course(trial, None, threads=1, tell=told.append)
    for row, _ in course:
        assert (told[-1].status, told[-1].epoch, told[-1].val_accuracy) == (
            "running",
            row["epoch"],
            row["val_accuracy"],
        )
    assert told[-1] == trial.status()
    statuses = [request for request in server.requests if request.key.endswith("status.json")]
    assert [request.method for request in statuses].count("PUT") == 2


def test_the_log_is_complete_when_a_trial_ends_and_grows_meanwhile(
    server: CountedS3, four_epochs: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = planned("logged", four_epochs)
    assert run_trial(trial, None, threads=1).status == "finished"
    assert [line.split()[1] for line in lines(trial)] == ["attempt", *["epoch"] * 5, "finished"]
    monkeypatch.setattr(log, "WRITE_AFTER_S", 0.05)
    with log.logged_to(trial.log_file):
        log.logger.info("of another attempt")
        while lines(trial)[-1].partition(" ")[2] != "of another attempt":
            pass
    assert len(lines(trial)) == 8


def lines(trial: TrialDir) -> list[str]:
    found = read_log(trial)
    assert found is not None
    return found.splitlines()


def test_a_log_line_waits_for_a_store_that_is_away(server: CountedS3, four_epochs: Plan) -> None:
    trial = planned("away", four_epochs)
    handler = log._Rewritten(trial.log_file)
    handler.emit(log.logger.makeRecord("sweep", 20, "", 0, "first", (), None))
    server.answer = first_writes(0)
    handler._write()
    server.answer = served
    handler.close()
    assert lines(trial) == ["first"]
