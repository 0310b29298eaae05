"""One driver at a time: the second is refused, a dead one's place is taken, by one of many."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Semaphore
from typing import Any

import pytest
from upath import UPath

from analysis.write import is_local
from sweep.store import dated, lease
from sweep.store.files import write_json
from sweep.store.lease import BusyError, Holder, LostLeaseError, hold, holder
from tests.counting import counted_s3


@pytest.fixture(params=["disk", "object store"])
def sweep(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    return UPath(tmp_path) if request.param == "disk" else UPath(f"memory://lease{tmp_path}")


def other(sweep: UPath, path: str = "1.json", **changes: object) -> None:
    """A driver on another machine has taken the sweep."""
    now = time.time()
    facts = asdict(Holder(host="node-7", pid=5, token="other", started_at=now, heartbeat_at=now))
    write_json(sweep / "driver" / path, facts | changes)


def silent_for(sweep: UPath, seconds: float) -> None:
    """Let the lease have had its last heartbeat so long ago, as the store tells it."""
    file = sweep / "driver" / "1.json"
    if is_local(file):
        then = Path(file.path).stat().st_mtime - seconds
        os.utime(file.path, (then, then))
    else:
        file.fs.store[file.path].modified -= timedelta(seconds=seconds)


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
    silent_for(sweep, lease.STALE_S - 1)
    assert holder(sweep) is not None
    silent_for(sweep, 5)
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
    silent_for(sweep, lease.STALE_S + 5)
    assert holder(sweep) is None


def test_a_lease_of_an_older_version_is_read(sweep: UPath) -> None:
    now = time.time()
    old = {"host": socket.gethostname(), "pid": 1, "token": "t", "started_at": now, "heartbeat_at": now}
    write_json(sweep / "driver" / "1.json", old | {"released": False})
    held = holder(sweep)
    assert held is not None
    assert held.token == "t"


class Wrong:
    """The module `time` of a machine whose clock is wrong."""

    def __init__(self, by_s: float) -> None:
        self._by_s = by_s

    def time(self) -> float:
        return time.time() + self._by_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.mark.parametrize("wrong_by_s", [50, 70, -70, 3600])
def test_this_machines_clock_may_be_wrong(
    tmp_path: Path, object_store: int, monkeypatch: pytest.MonkeyPatch, wrong_by_s: int
) -> None:
    for module in (lease, dated):  # the S3 of this process has the right one
        monkeypatch.setattr(module, "time", Wrong(wrong_by_s))
    with counted_s3(object_store):
        bucket = UPath("s3://leases")
        bucket.mkdir(exist_ok=True)
        for sweep in (UPath(tmp_path), bucket / f"clock{wrong_by_s}"):
            other(sweep)
            held = holder(sweep)
            assert held is not None
            assert held.age_s < 5
            with pytest.raises(BusyError), hold(sweep):
                pass


def test_a_lease_on_s3_is_stale_by_its_clock(object_store: int) -> None:
    backend = pytest.importorskip("moto.s3.models", reason="moto[server] is a development extra").s3_backends
    with counted_s3(object_store):
        UPath("s3://leases").mkdir(exist_ok=True)
        sweep = UPath("s3://leases/stale")
        other(sweep)
        key = backend["123456789012"]["global"].get_object("leases", "stale/driver/1.json")
        key.last_modified -= timedelta(seconds=lease.STALE_S + 5)
        assert holder(sweep) is None
        with hold(sweep):
            assert holder(sweep) is not None
        assert holder(sweep) is None


def test_a_reader_leaves_nothing_behind_and_needs_no_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other(UPath(tmp_path))
    assert holder(UPath(tmp_path)) is not None
    assert [path.name for path in (tmp_path / "driver").iterdir()] == ["1.json"]

    def refused(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("sweep.store.dated.TemporaryFile", refused)
    assert holder(UPath(tmp_path)) is not None


def test_a_heartbeat_takes_three_requests(object_store: int) -> None:
    with counted_s3(object_store) as server:
        UPath("s3://leases").mkdir(exist_ok=True)
        with hold(UPath("s3://leases/frugal")) as mine:
            server.requests.clear()
            mine._beat()
            assert server.counts() == {"LIST": 1, "GET": 1, "PUT": 1}


class Suspended:
    """A driver that is stopped and goes on later: its clock jumps, and its heartbeat has not run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept_s = 0.0
        running = lease._now
        monkeypatch.setattr(lease, "_now", lambda: running() + self.slept_s)
        monkeypatch.setattr(lease, "BEAT_S", 3600.0)

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def test_a_driver_that_slept_looks_before_it_goes_on(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = Suspended(monkeypatch)
    with hold(sweep) as mine:
        suspended.sleep(lease.STALE_S - 5)
        mine.require()
        other(sweep, path="2.json")
        mine.require()  # nobody could have taken over so soon
        suspended.sleep(6)
        with pytest.raises(LostLeaseError, match="taken"):
            mine.require()
        assert mine.lost


def test_a_driver_that_slept_and_was_not_replaced_goes_on(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = Suspended(monkeypatch)
    with hold(sweep) as mine:
        silent_for(sweep, 3600)
        assert holder(sweep) is None
        suspended.sleep(3600)
        mine.require()
        assert holder(sweep) is not None
        assert not mine.lost


def test_a_driver_that_cant_look_waits_until_it_can(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = Suspended(monkeypatch)
    outage = iter([OSError(5, "away"), RuntimeError("away")])
    look = lease._newest

    def now_and_then(path: UPath) -> tuple[int, Holder] | None:
        for error in outage:
            raise error
        return look(path)

    waits: list[float] = []
    with hold(sweep) as mine:
        suspended.sleep(lease.STALE_S)
        monkeypatch.setattr(lease, "_newest", now_and_then)
        monkeypatch.setattr(time, "sleep", waits.append)
        mine.require()
    assert len(waits) == 2


def test_a_driver_that_cant_look_may_be_lost(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = Suspended(monkeypatch)

    def away(path: UPath) -> None:
        raise OSError(5, f"{path} is away")

    with hold(sweep) as mine:
        with monkeypatch.context() as outage:
            outage.setattr(lease, "_newest", away)
            suspended.sleep(lease.STALE_S)
            assert mine.lost
        assert not mine.lost


def test_who_beats_while_another_takes_over_keeps_the_sweep(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    other(sweep)
    silent_for(sweep, 3600)
    create = lease.create_json

    def slowly(path: UPath, value: object) -> None:
        other(sweep)  # it has looked, found no other, and beats
        create(path, value)

    monkeypatch.setattr(lease, "create_json", slowly)
    with pytest.raises(BusyError, match="node-7"), hold(sweep):
        pass
    held = holder(sweep)
    assert held is not None
    assert held.token == "other"


def test_who_wakes_up_while_another_takes_over_sees_it(sweep: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = Suspended(monkeypatch)
    write = lease._write

    def after_another(path: UPath, number: int, held: Holder) -> None:
        other(path, path="2.json")
        write(path, number, held)

    with hold(sweep) as mine:
        suspended.sleep(lease.STALE_S)
        monkeypatch.setattr(lease, "_write", after_another)
        with pytest.raises(LostLeaseError):
            mine.require()


def test_of_many_who_find_a_dead_driver_one_takes_over(sweep: UPath) -> None:
    other(sweep)
    silent_for(sweep, 3600)
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
    held = holder(sweep)
    assert held is not None
    assert held.token == "other"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_damaged_lease_is_nobodys(sweep: UPath, content: str) -> None:
    (sweep / "driver").mkdir(parents=True)
    (sweep / "driver" / "3.json").write_text(content)
    assert holder(sweep) is None
    with hold(sweep):
        assert holder(sweep) is not None
