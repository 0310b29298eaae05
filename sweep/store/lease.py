"""One driver at a time for each sweep, on a local disk or an object store. Knows neither torch nor Ray.

A lease is a file `driver/<n>.json`; the highest number holds it. A driver that finds it stale or released takes
over by creating number n + 1, which only one can do. The holder rewrites its file at each heartbeat, and stops
when a higher number appears. How long ago that was, the store's own clock tells (sweep.store.dated): hosts' clocks
may be wrong.

A driver that was silent for `STALE_S` (suspended, or cut off from the store) may have been replaced: `require` lets
it go on only once it has beaten again and seen no other. Who takes over looks once more too, and gives way to it.

A killed driver is replaced before its heartbeat goes stale only if its process would be visible if it ran: under the
same boot of the same kernel, in the same PID namespace. The host name is not enough: containers can share it.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter
from upath import UPath

from sweep.store.dated import read_dated
from sweep.store.files import STORAGE_ERRORS, children, create_json, remove_file, write_json
from sweep.store.sweep_dir import SweepDir

BEAT_S = 10.0
STALE_S = 60.0  # six heartbeats: an object store may fail for some of them without a driver losing its sweep
_ROUNDED_S = 2.0  # two times of a store, each in whole seconds: a holder knows that it is stale before others do
_RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The driver that holds a sweep, or held it last; times are seconds since 1970 by its own clock.

    `age_s` is the time since its last heartbeat by the store's clock; files don't hold it. `boot_id`, `pid_namespace`
    and `pid_started` (clock ticks after boot) identify the process. They are None outside Linux and in the leases of
    older versions.
    """

    host: str
    pid: int
    token: str
    started_at: float
    heartbeat_at: float
    released: bool = False
    boot_id: str | None = None
    pid_namespace: str | None = None
    pid_started: int | None = None
    age_s: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the driver still works on the sweep, as far as can be told from here."""
        if self.released or self.age_s > STALE_S + _ROUNDED_S:
            return False
        theirs = (self.boot_id, self.pid_namespace)
        here = None not in theirs and theirs == (_boot_id(), _pid_namespace())
        return not here or _runs(self.pid, self.pid_started)


_HOLDER = TypeAdapter(Holder)


class BusyError(ValueError):
    """Another driver works on the sweep."""


class LostLeaseError(ValueError):
    """Another driver has taken over the sweep, since this one's heartbeat was missing for too long."""


def holder(sweep: UPath) -> Holder | None:
    """Who works on a sweep now, or None."""
    held = _newest(sweep)
    return held[1] if held and held[1].alive else None


def require_free(sweep: UPath) -> None:
    """Refuse a sweep that a driver works on now.

    Raises:
        BusyError: one does; the message gives its host, process and heartbeat.
    """
    if working := holder(sweep):
        raise BusyError(_busy(sweep, working))


class Lease:
    """What a driver holds while it works; its heartbeat is a thread."""

    def __init__(self, sweep: UPath, number: int, held: Holder, beaten_at: float) -> None:
        self._sweep, self._number, self._held = sweep, number, held
        self._lost = False
        self._beaten_at = beaten_at
        self._beating = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another driver has taken over, as far as can be known: one that can't ask the store may be lost."""
        if not self._lost and self._silent():
            with suppress(Exception):  # the storage is unavailable
                self._beat()
        return self._lost or self._silent()

    def require(self) -> None:
        """Make sure that this driver holds the sweep; waits for the store where only that can tell.

        Raises:
            LostLeaseError: another driver has taken over.
        """
        while self.lost:
            if self._lost:
                raise LostLeaseError(f"another driver has taken over {self._sweep}; this one stops")
            time.sleep(_RETRY_S)

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        self._thread.join()
        if not self.lost:
            with suppress(*STORAGE_ERRORS):  # then it goes stale by itself
                _write(self._sweep, self._number, replace(self._held, released=True))

    def _silent(self) -> bool:
        """Whether the last heartbeat is so old that another driver may have taken over."""
        return _now() - self._beaten_at >= STALE_S

    def _beat_on(self) -> None:
        while not self._lost and not self._ended.wait(BEAT_S):
            with suppress(Exception):  # the storage is unavailable: the lease holds until it is stale
                self._beat()

    def _beat(self) -> None:
        """Write a heartbeat unless another driver has taken over."""
        with self._beating:
            began, was_silent = _now(), self._silent()
            if self._replaced():
                return
            self._held = replace(self._held, heartbeat_at=time.time())
            _write(self._sweep, self._number, self._held)
            if was_silent and self._replaced():  # another may have looked just before the heartbeat
                return
            self._beaten_at = began

    def _replaced(self) -> bool:
        newest = _newest(self._sweep)
        self._lost = self._lost or (newest is not None and newest[1].token != self._held.token)
        return self._lost


@contextmanager
def hold(sweep: UPath) -> Iterator[Lease]:
    """Hold a sweep for the duration of the block.

    Raises:
        BusyError: another driver is working on it; the message gives its host, process and heartbeat.
    """
    lease = _acquire(sweep)
    try:
        yield lease
    finally:
        lease.release()


def _acquire(sweep: UPath) -> Lease:
    mine, began = _myself(), _now()
    before = _newest(sweep)
    if before is not None and before[1].alive:
        raise BusyError(_busy(sweep, before[1]))
    number = 1 if before is None else before[0] + 1
    with suppress(FileExistsError):  # another driver was faster
        create_json(_file(sweep, number), _content(mine))
    newest = _newest(sweep)
    assert newest is not None
    if newest[1].token != mine.token:  # also if higher numbers have appeared since they were listed
        raise BusyError(_busy(sweep, newest[1]))
    if before is not None:
        _give_way(sweep, before[0], number)
    for older in _numbers(sweep):
        if older < number:
            remove_file(_file(sweep, older))
    return Lease(sweep, number, mine, began)


def _give_way(sweep: UPath, before: int, number: int) -> None:
    """Withdraw if the driver taken for dead has beaten meanwhile: it may have looked before number `number` appeared.

    Raises:
        BusyError: it has.
    """
    with suppress(FileNotFoundError):
        other = _read(_file(sweep, before))
        if other.alive:
            remove_file(_file(sweep, number))
            raise BusyError(_busy(sweep, other))


def _myself() -> Holder:
    now, pid = time.time(), os.getpid()
    _, started = _state_and_start(pid)
    return Holder(
        host=socket.gethostname(), pid=pid, token=uuid4().hex, started_at=now, heartbeat_at=now,
        boot_id=_boot_id(), pid_namespace=_pid_namespace(), pid_started=started,
    )  # fmt: skip


def _now() -> float:
    """Seconds of a clock that only goes forward, where possible also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _busy(sweep: UPath, other: Holder) -> str:
    return (
        f"another driver is working on {sweep}: process {other.pid} on {other.host}, "
        f"heartbeat {other.age_s:.0f} s ago; wait for it, stop it, or, if it is gone, try again in {STALE_S:.0f} s"
    )


def _newest(sweep: UPath) -> tuple[int, Holder] | None:
    numbers = _numbers(sweep)
    if not numbers:
        return None
    try:
        return numbers[-1], _read(_file(sweep, numbers[-1]))
    except FileNotFoundError:  # its successor has removed it meanwhile
        return _newest(sweep)


def _read(file: UPath) -> Holder:
    """The holder that a lease names; nobody's, and long ago, if it is damaged.

    Raises:
        FileNotFoundError: there is no such lease.
    """
    dated = read_dated(file)
    try:
        return replace(_HOLDER.validate_json(dated.content), age_s=abs(dated.age_s))  # a store's clock may be set back
    except ValueError:
        return Holder(host="unknown", pid=0, token="", started_at=0, heartbeat_at=0, age_s=math.inf)


def _content(held: Holder) -> dict[str, Any]:
    return {name: value for name, value in asdict(held).items() if name != "age_s"}


def _write(sweep: UPath, number: int, held: Holder) -> None:
    write_json(_file(sweep, number), _content(held))


def _numbers(sweep: UPath) -> list[int]:
    names = [name.removesuffix(".json") for name in children(SweepDir(sweep).driver) if name.endswith(".json")]
    return sorted(int(name) for name in names if name.isdecimal())


def _file(sweep: UPath, number: int) -> UPath:
    return SweepDir(sweep).driver / f"{number}.json"


def _runs(pid: int, started: int | None) -> bool:
    """Whether a process runs on this machine; neither a zombie nor a later process of the same id counts."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # the latter from a damaged lease
        return False
    except PermissionError:
        pass
    state, start = _state_and_start(pid)
    return state not in ("Z", "X") and (None in (started, start) or started == start)


def _state_and_start(pid: int) -> tuple[str | None, int | None]:
    """A process's state and when it started, in clock ticks after boot; None where they can't be seen (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None, None
    return fields[0], int(fields[19])


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
