"""Trials on nodes that lack their data: it is fetched once to each node, and no trial waits for it in a place."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ray.cluster_utils import Cluster
from upath import UPath

from sweep.store.sweep_dir import SweepDir

pytestmark = pytest.mark.ray
MIB = 2**20


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [tmp_path_factory.mktemp(f"cache{number}") for number in (0, 1)]


@pytest.fixture(scope="module")
def address(caches: list[Path]) -> Iterator[str]:
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 90 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for cache in caches:
        cluster.add_node(num_cpus=1, object_store_memory=90 * MIB, env_vars={"SWEEP_CACHE": str(cache)})
    yield cluster.address
    cluster.shutdown()


def sweep(*arguments: str, cache: Path) -> str:
    command = [sys.executable, "-m", "sweep.cli", *arguments]
    environment = os.environ | {"SWEEP_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sets(cache: Path) -> list[str]:
    return sorted(index.parent.name for index in cache.glob("*/index.json"))


def test_nodes_fetch_what_their_trials_need_before_these_start(
    address: str, caches: list[Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            levels = rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(levels).save(tmp_path / "pictures" / name / f"{number}.png")
    shared, driver_cache = tmp_path / "prepared", tmp_path / "cache"
    sweep(
        "prepare", "folder", str(tmp_path / "pictures"), "--to", str(shared), "--set", "image_size=56",
        cache=driver_cache,
    )  # fmt: skip
    settings = [
        "interventions=[baseline]", "seeds=[0,1,2,3]", f"data={{name: folder, root: {shared}}}", "recipe.epochs=2",
        "recipe.batch_size=8",
    ]  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    storage = tmp_path / "storage"
    printed = sweep("launch", "demo", *options, "--storage", str(storage), "--address", address, cache=driver_cache)
    assert "failed" not in printed
    trials = SweepDir(UPath(storage / "demo")).trials()
    assert [(trial.status().status, trial.status().attempts) for trial in trials] == [("finished", 1)] * 4
    (key,) = {trial.plan().spec.data.key for trial in trials}
    there = [sets(cache) for cache in caches]
    assert [key] in there
    assert all(found in ([], [key]) for found in there)
    assert printed.count(f"fetching {key} to node") == there.count([key])
    assert sets(driver_cache) == []
