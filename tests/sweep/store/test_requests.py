"""Requests to run a trial again, on a local disk and on an object store."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from upath import UPath

from sweep.store.lease import hold
from sweep.store.requests import (
    Request,
    Start,
    TrialStop,
    forget,
    forget_stop,
    pending_request,
    pending_requests,
    read_requests,
    request_retry,
    request_stop,
    request_trial_stop,
    requested_trials,
    stop_requested,
)

TRIAL = "simplified_mini-baseline-s0-0123456789ab"
OTHER = "simplified_mini-rotate90-s0-0123456789ab"


@pytest.fixture(params=["disk", "object store"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    memory = fsspec.filesystem("memory")
    path = UPath(tmp_path / "demo") if request.param == "disk" else UPath("memory://requests/demo")
    for trial_id in (TRIAL, OTHER):
        folder = path / "trials" / trial_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_text("{}")
    yield path
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("start", ["checkpoint", "scratch"])
def test_a_request_is_read_as_it_was_made_and_forgotten(sweep: UPath, start: Start) -> None:
    assert pending_requests(sweep) == []
    request_retry(sweep, TRIAL, start)
    (request,) = pending_requests(sweep)
    assert (request.trial_id, request.start) == (TRIAL, start)
    assert pending_request(sweep, TRIAL) == request
    assert pending_request(sweep, OTHER) is None
    forget(sweep, request)
    forget(sweep, request)
    assert pending_requests(sweep) == []


def test_the_file_says_what_the_documents_promise(sweep: UPath) -> None:
    request_retry(sweep, TRIAL, "scratch")
    values = json.loads((sweep / "requests" / f"{TRIAL}.json").read_text())
    assert set(values) == {"trial_id", "start", "requested_at"}


def test_the_newest_request_for_a_trial_counts_and_the_oldest_trial_comes_first(sweep: UPath) -> None:
    request_retry(sweep, OTHER, "checkpoint")
    request_retry(sweep, TRIAL, "checkpoint")
    request_retry(sweep, TRIAL, "scratch")
    assert [(r.trial_id, r.start) for r in pending_requests(sweep)] == [(OTHER, "checkpoint"), (TRIAL, "scratch")]


def test_a_request_made_while_the_last_one_was_answered_is_not_lost(sweep: UPath) -> None:
    request_retry(sweep, TRIAL, "checkpoint")
    (answered,) = pending_requests(sweep)
    request_retry(sweep, TRIAL, "scratch")
    forget(sweep, answered)
    assert [request.start for request in pending_requests(sweep)] == ["scratch"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"trial_id": "',
        b"\xff\xfe",
        b"[]",
        b"7",
        b'{"trial_id": "x"}',
        json.dumps({"trial_id": OTHER, "start": "sideways", "requested_at": 1.0}).encode(),
        json.dumps({"trial_id": OTHER, "start": ["scratch"], "requested_at": 1.0}).encode(),
        json.dumps({"trial_id": TRIAL, "start": "scratch", "requested_at": 1.0}).encode(),
        json.dumps({"trial_id": OTHER, "start": "scratch", "requested_at": "now"}).encode(),
        json.dumps({"trial_id": TRIAL, "action": "stop", "requested_at": 1.0}).encode(),
        json.dumps({"trial_id": OTHER, "action": "stop"}).encode(),
        json.dumps({"trial_id": OTHER, "action": "stop", "start": "scratch", "requested_at": 1.0}).encode(),
    ],
)
def test_a_damaged_request_is_named_and_keeps_no_other_from_being_answered(sweep: UPath, content: bytes) -> None:
    request_retry(sweep, TRIAL, "checkpoint")
    (sweep / "requests" / f"{OTHER}.json").write_bytes(content)
    found = read_requests(sweep)
    assert [request.trial_id for request in found.pending] == [TRIAL]
    assert len(found.damaged) == 1
    assert f"{OTHER}.json" in found.damaged[0]
    assert pending_request(sweep, OTHER) is None
    request_retry(sweep, OTHER, "scratch")
    assert len(pending_requests(sweep)) == 2


def test_a_trial_is_stopped_by_whoever_works_on_its_sweep_and_the_newest_request_counts(sweep: UPath) -> None:
    with pytest.raises(ValueError, match="no driver works on"):
        request_trial_stop(sweep, TRIAL)
    with hold(sweep):
        request_retry(sweep, TRIAL, "checkpoint")
        request_trial_stop(sweep, TRIAL)
        (stop,) = pending_requests(sweep)
        assert (stop, stop.trial_id) == (pending_request(sweep, TRIAL), TRIAL)
        assert isinstance(stop, TrialStop)
        assert requested_trials(sweep) == [TRIAL]
        request_retry(sweep, TRIAL, "scratch")
        forget(sweep, stop)
        assert [type(request) for request in pending_requests(sweep)] == [Request]
        with pytest.raises(ValueError, match="has no trial"):
            request_trial_stop(sweep, "nothing")


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", f"../trials/{TRIAL}", f"{TRIAL}/../{TRIAL}"])
def test_only_trials_of_the_sweep_can_be_asked_for(sweep: UPath, name: str) -> None:
    with pytest.raises(ValueError, match="has no trial"):
        request_retry(sweep, name, "checkpoint")
    assert pending_requests(sweep) == []


def test_an_unknown_start_names_the_known_ones(sweep: UPath) -> None:
    with pytest.raises(ValueError, match="from checkpoint or scratch, not from 'middle'"):
        request_retry(sweep, TRIAL, "middle")  # type: ignore[arg-type]


def test_asking_needs_neither_torch_nor_ray() -> None:
    code = "import sys, sweep.store.requests; sys.exit(', '.join({'torch', 'ray'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_request_to_stop_is_for_the_driver_that_works_now_and_for_no_trial(sweep: UPath) -> None:
    with hold(sweep):
        assert not stop_requested(sweep)
        request_stop(sweep)
        assert stop_requested(sweep)
        assert read_requests(sweep) == ([], [])
    with hold(sweep):
        assert not stop_requested(sweep)
        request_stop(sweep)
        forget_stop(sweep)
        forget_stop(sweep)
        assert not stop_requested(sweep)


def test_a_damaged_request_to_stop_stops_nobody(sweep: UPath) -> None:
    with hold(sweep):
        request_stop(sweep)
        (sweep / "requests" / "stop").write_text("{")
        assert not stop_requested(sweep)


def test_where_nobody_works_there_is_nothing_to_stop(sweep: UPath) -> None:
    with pytest.raises(ValueError, match=r"no driver works on .*demo, so there is nothing to stop"):
        request_stop(sweep)
    assert not (sweep / "requests").exists()
