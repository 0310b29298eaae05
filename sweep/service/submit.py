"""Launch a grid on a remote Ray cluster as one of its jobs, through the cluster's job server."""

import asyncio
import shlex
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml

if TYPE_CHECKING:
    from sweep.grid.schema import Grid

_STOP_WAIT_S = "60"  # for the trials' last checkpoints; Ray's own 3 s would cut them off


@dataclass(frozen=True)
class Job:
    """A job that was submitted."""

    id: str
    cluster: str
    _client: Any

    @property
    def stop_command(self) -> str:
        return f"ray job stop --address {self.cluster} {self.id}"

    @property
    def logs_command(self) -> str:
        return f"ray job logs --follow --address {self.cluster} {self.id}"

    def output(self) -> Iterator[str]:
        """What the job prints, as it comes, until it ends."""
        lines: AsyncIterator[str] = self._client.tail_job_logs(self.id)
        with asyncio.Runner() as runner:
            while True:
                try:
                    yield runner.run(anext(lines))  # type: ignore[arg-type]  # an awaitable
                except (StopAsyncIteration, RuntimeError):  # the job ended or the connection did; its state tells which
                    return

    def exit_code(self) -> int:
        """The exit code of `sweep launch`: 0 finished, 1 a trial failed, 2 a mistake, 130 stopped.

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


def submit(grid: "Grid", cluster: str, storage: str, max_failures: int) -> Job:
    """Have a cluster run `sweep launch` for a grid, which is sent along as resolved here.

    The cluster's nodes must have this project installed (cluster.yaml sees to it).

    Raises:
        ValueError: nodes can't share the storage, or no job server answers at the address, or it asks for a token.
    """
    if "://" not in storage and not Path(storage).is_absolute():
        raise ValueError(
            f"--storage {storage!r}: a job needs a URL (s3://BUCKET/sweeps), or an absolute path that all nodes have"
        )
    root = grid.data.root
    if root is not None and "~" not in root and "://" not in root and not Path(root).is_absolute():
        raise ValueError(f"data.root={root!r}: a job needs a URL, or an absolute path that its nodes have")
    if not cluster.startswith(("http://", "https://")):
        raise ValueError(f"--cluster {cluster!r}: a job server's address begins with http:// or https://")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(cluster)
        submission_id = f"sweep-{grid.name}-{uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory() as folder:
            # Named in the file: Ray shares equal folders between jobs, and removes one with the job that ends first.
            document = f"# {submission_id}\n{yaml.safe_dump(grid.model_dump(mode='json'), sort_keys=False)}"
            (Path(folder) / "grid.yaml").write_text(document)
            command = ["sweep", "launch", "grid.yaml", "--address", "auto", "--storage", storage]
            command += ["--max-failures", str(max_failures)]
            job_id = client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=submission_id,
                runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": _STOP_WAIT_S}},
                metadata={"sweep": grid.name, "storage": storage},
            )
    except AuthenticationError as error:
        raise ValueError(
            f"{cluster} asks for a token: put the cluster's into ~/.ray/auth_token, and export RAY_AUTH_MODE=token"
        ) from error
    except ConnectionError as error:
        raise ValueError(
            f"no job server answers at {cluster}; give the head node's, "
            "such as http://127.0.0.1:8265 while `ray dashboard cluster.yaml` runs"
        ) from error
    except (RuntimeError, ImportError) as error:  # the server's own words, or what `ray[default]` would bring
        raise ValueError(f"can't submit a job to {cluster}: {' '.join(str(error).split())}") from error
    return Job(job_id, cluster, client)
