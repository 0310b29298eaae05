"""What the clerk does with a storage that is away, with errors of its jobs, and at the end."""

import threading
import time

import pytest

from sweep.service.clerk import Clerk


def tended(clerk: Clerk, seconds: float = 0.3) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        clerk.tend()
        time.sleep(0.01)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clerk(said: list[str]) -> Clerk:
    return Clerk(said.append, lambda _: None)


def test_a_job_waits_for_the_storage_and_that_is_said_once(
    clerk: Clerk, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.service.clerk._AGAIN_S", 0.02)
    away, done = [True], list[str]()

    def write() -> str:
        if away[0]:
            raise PermissionError(13, "ExpiredToken")
        return "written"

    clerk.do(write, done.append)
    clerk.do(write, done.append)
    tended(clerk)
    assert clerk.away
    assert [line.split(":")[0] for line in said] == ["the storage is unavailable"]
    away[0] = False
    tended(clerk)
    assert done == ["written", "written"]
    assert not clerk.away
    assert said[1:] == ["the storage answers again"]


def test_an_error_that_is_no_outage_is_raised_once(clerk: Clerk) -> None:
    def fail() -> None:
        raise FileNotFoundError("a file that should be there")

    clerk.do(fail, lambda _: None)
    with pytest.raises(FileNotFoundError):
        tended(clerk)
    clerk.close()


def test_at_the_end_what_runs_is_waited_for_and_what_repeats_is_not_begun_again(clerk: Clerk) -> None:
    begun, go_on, ends = threading.Event(), threading.Event(), list[str]()

    def write() -> None:
        begun.set()
        go_on.wait(10)
        ends.append("periodic")

    clerk.every(0.0, write, lambda _: None)
    clerk.tend()
    assert begun.wait(10)
    clerk.do(lambda: ends.append("once"), lambda _: None)
    threading.Timer(0.2, go_on.set).start()
    clerk.close()
    assert sorted(ends) == ["once", "periodic"]
