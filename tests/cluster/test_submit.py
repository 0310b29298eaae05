"""`sweep submit`: a grid becomes a job of a cluster, its output and its exit code come back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from upath import UPath

from sweep.results.tables import read_table
from tests.command import run
from tests.conftest import free_port

pytest.importorskip("aiohttp_cors", reason="Ray's job server comes with the extra `cluster`")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),  # aiohttp's, inside Ray
]
TINY = ["--set", "data.options={train_images: 32, val_images: 16}", "--set", "recipe.epochs=1"]
TINY += ["--set", "recipe.batch_size=16"]


@pytest.fixture(scope="module")
def job_server() -> Iterator[str]:
    """A cluster of one node, on which `sweep` is installed, and the address of its job server."""
    port = free_port()
    head = {
        "num_cpus": 2, "object_store_memory": 90 * 2**20, "include_dashboard": True, "dashboard_port": port,
        "dashboard_agent_listen_port": free_port(),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield f"http://127.0.0.1:{port}"
        cluster.shutdown()


def test_a_job_runs_the_grid_as_it_is_resolved_here_and_its_output_comes_back(job_server: str, tmp_path: Path) -> None:
    chosen = ["--set", "interventions=[untrained]"]
    said = run("submit", "demo", *TINY, *chosen, "--cluster", job_server, "--storage", str(tmp_path / "sweeps"))
    assert "trial 1/1 simplified_mini-untrained-s0-" in said
    assert "ray job stop --address" in said
    (trial,) = read_table(UPath(tmp_path / "sweeps" / "demo"), "trials").to_dict("records")
    assert (trial["status"], trial["intervention"]) == ("finished", "untrained")


def test_a_failed_trial_is_the_jobs_exit_code(job_server: str, tmp_path: Path) -> None:
    hopeless = [*TINY, "--set", "interventions=[baseline]", "--set", "recipe.lr=1.0e30"]
    said = run("submit", "demo", *hopeless, "--cluster", job_server, "--storage", str(tmp_path / "sweeps"), code=1)
    assert "not a finite number" in " ".join(said.split())


def test_without_waiting_only_the_jobs_name_is_said(job_server: str, tmp_path: Path) -> None:
    said = run("submit", "smoke", "--cluster", job_server, "--storage", str(tmp_path / "sweeps"), "--no-wait")
    job = said.split("job ")[1].split()[0]
    assert job.startswith("sweep-smoke-")
    stopped = subprocess.run(
        [Path(sys.executable).with_name("ray"), "job", "stop", "--address", job_server, job], check=False
    )
    assert stopped.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--storage", "runs"], "an absolute path that all nodes have"),
        (["--storage", "s3://bucket/sweeps"], "ray dashboard cluster.yaml"),
        (["--storage", "/sweeps", "--set", "recipe.epoch=1"], "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments: list[str], complaint: str) -> None:
    said = run("submit", "demo", *arguments, "--cluster", f"http://127.0.0.1:{free_port()}", code=2)
    assert complaint in said
    assert "Traceback" not in said
