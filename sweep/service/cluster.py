"""Where a launch runs: a Ray cluster, or one started on this machine for it."""

import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep import ROOT
from sweep.results.words import count

MAX_FAILURES = 3


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Where and how a launch runs: a Ray address (None: a local cluster) and how often a failed trial is retried."""

    address: str | None = None
    max_failures: int = MAX_FAILURES


_PATIENCE_S = 60.0  # with nothing running, before the user hears what is waiting for what
_GIVE_UP_S = 300.0  # with room in the cluster, but no process started in it
_SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # in the path of a Unix socket
_RAY_FOLDERS = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")  # appended to RAY_TMPDIR
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about the user's work leaves the cluster
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its CSV, JSON and TensorBoard files would be thrown away
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # trials waiting for resources at a time: tells an autoscaler how far to grow
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a grid mean the same in a trial as where it was launched
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else each worker warns; RayTrial hides GPUs itself
}
"""What Ray and Tune read when they start; the user's own values win."""


@contextmanager
def connected(address: str | None) -> Iterator[Path | None]:
    """Connect to a Ray cluster, or start a local one for the duration of the block; yields the local one's log folder.

    Raises:
        ValueError: no cluster answers at the address, or none can be started here.
    """
    import ray  # takes a second; a resume with nothing to do does without it

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    logs = None
    if address is None:
        os.environ["RAY_TMPDIR"] = _ray_folder()
        logs = Path(os.environ["RAY_TMPDIR"]) / "ray" / "session_latest" / "logs"
        options |= {"include_dashboard": False, "object_store_memory": 128 * 2**20, **_interpreter()}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        # Ray puts the driver's working directory first on its workers' path, where a user's own `models` would be found
        # before the project's; `RayTrial` goes back to it.
        with chdir(ROOT):
            ray.init(**options)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        if address is not None:
            raise ValueError(f"no Ray cluster answers at --address {address}: {said}") from error
        raise ValueError(f"Ray can't start on this machine ({type(error).__name__}: {said}); see {logs}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray installs its own handler
    try:
        yield logs
    finally:
        ray.shutdown()


def _ray_folder() -> str:
    """Where a local cluster keeps its files: what the user sets, or the usual place if its sockets fit there.

    Raises:
        ValueError: the path that the user sets is too long.
    """
    longest = _SOCKET_BYTES - _RAY_FOLDERS
    if said := os.environ.get("RAY_TMPDIR"):
        folder = str(Path(said).absolute())
        if len(os.fsencode(folder)) > longest:
            raise ValueError(
                f"RAY_TMPDIR={said} is too long: Ray makes sockets below it, and their paths end after "
                f"{_SOCKET_BYTES} bytes; set it to a folder of at most {longest} bytes, such as /tmp"
            )
        return folder
    folder = str(Path(os.environ.get("TMPDIR") or "/tmp").absolute())
    return folder if len(os.fsencode(folder)) <= longest else "/tmp"


def _interpreter() -> dict[str, Any]:
    """What `ray.init` needs if a shell would split the path of this Python.

    Raises:
        ValueError: Ray can't start processes of it at all.
    """
    if set("'\"\\") & set(sys.executable):
        raise ValueError(
            f"Ray can't start {sys.executable}: its path has a quote or a backslash; "
            "create the virtual environment in a folder without them"
        )
    quoted = shlex.quote(sys.executable)  # Ray puts it unquoted into a bash command (2.60)
    return {} if quoted == sys.executable else {"runtime_env": {"py_executable": quoted}}


def require_room(cpus: float, gpus: float) -> None:
    """Refuse trials that can never run on a cluster of fixed size.

    Raises:
        ValueError: none of its nodes has that much.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise ValueError(
            f"a trial needs {in_words(cpus, gpus)}, and this machine has {_size_of_cluster()}; "
            "lower resources.cpus or resources.gpus, or give a cluster with --address"
        )


class Patience:
    """Reports once what is waiting for what, after a minute in which nothing ran.

    `logs` are those of a cluster that was started here: only this launch uses it, so if room in it stays empty, its
    processes can't start.
    """

    def __init__(self, say: Callable[[str], None], logs: Path | None) -> None:
        self._say, self._logs = say, logs
        self._since: float | None = None
        self._told = False

    def renew(self) -> None:
        """Something runs."""
        self._since = None

    def spend(self, said: str, cpus: float, gpus: float) -> None:
        """Nothing that needs this much is running; `said` reports it.

        Raises:
            ValueError: Ray has had room for it for minutes, but started nothing.
        """
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= _PATIENCE_S and not self._told:
            self._told = True
            self._say(f"{said}; {self._why(cpus, gpus)}")
        if now - self._since >= _GIVE_UP_S and self._logs is not None and _has_room(cpus, gpus):
            raise ValueError(f"{said}, and {self._why(cpus, gpus)}; stopped")

    def _why(self, cpus: float, gpus: float) -> str:
        if self._logs is not None and _has_room(cpus, gpus):
            return f"there is room, but Ray can't start a process in it: {_last_words(self._logs)}"
        return f"the cluster has {_size_of_cluster()}"


def in_words(cpus: float, gpus: float) -> str:
    """Resources in words: `2 CPUs and 0.5 GPUs`."""
    return count(cpus, "CPU") + (f" and {count(gpus, 'GPU')}" if gpus else "")


def _size_of_cluster() -> str:
    import ray

    has = ray.cluster_resources()
    return in_words(has.get("CPU", 0), has.get("GPU", 0))


def _has_room(cpus: float, gpus: float) -> bool:
    """Whether a place is already reserved, or this much is free."""
    import ray
    from ray.util import placement_group_table

    free = ray.available_resources()
    reserved = any(group["state"] == "CREATED" for group in placement_group_table().values())
    return reserved or (free.get("CPU", 0) >= cpus and free.get("GPU", 0) >= gpus)


def _last_words(logs: Path) -> str:
    """The last complaint of Ray's node manager, which starts processes."""
    file = logs / "raylet.err"
    said = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
    return f"{said[-1][:300]} ({file})" if said else f"see {logs}"
