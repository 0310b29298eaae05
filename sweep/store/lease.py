"""One driver at a time for each sweep, on a local disk or an object store. Knows neither torch nor Ray.

A lease is a file `driver/<n>.json`; the highest number holds it. A driver that finds it stale or released takes
over by creating number n + 1, which only one can do. The holder writes a heartbeat into its file, and stops
when a higher number appears. Hosts' clocks may differ by less than `STALE_S`.

A killed driver is replaced before its heartbeat goes stale only if its process would be visible if it ran: under the
same boot of the same kernel, in the same PID namespace. The host name is not enough: containers can share it.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

from pydantic import TypeAdapter
from upath import UPath

from sweep.store.files import STORAGE_ERRORS, create_json, read_json, remove_file, write_json
from sweep.store.sweep_dir import SweepDir

BEAT_S = 5.0
STALE_S = 60.0  # a dozen heartbeats: an object store may fail for some of them without a driver losing its sweep


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The driver that holds a sweep, or held it last; times are seconds since 1970.

    `boot_id`, `pid_namespace` and `pid_started` (clock ticks after boot) identify the process. They are None
    outside Linux and in the leases of older versions.
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

    @property
    def age_s(self) -> float:
        """Seconds between the last heartbeat and now, whichever clock is ahead."""
        return abs(time.time() - self.heartbeat_at)

    @property
    def alive(self) -> bool:
        """Whether the driver still works on the sweep, as far as can be told from here."""
        if self.released or self.age_s > STALE_S:
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


class Lease:
    """What a driver holds while it works; its heartbeat is a thread."""

    def __init__(self, sweep: UPath, number: int, held: Holder) -> None:
        self._sweep, self._number, self._held = sweep, number, held
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another driver has taken over."""
        return self._lost

    def require(self) -> None:
        """Raise a LostLeaseError if another driver has taken over."""
        if self._lost:
            raise LostLeaseError(f"another driver has taken over {self._sweep}; this one stops")

    def release(self) -> None:
        """Give the lease back."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with suppress(*STORAGE_ERRORS):  # then it goes stale by itself
                write_json(_file(self._sweep, self._number), asdict(replace(self._held, released=True)))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(Exception):  # the storage is unavailable: the lease holds until it is stale
                newest = _newest(self._sweep)
                if newest is not None and newest[1].token != self._held.token:
                    self._lost = True
                    return
                self._held = replace(self._held, heartbeat_at=time.time())
                write_json(_file(self._sweep, self._number), asdict(self._held))


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
    mine = _myself()
    newest = _newest(sweep)
    if newest is not None and newest[1].alive:
        raise BusyError(_busy(sweep, newest[1]))
    number = 1 if newest is None else newest[0] + 1
    with suppress(FileExistsError):  # another driver was faster
        create_json(_file(sweep, number), asdict(mine))
    newest = _newest(sweep)
    assert newest is not None
    if newest[1].token != mine.token:  # also if higher numbers have appeared since they were listed
        raise BusyError(_busy(sweep, newest[1]))
    for older in _numbers(sweep):
        if older < number:
            remove_file(_file(sweep, older))
    return Lease(sweep, number, mine)


def _myself() -> Holder:
    now, pid = time.time(), os.getpid()
    _, started = _state_and_start(pid)
    return Holder(
        host=socket.gethostname(), pid=pid, token=uuid4().hex, started_at=now, heartbeat_at=now,
        boot_id=_boot_id(), pid_namespace=_pid_namespace(), pid_started=started,
    )  # fmt: skip


def _busy(sweep: UPath, other: Holder) -> str:
    return (
        f"another driver is working on {sweep}: process {other.pid} on {other.host}, "
        f"heartbeat {other.age_s:.0f} s ago; wait for it, stop it, or, if it is gone, try again in {STALE_S:.0f} s"
    )


def _newest(sweep: UPath) -> tuple[int, Holder] | None:
    numbers = _numbers(sweep)
    if not numbers:
        return None
    file = _file(sweep, numbers[-1])
    try:
        return numbers[-1], _HOLDER.validate_python(read_json(file))
    except FileNotFoundError:  # its successor has removed it meanwhile
        return _newest(sweep)
    except ValueError:  # damaged: it has no heartbeat
        return numbers[-1], Holder(host="unknown", pid=0, token="", started_at=0, heartbeat_at=0)


def _numbers(sweep: UPath) -> list[int]:
    folder = SweepDir(sweep).driver
    if not folder.exists():
        return []
    return sorted(int(path.stem) for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdecimal())


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
