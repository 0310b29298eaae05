"""One driver at a time: the second is refused, a dead one's place is taken, by one of many."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Barrier, Semaphore

import pytest
from upath import UPath

from sweep.store import lease
from sweep.store.files import write_json
from sweep.store.lease import BusyError, Holder, LostLeaseError, hold, holder


@pytest.fixture(params=["disk", "object store"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    return UPath(tmp_path) if request.param == "disk" else UPath(f"memory://lease{tmp_path}")


def other(sweep: UPath, **changes: object) -> None:
    """A driver on another machine has taken the sweep."""
    now = time.time()
    facts = asdict(Holder(host="node-7", pid=5, token="other", started_at=now, heartbeat_at=now))
    write_json(sweep / "driver" / "1.json", facts | changes)


def here(**changes: object) -> dict[str, object]:
    """Facts of a driver that is this very process, with changes."""
    return asdict(lease._myself()) | {"token": "other"} | changes


linux = pytest.mark.skipif(sys.platform != "linux", reason="tells processes apart by /proc")


@pytest.mark.parametrize("error", [OSError(5, "away"), RuntimeError("an error of an object store's own")])
def test_a_storage_that_is_away_for_a_while_does_not_end_the_heartbeat(
    sweep: UPath, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)

    missed = Semaphore(0)

    def away(path: UPath) -> None:
        missed.release()
        raise error

    with hold(sweep) as mine:
        with monkeypatch.context() as outage:
            outage.setattr(lease, "_newest", away)
            for _ in range(3):
                missed.acquire()
        back_at = time.time()
        while mine._thread.is_alive():
            held = holder(sweep)
            if held is not None and held.heartbeat_at > back_at:
                return
        pytest.fail("the heartbeat has ended")


def test_the_second_is_refused_and_the_first_gives_back(sweep: UPath) -> None:
    with hold(sweep):
        held = holder(sweep)
        assert held is not None
        assert (held.host, held.pid) == (socket.gethostname(), os.getpid())
        with pytest.raises(BusyError, match=rf"process {os.getpid()} on .*, heartbeat \d+ s ago"), hold(sweep):
            pass
    assert holder(sweep) is None
    with hold(sweep):
        pass


def test_a_driver_elsewhere_is_believed_until_its_heartbeat_is_stale(sweep: UPath) -> None:
    other(sweep)
    with pytest.raises(BusyError, match="process 5 on node-7"), hold(sweep):
        pass
    other(sweep, heartbeat_at=time.time() - lease.STALE_S - 1)
    assert holder(sweep) is None
    with hold(sweep):
        assert holder(sweep) is not None


@pytest.fixture(scope="module")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@linux
def test_a_dead_process_of_this_machine_is_replaced_at_once(sweep: UPath, dead_pid: int) -> None:
    other(sweep, **here(pid=dead_pid))
    with hold(sweep):
        held = holder(sweep)
        assert held is not None
        assert held.pid == os.getpid()


@linux
def test_a_killed_driver_that_nobody_has_waited_for_is_dead(sweep: UPath) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        other(sweep, **here(pid=process.pid, pid_started=None))
        assert holder(sweep) is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert holder(sweep) is None


@linux
def test_another_process_with_the_dead_drivers_id_is_not_it(sweep: UPath) -> None:
    other(sweep, **here())
    assert holder(sweep) is not None
    other(sweep, **here(pid_started=1))
    assert holder(sweep) is None


@pytest.mark.parametrize(
    "unknown",
    [
        {"pid_namespace": "pid:[1]"},  # a container with this host's name
        {"boot_id": "6b0ef5ac-0000-0000-0000-000000000000"},  # another machine with this host's name
        {"boot_id": None, "pid_namespace": None},  # no Linux, or an older version
    ],
)
def test_a_process_that_cant_be_seen_from_here_is_believed_by_its_heartbeat(
    sweep: UPath, dead_pid: int, unknown: dict[str, str | None]
) -> None:
    other(sweep, **here(pid=dead_pid) | unknown)
    with pytest.raises(BusyError, match=f"process {dead_pid} on {socket.gethostname()}"), hold(sweep):
        pass
    other(sweep, **here(pid=dead_pid, heartbeat_at=time.time() - lease.STALE_S - 1) | unknown)
    assert holder(sweep) is None


def test_a_lease_of_an_older_version_is_read(sweep: UPath) -> None:
    now = time.time()
    old = {"host": socket.gethostname(), "pid": 1, "token": "t", "started_at": now, "heartbeat_at": now}
    write_json(sweep / "driver" / "1.json", old | {"released": False})
    held = holder(sweep)
    assert held is not None
    assert held.token == "t"


def test_of_many_who_find_a_dead_driver_one_takes_over(sweep: UPath) -> None:
    other(sweep, heartbeat_at=0)

    all_have_come = Barrier(8)

    def attempt(_: int) -> bool:
        try:
            with hold(sweep):
                all_have_come.wait()
                return True
        except BusyError:
            all_have_come.wait()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_driver_that_was_away_too_long_learns_that_it_is_replaced(
    sweep: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    with hold(sweep) as mine:
        mine.require()
        now = time.time()
        taken = Holder(host="node-7", pid=5, token="other", started_at=now, heartbeat_at=now)
        write_json(sweep / "driver" / "9.json", asdict(taken))
        mine._thread.join(timeout=600)
        with pytest.raises(LostLeaseError, match="taken"):
            mine.require()
    assert holder(sweep) == taken


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_damaged_lease_is_nobodys(sweep: UPath, content: str) -> None:
    (sweep / "driver").mkdir(parents=True)
    (sweep / "driver" / "3.json").write_text(content)
    assert holder(sweep) is None
    with hold(sweep):
        assert holder(sweep) is not None
