"""A cluster of one head and two workers on this machine: trials are told to go, killed, drained, and asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from upath import UPath

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.tables import read_table
from sweep.store.manifest import MEASURED, MODEL, checkpoint_steps
from sweep.store.requests import pending_requests, request_retry
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status, TrialDir
from sweep.training.trial import run_trial
from tests.command import wait_for

pytestmark = pytest.mark.ray
SETTINGS = [
    "interventions=[baseline, untrained]",
    "data.options={train_images: 640, val_images: 32}",
    "recipe.epochs=24",
    "recipe.batch_size=32",
    "resources.save_every_s=1.0",
]
DEADLINE_MS = 600_000  # of a drained node; the trial has left it long before
MIB = 2**20


@dataclass(frozen=True)
class Story:
    """What a sweep on the cluster has gone through, and what it has come to."""

    sweep: SweepDir
    printed: str
    code: int
    after_sigterm: Status
    after_kill: Status
    after_drain: Status
    nodes: tuple[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 90 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=90 * MIB)
    yield cluster
    cluster.shutdown()


def node_of(cluster: Cluster, pid: int) -> Any:
    above = {process.pid for process in psutil.Process(pid).parents()}
    return next(node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid in above)


def drain(cluster: Cluster, node: Any) -> None:
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client = ray._raylet.GcsClient(address=cluster.address)
    client.drain_node(node.node_id, reason, "spot", int(time.time() * 1000) + DEADLINE_MS)


@pytest.fixture(scope="module")
def story(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Story:
    storage = tmp_path_factory.mktemp("storage")
    sweep = SweepDir(UPath(storage / "demo"))
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, "-m", "sweep.cli", "launch", "demo", *options]
    command += ["--storage", str(storage), "--address", cluster.address]
    cache = tmp_path_factory.getbasetemp() / "cache"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"SWEEP_CACHE": str(cache)},
    ) as process:

        def started(attempt: int) -> Callable[[], tuple[TrialDir, Status] | None]:
            """The attempt has come further than the checkpoint that it began from."""

            def look() -> tuple[TrialDir, Status] | None:
                for trial in sweep.trials():
                    status = trial.status()
                    if "baseline" in trial.trial_id and status.attempts == attempt and status.status == "running":
                        newest = max(checkpoint_steps(trial.checkpoints), default=0)
                        written = trial.checkpoints / str(newest) / "manifest.json"
                        began = status.started_at or 0.0
                        return (trial, status) if newest and written.stat().st_mtime > began else None
                return None

            return look

        _, first = wait_for(started(1), process)
        untrained = next(trial for trial in sweep.trials() if "untrained" in trial.trial_id)
        wait_for(lambda: untrained.status().status == "finished", process)
        request_retry(sweep.path, untrained.trial_id, "scratch")
        os.kill(first.pid, signal.SIGTERM)
        _, second = wait_for(started(2), process)
        os.kill(second.pid, signal.SIGKILL)
        _, third = wait_for(started(3), process)
        left = node_of(cluster, third.pid)
        drain(cluster, left)
        _, fourth = wait_for(started(4), process)
        nodes = left.node_id, node_of(cluster, fourth.pid).node_id
        printed = process.communicate()[0]
    return Story(sweep, printed, process.returncode, second, third, fourth, nodes)


def test_a_trial_told_to_go_saves_and_goes_on_without_a_failure(story: Story) -> None:
    assert story.printed.count("preempted; continues elsewhere from its last checkpoint") == 2  # SIGTERM and drain
    assert story.after_sigterm.step > 0


def test_a_killed_trial_goes_on_as_one_failure(story: Story) -> None:
    assert "retry 1 of 3" in story.printed
    assert "failure 2 of 3" not in story.printed
    assert story.after_kill.attempts == 3


def test_a_draining_node_is_left(story: Story) -> None:
    assert story.nodes[0] != story.nodes[1]


def test_what_is_asked_for_is_done_by_the_running_driver(story: Story) -> None:
    untrained = next(trial for trial in story.sweep.trials() if "untrained" in trial.trial_id)
    assert pending_requests(story.sweep.path) == []
    assert untrained.status().attempts == 2
    assert (untrained.path / "attempts" / "1" / "epochs.jsonl").exists()


def test_all_is_as_if_nothing_had_happened(story: Story, tmp_path: Path) -> None:
    assert story.code == 0, story.printed
    plan = expand(load_grid("demo", SETTINGS)).plans[0]
    quiet = SweepDir(UPath(tmp_path / "demo")).trial(plan.trial_id)
    quiet.write_plan(plan)
    run_trial(quiet, None, threads=1)
    disturbed = story.sweep.trial(plan.trial_id)
    assert checkpoint_steps(disturbed.checkpoints) == checkpoint_steps(quiet.checkpoints)
    for step in checkpoint_steps(quiet.checkpoints):
        mine, theirs = (trial.checkpoints / str(step) / MODEL for trial in (disturbed, quiet))
        assert mine.read_bytes() == theirs.read_bytes(), step
    untimed = [
        [{key: value for key, value in row.items() if key not in MEASURED} for row in trial.epochs()]
        for trial in (disturbed, quiet)
    ]
    assert untimed[0] == untimed[1]
    epochs = read_table(story.sweep.path, "epochs")
    assert not epochs.duplicated(["trial_id", "epoch"]).any()
    assert read_table(story.sweep.path, "trials")["settled"].all()


@pytest.mark.whole  # `make bench` runs all of it
def test_chaos_in_short(tmp_path: Path) -> None:
    """What the story above leaves out; `make bench` strikes with every kind."""
    kinds = ["kill a trial that writes a checkpoint", "kill a node", "damage the newest checkpoint"]
    script = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
    short = ["--faults", "3", "--interventions", "[baseline]", "--seeds", "[0]", "--epochs", "6"]
    short += [part for kind in kinds for part in ("--only", kind)]
    command = [sys.executable, script, *short, "--json", str(tmp_path / "chaos.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "chaos.json").read_text())["rows"]
    assert {row["fault"] for row in rows} == set(kinds)
