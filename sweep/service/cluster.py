"""Where a launch runs: a Ray cluster, or one started on this machine for it."""

import logging
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from sweep import ROOT
from sweep.results.cost import Budget, Capacity
from sweep.results.words import count
from sweep.service.observers import Observer
from sweep.spec import Resources
from sweep.store.sweep_dir import SweepDir

MAX_FAILURES = 3


def _nothing_more(sweep: SweepDir) -> None:
    """Begin without a word."""


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Where and how a launch runs: a Ray address (None: a local cluster) and how often a failed trial is retried.

    `max_failures` counts the retries of a trial that has finished no epoch in between. `fresh_processes` starts a
    process for each trial instead of training one after another in it; `at_a_time` is the most trials that run beside
    each other; `budget` what this launch may use up; `weight` its share of a cluster on which other sweeps run too,
    against theirs. `on_begin` is called with the sweep once nothing is left to check and its trials are about to run.
    `observers` are made from the sweep's name, and hear how it goes.
    """

    address: str | None = None
    max_failures: int = MAX_FAILURES
    fresh_processes: bool = False
    at_a_time: int | None = None
    budget: Budget | None = None
    weight: float = 1.0
    on_begin: Callable[[SweepDir], None] = _nothing_more
    observers: tuple[Callable[[str], Observer], ...] = ()


Needs = dict[str, float]
"""Amounts of resources by Ray's names: `CPU`, `GPU`, `accelerator_type:H100`."""
_ACCELERATOR, _A_LITTLE = "accelerator_type:", 0.001  # a node has 1 of its kind; tasks that need the kind take a little
_NODE_TYPE = "ray.io/node-group"  # the label of nodes that a launcher or Kubernetes has started
_PATIENCE_S = 60.0  # with nothing running, before the user hears what is waiting for what
_ANSWER_S = 5.0  # that a node may take to take a connection
_GIVE_UP_S = 300.0  # with room in the cluster, but no process started in it
_SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # in the path of a Unix socket
_RAY_FOLDERS = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")  # appended to RAY_TMPDIR
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about the user's work leaves the cluster
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its CSV, JSON and TensorBoard files would be thrown away
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a grid mean the same in a trial as where it was launched
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else each worker warns; RayTrial hides GPUs itself
}
"""What Ray and Tune read when they start; the user's own values win."""
_PENDING, _GPUS_PENDING, _MOST_PENDING = "TUNE_MAX_PENDING_TRIALS_PG", 16, 256


@contextmanager
def demand(wanted: Iterable[Resources]) -> Iterator[None]:
    """Have Tune ask for so many trials' resources at a time that an autoscaler sees how far to grow.

    That is 16 trials, and of trials that share GPUs as many as fill 16 GPUs, but 256 at most: each is a placement group
    that Ray tries to place again and again. The user's own value wins.
    """
    if _PENDING in os.environ:
        yield
        return
    shares = [resources.gpus for resources in wanted if 0 < resources.gpus < 1]
    os.environ[_PENDING] = str(min(ceil(_GPUS_PENDING / min(shares, default=1)), _MOST_PENDING))
    try:
        yield
    finally:
        del os.environ[_PENDING]


@contextmanager
def connected(address: str | None) -> Iterator[Path | None]:
    """Connect to a Ray cluster, or start a local one for the duration of the block; yields the local one's log folder.

    A block within such a block uses the same cluster.

    Raises:
        ValueError: no cluster answers at the address, or none can be started here.
    """
    import ray  # takes a second; a resume with nothing to do does without it

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield _logs() if address is None else None
        return
    options: dict[str, Any] = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    logs = None
    if address is None:
        os.environ["RAY_TMPDIR"] = _ray_folder()
        logs = _logs()
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


def _logs() -> Path:
    """Where the local cluster writes its logs."""
    return Path(os.environ["RAY_TMPDIR"]) / "ray" / "session_latest" / "logs"


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


def bundle_of(resources: Resources) -> Needs:
    """What each process of a trial reserves, by Ray's names."""
    bundle: Needs = {"CPU": resources.cpus_per_process}
    if resources.gpus:
        bundle["GPU"] = resources.gpus / resources.processes
        if resources.accelerator is not None:
            bundle[_ACCELERATOR + resources.accelerator] = _A_LITTLE
    return bundle


def needs_of(resources: Resources) -> Needs:
    """What a whole trial reserves, by Ray's names."""
    return {name: amount * resources.processes for name, amount in bundle_of(resources).items()}


def require_room(wanted: Iterable[Resources], address: str | None) -> None:
    """Refuse trials that no node of the cluster can ever hold, neither one that is there nor one that may join.

    Raises:
        ValueError: there is such a trial; the message says what it needs and what nodes have.
    """
    import ray

    joining = [] if address is None else _may_join()
    if joining is None:
        return
    here = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for resources in dict.fromkeys(wanted):
        needs = needs_of(resources)
        if not any(_holds(node, needs) for node in here + joining):
            sizes = " or ".join(dict.fromkeys(in_words(node) for node in here + joining if node.get("CPU")))
            where = "this machine has" if address is None else "no node of the cluster has more than"
            raise ValueError(
                f"a trial needs {in_words(needs)}{' on one node' if resources.processes > 1 else ''}, "
                f"and {where} {sizes or 'no CPU'}; lower resources.cpus or resources.gpus, "
                f"or give {'a' if address is None else 'another'} cluster with --address"
            )


def answers(node_id: str) -> bool:
    """Whether a node is alive; asks it, since Ray takes up to half a minute to see that one is gone."""
    import ray

    for node in ray.nodes():
        if node["NodeID"] == node_id and node["Alive"]:
            with suppress(OSError):
                socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), _ANSWER_S).close()
                return True
    return False


def node_of(actor: Any) -> str | None:
    """The id of the node on which an actor runs or ran, None if it never had a place."""
    import ray

    where = ray._private.state.actors(actor._actor_id.hex()).get("Address", {})  # 2.60 has no public way to it
    return where.get("NodeID") or None


def working_nodes() -> set[str]:
    """Ids of the cluster's living nodes that have CPUs, so that trials can run there; a head often has none."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)}


def capacity_of_cluster() -> Capacity:
    """What the nodes of the connected cluster have now."""
    import ray

    has = ray.cluster_resources()
    return Capacity(has.get("CPU", 0), has.get("GPU", 0))


def _may_join() -> list[Needs] | None:
    """What each type of node has that an autoscaler may start; none without an autoscaler, None if it can't be known.

    Ray's launcher marks the nodes it starts and leaves what it may start in a file on the head, where drivers run.
    Kubernetes marks them too, but leaves no such file.
    """
    import ray

    if not any(node["Alive"] and _NODE_TYPE in node.get("Labels", {}) for node in ray.nodes()):
        return []
    file = Path("~/ray_bootstrap_config.yaml").expanduser()
    if not file.is_file():
        return None
    types = yaml.safe_load(file.read_text(encoding="utf-8"))["available_node_types"].values()
    return [node["resources"] for node in types if node.get("max_workers", 1)]


def _holds(node: Needs, needs: Needs) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in needs.items())


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

    def spend(self, said: str, needs: Needs, others: Sequence[tuple[str, float, str]] = ()) -> None:
        """Nothing that needs this much is running; `said` reports it. `others` are sweeps with what they use of what.

        Raises:
            ValueError: Ray has had room for it for minutes, but started nothing.
        """
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= _PATIENCE_S and not self._told:
            self._told = True
            self._say(f"{said}; {self._why(needs, others)}")
        if now - self._since >= _GIVE_UP_S and self._logs is not None and _has_room(needs):
            raise ValueError(f"{said}, and {self._why(needs, others)}; stopped")

    def _why(self, needs: Needs, others: Sequence[tuple[str, float, str]]) -> str:
        import ray

        if self._logs is not None and _has_room(needs):
            return f"there is room, but Ray can't start a process in it: {_last_words(self._logs)}"
        grows = "" if self._logs is not None or _may_join() == [] else ", and its autoscaler may add nodes"
        free = in_words(ray.available_resources())
        held = "".join(f"; {name} has {count(used, unit)}" for name, used, unit in others)
        return f"the cluster has {in_words(ray.cluster_resources())}, {free} of them free{held}{grows}"


def in_words(needs: Needs) -> str:
    """Resources in words: `2 CPUs and 0.5 GPUs`, `8 CPUs and 4 GPUs of type H100`."""
    cpus, gpus = (needs.get(name, 0) for name in ("CPU", "GPU"))
    kinds = [name.removeprefix(_ACCELERATOR) for name in needs if name.startswith(_ACCELERATOR)]
    of_type = f" of type {' or '.join(kinds)}" if kinds else ""
    return count(cpus, "CPU") + (f" and {count(gpus, 'GPU')}{of_type}" if gpus else "")


def _has_room(needs: Needs) -> bool:
    """Whether a place is already reserved, or this much is free; on a cluster of one node."""
    import ray
    from ray.util import placement_group_table

    reserved = any(group["state"] == "CREATED" for group in placement_group_table().values())
    return reserved or _holds(ray.available_resources(), needs)


def _last_words(logs: Path) -> str:
    """The last complaint of Ray's node manager, which starts processes."""
    file = logs / "raylet.err"
    said = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
    return f"{said[-1][:300]} ({file})" if said else f"see {logs}"
