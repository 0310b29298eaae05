"""A trial on two GPUs of a node; they are logical ones, so both processes compute on the CPU."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from upath import UPath

from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from tests.command import wait_for

pytestmark = pytest.mark.ray
MIB = 2**20
SETTINGS = [
    "interventions=[baseline]", "seeds=[0]", "data.options={train_images: 320, val_images: 32}", "recipe.epochs=12",
    "recipe.batch_size=32", "recipe.ghost_batch=8", "resources.gpus=2", "resources.cpus=2",
    "resources.save_every_s=1.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 90 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2, num_gpus=2, object_store_memory=90 * MIB)
    yield cluster.address
    cluster.shutdown()


def launch(address: str, storage: Path, *settings: str) -> subprocess.Popen[str]:
    options = [part for setting in [*SETTINGS, *settings] for part in ("--set", setting)]
    command = [sys.executable, "-m", "sweep.cli", "launch", "demo", *options]
    command += ["--storage", str(storage), "--address", address]
    environment = os.environ | {"SWEEP_CACHE": str(storage.parent / "cache")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def follower() -> psutil.Process | None:
    """The process of the second GPU, once it trains."""
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].startswith("ray::Follower.run"):
            return process
    return None


def test_the_death_of_one_process_is_one_failure_of_the_trial_which_goes_on(address: str, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    sweep = SweepDir(UPath(storage / "demo"))
    with launch(address, storage) as process:

        def trains() -> Status | None:
            status = next((trial.status() for trial in sweep.trials()), None)
            return status if status is not None and status.epoch >= 2 else None

        wait_for(trains, process)
        other = follower()
        assert other is not None
        other.send_signal(signal.SIGKILL)
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    assert "the process of its GPU 1 failed: the trial's process died" in printed
    assert "retry 1 of 3" in printed
    (trial,) = sweep.trials()
    status = trial.status()
    assert (status.status, status.attempts, status.epoch) == ("finished", 2, 12)
    assert [row["epoch"] for row in trial.epochs()] == list(range(13))
    assert follower() is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["resources.gpus=4", "resources.cpus=4"], "4 GPUs"),
        (["recipe.ghost_batch=null"], "recipe.ghost_batch"),
        (["recipe.ghost_batch=32"], "can't be split"),
    ],
)
def test_what_can_not_run_on_the_gpus_is_said_before_anything_is_recorded(
    address: str, tmp_path: Path, settings: list[str], said: str
) -> None:
    process = launch(address, tmp_path / "storage", *settings)
    printed = process.communicate()[0]
    assert process.returncode == 2, printed
    assert said in " ".join(printed.split())
    assert not (tmp_path / "storage" / "demo" / "sweep.yaml").exists()
