"""A command of this project as a job of a Ray cluster, through the cluster's job server.

A job is the command line itself, with `--address auto`. The cluster's nodes must have this project installed
(cluster.yaml sees to it), or are sent its code along.
"""

import asyncio
import hashlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from upath import UPath

from sweep import ROOT
from sweep.store.code import PACKAGES, SENT_VERSION, code_hash, code_version
from sweep.store.files import STORAGE_ERRORS
from sweep.store.lease import require_free
from sweep.store.sweep_dir import SweepDir, is_sweep, open_sweep

if TYPE_CHECKING:
    from sweep.grid.schema import Grid

SENT_WITH = "SWEEP_SENT_WITH"
"""The variable in which a job finds the options that send a command to its cluster again."""
BEGUN = "nothing is left to check; training begins"
"""The line of a job's output after which it no longer refuses what it was asked for."""
WORK = ("launch", "resume", "analyze")
"""The commands that work on a sweep; the others look at it."""
_STOP_WAIT_S = "60"  # for the trials' last checkpoints; Ray's own 3 s would cut them off
_LOOK_EVERY_S = 1.0
_RAYS_OWN_LINE = re.compile(
    r"^(\S+ \S+\s+INFO job_manager\.py:\d+ -- |Running entrypoint for job \S+: ).*\n", re.MULTILINE
)
_UNREADABLE: tuple[type[Exception], ...] = (*STORAGE_ERRORS, ImportError)


@dataclass(frozen=True)
class Location:
    """Where a sweep lies, as all nodes of a cluster understand it: the storage is a URL or an absolute path."""

    storage: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.storage}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a job runs: `sweep NAME ARGUMENTS` about a sweep, in a folder with these files (their texts by name)."""

    name: str
    arguments: tuple[str, ...]
    location: Location
    files: Mapping[str, str] = field(default_factory=dict)
    ship_code: bool = False

    @property
    def works(self) -> bool:
        """Whether it works on the sweep as its only driver."""
        return self.name in WORK and "--dry-run" not in self.arguments

    @property
    def entrypoint(self) -> str:
        """The shell line of the job."""
        where = ["--address", "auto"] if self.name in WORK else []
        return shlex.join(["sweep", self.name, *self.arguments, *where])

    @property
    def key(self) -> str:
        """The same for equal commands: their jobs' ids are this and a number."""
        said = [self.name, self.arguments, self.location.path, sorted(self.files.items())]
        digest = hashlib.sha256(json.dumps([*said, code_hash() if self.ship_code else None]).encode()).hexdigest()
        return f"sweep-{self.location.name}-{digest[:8]}"


@dataclass(frozen=True)
class Job:
    """A job that was submitted."""

    id: str
    cluster: str
    _client: Any

    @property
    def logs_command(self) -> str:
        return f"ray job logs --follow --address {self.cluster} {self.id}"

    @property
    def ended(self) -> bool:
        return bool(self._client.get_job_status(self.id).is_terminal())

    def output(self) -> Iterator[str]:
        """What the job prints, as it comes, until it ends."""
        lines: AsyncIterator[str] = self._client.tail_job_logs(self.id)
        with asyncio.Runner() as runner:
            while True:
                try:
                    said: str = runner.run(anext(lines))  # type: ignore[arg-type]  # an awaitable
                except (StopAsyncIteration, RuntimeError):  # the job ended or the connection did; its state tells which
                    return
                yield _RAYS_OWN_LINE.sub("", said)

    def wait_until_begun(self) -> str:
        """Wait until nothing is left that the job could refuse, or it has ended; returns what it has printed."""
        while True:
            ended = self.ended
            said = _RAYS_OWN_LINE.sub("", self._client.get_job_logs(self.id))
            if ended or BEGUN in said.splitlines():
                return said
            time.sleep(_LOOK_EVERY_S)

    def stop(self) -> None:
        """Have the job's trials save, and wait until it has ended."""
        while not self.ended:
            self._client.stop_job(self.id)  # again, since a job that is only just starting doesn't hear it
            time.sleep(_LOOK_EVERY_S)

    def exit_code(self) -> int:
        """The exit code of the command: 0 finished, 1 a trial failed, 2 a mistake, 130 stopped.

        Raises:
            ValueError: the job is still running, or failed before its driver ran.
        """
        info = self._client.get_job_info(self.id)
        if not info.status.is_terminal():
            raise ValueError(f"the connection was lost, but the job continues; to follow it: {self.logs_command}")
        if info.status == "SUCCEEDED":
            return 0
        if info.status == "STOPPED":
            return 130
        if info.driver_exit_code is None:
            raise ValueError(f"the job failed before it started: {info.message}")
        return int(info.driver_exit_code)


class JobServer:
    """The job server of a cluster.

    Raises:
        ValueError: none answers at the address, it asks for a token, or one would be sent where others can read it.
    """

    def __init__(self, url: str, insecure: bool = False) -> None:
        _require_private(url, insecure)
        from ray.job_submission import JobSubmissionClient

        self.url = url
        self.options = f"--cluster {shlex.quote(url)}{' --insecure' if insecure else ''}"
        """What sends a command to this server."""
        with self._in_a_line("connect"):
            self._client = JobSubmissionClient(url)

    def running(self, command: Command) -> Job | None:
        """The job that runs this very command now."""
        ours = (details for details in self._details() if _number(details, command) is not None)
        return next((self._job(details) for details in ours if not details.status.is_terminal()), None)

    def submit(self, command: Command) -> Job:
        """Send a command, or join the job that runs it already.

        Raises:
            ValueError: another driver works on the sweep, or the server refuses the job.
        """
        if command.works:
            self._require_free(command.location)
        submission_id = f"{command.key}-{self._next_number(command)}"
        environment = {
            "RAY_JOB_STOP_WAIT_TIME_S": _STOP_WAIT_S, SENT_VERSION: code_version(), SENT_WITH: self.options,
        }  # fmt: skip
        try:
            with tempfile.TemporaryDirectory() as folder:
                _fill(Path(folder), command, submission_id)
                with self._in_a_line("submit a job"):
                    self._client.submit_job(
                        entrypoint=command.entrypoint,
                        submission_id=submission_id,
                        runtime_env={"working_dir": folder, "env_vars": environment},
                        metadata={
                            "command": command.name, "works": str(command.works),
                            "sweep": command.location.name, "storage": command.location.storage,
                        },
                    )  # fmt: skip
        except ValueError:
            if joined := self.running(command):  # somebody else has sent it meanwhile, or the reply was lost
                return joined
            raise
        return Job(submission_id, self.url, self._client)

    def working_on(self, location: Location) -> list[Job]:
        """The jobs that are to work on a sweep, newest first, ended or not."""
        return [self._job(details) for details in self._working_on(location)]

    def _require_free(self, location: Location) -> None:
        """Refuse a sweep that a driver works on: a job of this cluster, or one that can be seen in the storage."""
        for details in self._working_on(location):
            if not details.status.is_terminal():
                raise ValueError(
                    f"job {details.submission_id} is working on {location.path}; follow it with `sweep logs "
                    f"{location.path} {self.options}`, or stop it with `sweep stop {location.path} {self.options}`"
                )
        with suppress(*_UNREADABLE):  # then the job finds out
            require_free(UPath(location.path))

    def _job(self, details: Any) -> Job:
        return Job(details.submission_id, self.url, self._client)

    def _working_on(self, location: Location) -> list[Any]:
        wanted = {"works": "True", "sweep": location.name, "storage": location.storage}
        newest_first = sorted(self._details(), key=lambda details: details.start_time or 0, reverse=True)
        return [details for details in newest_first if wanted.items() <= (details.metadata or {}).items()]

    def _next_number(self, command: Command) -> int:
        return 1 + max((_number(details, command) or 0 for details in self._details()), default=0)

    def _details(self) -> list[Any]:
        with self._in_a_line("list the jobs"):
            return [details for details in self._client.list_jobs() if details.submission_id]

    @contextmanager
    def _in_a_line(self, what: str) -> Iterator[None]:
        """Turn what Ray's client raises into one line with a cure."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ValueError(
                f"{self.url} asks for a token: put the cluster's into ~/.ray/auth_token, and export RAY_AUTH_MODE=token"
            ) from error
        except ConnectionError as error:
            raise ValueError(
                f"no job server answers at {self.url}; give the head node's, "
                "such as http://127.0.0.1:8265 while `ray dashboard cluster.yaml` runs"
            ) from error
        except (RuntimeError, ImportError) as error:  # the server's own words, or what `ray[default]` would bring
            raise ValueError(f"can't {what} at {self.url}: {' '.join(str(error).split())}") from error


def located(name: str, storage: str) -> Location:
    """Where nodes of a cluster find a sweep, by name in a storage or by its own path.

    Raises:
        ValueError: they can't.
    """
    if _for_all_nodes(name):
        storage, _, name = name.rstrip("/").rpartition("/")
    if not _for_all_nodes(storage):
        raise ValueError(
            f"--storage {storage!r}: a job needs a URL (s3://BUCKET/sweeps), or an absolute path that all nodes have"
        )
    return Location(storage.rstrip("/"), name)


def seen_from_here(location: Location) -> SweepDir | None:
    """A sweep, if this machine can read it too.

    Raises:
        ValueError: this machine can read the storage, and there is no such sweep.
    """
    path = UPath(location.path)
    try:
        if "://" not in location.storage and not is_sweep(path):
            return None  # nodes may have something else at that path
        return open_sweep(location.path, UPath(location.storage))
    except _UNREADABLE:
        return None


def check_grid(grid: "Grid") -> None:
    """Find the mistakes in a grid that can be found from here: in its data too, where they can be read.

    Raises:
        ValueError: there is one, or nodes of a cluster can't find the data.
    """
    from sweep.data.place import UnreachableError
    from sweep.grid.expand import expand, read_options, require_steps

    root = grid.data.root
    read_options(grid.data, f"grid {grid.name}: in data.options: ")
    if root is not None and "://" not in root:
        if "~" not in root and not _for_all_nodes(root):
            raise ValueError(f"data.root={root!r}: a job needs a URL, or an absolute path that its nodes have")
        if not Path(root).is_dir():
            return
    try:
        require_steps(expand(grid))
    except ValueError as error:
        if not isinstance(error.__cause__, UnreachableError | ImportError):
            raise


def _for_all_nodes(place: str) -> bool:
    return "://" in place or Path(place).is_absolute()


def _require_private(url: str, insecure: bool) -> None:
    """Refuse an address that isn't a job server's, and to send Ray's token where others can read it.

    Raises:
        ValueError: it isn't, or a token would be.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--cluster {url!r}: a job server's address begins with http:// or https://")
    if parts.scheme == "http" and not _is_loopback(parts.hostname) and not insecure and _has_token():
        raise ValueError(
            f"{url} would get Ray's token unencrypted, for all on the way to read: use `ray dashboard cluster.yaml` or "
            "an ssh tunnel and http://127.0.0.1:8265, or https://, or say --insecure"
        )


def _has_token() -> bool:
    """Whether Ray's client may send a token: it is asked to, or isn't forbidden to and finds one."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode:
        return mode == "token"
    kept = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or Path(kept).expanduser().exists()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _number(details: Any, command: Command) -> int | None:
    """Which of the jobs of a command a job is; None if it is another command's."""
    key, _, number = details.submission_id.rpartition("-")
    return int(number) if key == command.key and number.isdecimal() else None


def _fill(folder: Path, command: Command, submission_id: str) -> None:
    """Write what a job finds in its folder, which is also where its processes look for code first."""
    (folder / "job").write_text(submission_id)  # Ray shares equal folders, and removes one with the job that ends first
    for name, text in command.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for package in PACKAGES if command.ship_code else ():
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
