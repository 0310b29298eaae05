"""Everything as a job: a clean client and a cluster of separate `ray start` processes that ask for a token."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from upath import UPath

from sweep import ROOT
from sweep.store.code import PACKAGES
from sweep.store.requests import stop_requested
from sweep.store.sweep_dir import SweepDir
from tests.conftest import free_port

pytest.importorskip("aiohttp_cors", reason="Ray's job server comes with the extra `cluster`")
pytestmark = [pytest.mark.ray, pytest.mark.slow]
OBJECT_STORE = str(90 * 2**20)
PATIENCE_S = 120.0
TINY = ["--set", "data.options={train_images: 32, val_images: 16}", "--set", "recipe.batch_size=16"]
HOPELESS = [*TINY, "--set", "interventions=[baseline]", "--set", "recipe.epochs=1", "--set", "recipe.lr=1.0e30"]
LONG = [*TINY, "--set", "interventions=[rotate90]", "--set", "recipe.epochs=50000"]


@dataclass(frozen=True)
class Client:
    """A machine that has the project and the cluster's token, and nothing else."""

    url: str
    environment: dict[str, str]
    folder: Path

    def run(self, command: str, *arguments: str, code: int = 0, project: Path = ROOT) -> tuple[str, str]:
        """Run `sweep COMMAND ... --cluster URL`, demand its exit code; what it printed on both streams."""
        line = [sys.executable, "-m", "sweep.cli", command, *arguments, "--cluster", self.url]
        environment = self.environment | {"PYTHONPATH": str(project)}
        done = subprocess.run(
            line, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == code, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr


@pytest.fixture
def rays_folders() -> Iterator[tuple[Path, Path]]:
    """A folder for each node, as on two machines: in one, each removes what the other has unpacked for jobs."""
    with ExitStack() as stack:  # their paths are short, since sockets lie below them
        head, worker = (stack.enter_context(TemporaryDirectory(prefix="r", ignore_cleanup_errors=True)) for _ in "12")
        yield Path(head), Path(worker)


@pytest.fixture
def client(tmp_path: Path, rays_folders: tuple[Path, Path]) -> Iterator[Client]:
    """A head that runs no trials and a worker, each from a `ray start` of its own, and a client."""
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef" * 4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path / "home"), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    nodes = environment | {
        "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }  # fmt: skip
    port, page = free_port(), free_port()
    here = ["--head", "--num-cpus=0", "--include-dashboard=true", f"--temp-dir={rays_folders[0]}"]
    here += [f"--port={port}", f"--dashboard-port={page}", f"--ray-client-server-port={free_port()}"]
    started = [_ray_start(nodes, tmp_path / "head.log", *here)]
    try:
        _wait_for_line(started[0], tmp_path / "head.log", "--block")
        started.append(
            _ray_start(
                nodes,
                tmp_path / "worker.log",
                f"--address=127.0.0.1:{port}",
                f"--temp-dir={rays_folders[1]}",
                "--num-cpus=2",
            )
        )
        _wait_for_line(started[1], tmp_path / "worker.log", "--block")
        (tmp_path / "client").mkdir()
        yield Client(f"http://127.0.0.1:{page}", environment, tmp_path / "client")
    finally:
        for node in reversed(started):
            _end(node)


def _ray_start(environment: dict[str, str], log: Path, *options: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", *options]
    command += [f"--object-store-memory={OBJECT_STORE}", f"--dashboard-agent-listen-port={free_port()}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # else the ranges of two nodes on a machine overlap
    with log.open("w") as said:
        return subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )


def _wait_for_line(node: subprocess.Popen[str], log: Path, said: str) -> None:
    """Wait until `ray start` says that it stays, which it does once its processes answer."""
    until = time.monotonic() + PATIENCE_S
    while said not in log.read_text():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)  # the pace of looking; nothing hangs on it


def _end(node: subprocess.Popen[str]) -> None:
    """End `ray start` and what it has started, all of which is in its session."""
    node.terminate()
    with suppress(subprocess.TimeoutExpired):
        node.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def _code_that_says(said: str, folder: Path) -> Path:
    """A copy of the project in which a trial that diverges says something else."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "sweep" / "training" / "run.py"
    text = file.read_text()
    assert "not a finite number" in text
    file.write_text(text.replace("not a finite number", said))
    return folder


def test_a_sweep_is_launched_stopped_resumed_and_looked_at_from_a_clean_client(client: Client, tmp_path: Path) -> None:
    storage = tmp_path / "sweeps"
    stored = ["--storage", str(storage)]
    path = str(storage / "demo")
    sweep = SweepDir(UPath(path))

    printed, _ = client.run("launch", "demo", *HOPELESS, *stored, "--max-failures", "0", code=1)
    assert "not a finite number" in " ".join(printed.split())
    assert f"1 trial failed; continue with: sweep resume {path} --cluster {client.url}" in printed

    launch = ["launch", "demo", *LONG, *stored, "--max-failures", "0", "--no-wait"]
    _, told = client.run(*launch)
    _, told_again = client.run(*launch)
    job = told.split("job ")[1].split()[0]
    assert told_again.split("job ")[1].split()[0] == job
    assert f"to stop it: sweep stop {path} --cluster {client.url}" in told
    _, told = client.run("resume", "demo", *stored, code=2)
    assert f"job {job} is working on {path}" in told
    _wait_until_trained(sweep)
    printed, _ = client.run("stop", "demo", *stored)
    assert f"continue with: sweep resume {path} --cluster {client.url}" in printed
    assert not stop_requested(sweep.path)
    printed, _ = client.run("logs", "demo", *stored, code=130)
    assert "rotate90" in printed

    shipped = _code_that_says("no number at all", tmp_path / "changed")
    only_failed = ["resume", "demo", "--only", "failed", "--max-failures", "0", *stored]
    printed, _ = client.run(*only_failed, "--ship-code", code=1, project=shipped)
    words = " ".join(printed.split())
    assert "no number at all" in words
    assert "1 file differs from the code of the last launch: sweep/training/run.py" in words

    printed, _ = client.run("status", "demo", "--json", *stored)
    trials = {trial["intervention"]: trial for trial in json.loads(printed)["trials"]}
    assert (trials["baseline"]["status"], trials["rotate90"]["status"]) == ("failed", "pending")
    statuses = {trial.plan().spec.intervention: trial.status() for trial in sweep.trials()}
    assert statuses["rotate90"].epoch > 0, "the trial has saved before it was stopped"
    codes = {intervention: _code(status.code_version) for intervention, status in statuses.items()}
    assert codes["baseline"] != codes["rotate90"], "the worker has run the code that was sent"
    assert set(codes.values()) == {file.stem for file in sweep.code.iterdir()}

    printed, _ = client.run("analyze", "demo", *stored, code=1)
    assert "rotate90" in printed
    printed, _ = client.run("report", "demo", *stored)
    assert f"report: {path}/report.html" in printed
    assert "rotate90" in (storage / "demo" / "report.html").read_text()

    without_token = {name: value for name, value in client.environment.items() if name != "HOME"}
    stranger = Client(client.url, without_token | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}, client.folder)
    _, told = stranger.run("status", "demo", *stored, code=2)
    assert "asks for a token" in told


def _code(version: str | None) -> str:
    found = re.search(r" code (\w+)$", version or "")
    assert found, version
    return found[1]


def _wait_until_trained(sweep: SweepDir) -> None:
    until = time.monotonic() + PATIENCE_S
    while all(trial.status().epoch == 0 for trial in sweep.trials()):
        assert time.monotonic() < until
        time.sleep(0.2)  # the pace of looking; nothing hangs on it
