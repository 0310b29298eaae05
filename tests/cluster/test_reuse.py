"""Trials trained one after another in one process: the bits of fresh ones, and a crash takes its own trial alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from upath import UPath

from sweep.store.manifest import MODEL, checkpoint_steps
from sweep.store.sweep_dir import SweepDir
from tests.command import wait_for

pytestmark = pytest.mark.ray
MIB = 2**20
TINY = ["--set", "data.options={train_images: 48, val_images: 16}", "--set", "recipe.batch_size=16"]
ORDER = ["baseline", "no_pooling", "untrained", "rotate90"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster with room for one trial at a time."""
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 90 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


def command(storage: Path, address: str, *settings: str) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    where = ["--storage", str(storage), "--address", address]
    return [sys.executable, "-m", "sweep.cli", "launch", "demo", *TINY, *sets, *where]


def launched(storage: Path, address: str, order: list[str], *options: str) -> tuple[dict[str, str], set[int | None]]:
    """The sha256 of all kept weights, and the processes that trained them."""
    line = command(storage, address, f"interventions=[{', '.join(order)}]", "recipe.epochs=2")
    done = subprocess.run([*line, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = SweepDir(UPath(storage / "demo")).trials()
    weights = {
        f"{trial.trial_id}/{step}": sha256((trial.checkpoints / str(step) / MODEL).read_bytes()).hexdigest()
        for trial in trials
        for step in checkpoint_steps(trial.checkpoints)
    }
    return weights, {trial.status().pid for trial in trials}


def test_one_process_trains_all_to_the_bits_of_fresh_ones_in_both_orders(address: str, tmp_path: Path) -> None:
    fresh, processes = launched(tmp_path / "fresh", address, ORDER, "--fresh-processes")
    assert len(processes) == 4
    for name, order in (("there", ORDER), ("back", ORDER[::-1])):
        reused, processes = launched(tmp_path / name, address, order)
        assert len(processes) == 1
        assert reused == fresh


def test_a_process_that_dies_takes_its_own_trial_alone(address: str, tmp_path: Path) -> None:
    line = command(tmp_path, address, "interventions=[baseline, rotate90]", "recipe.epochs=40")
    sweep = SweepDir(UPath(tmp_path / "demo"))
    with subprocess.Popen([*line, "--max-failures", "0"], stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: [t for t in sweep.trials() if t.status().status == "running" and t.status().epoch], process)
        (struck,) = [trial for trial in sweep.trials() if trial.status().status == "running"]
        os.kill(struck.status().pid or 0, signal.SIGKILL)
        printed = process.communicate()[0]
    assert process.returncode == 1
    ends = {trial.trial_id: trial.status() for trial in sweep.trials()}
    assert ends.pop(struck.trial_id).status == "failed"
    (other,) = ends.values()
    assert (other.status, other.attempts) == ("finished", 1)
    assert "the trial's process died" in printed
