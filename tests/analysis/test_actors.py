"""The pool: results of good checkpoints, rows for bad ones, a dead actor replaced."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
import safetensors.torch
import torch

from analysis.actors import AnalysisPool

pytestmark = pytest.mark.usefixtures("local_ray")


def checkpoint(folder: Path, name: str) -> tuple[str, str]:
    file = folder / name / "model.safetensors"
    file.parent.mkdir()
    safetensors.torch.save_file({"c.weight": torch.randn(4, 4, 3, 3)}, file, {"final_convs": json.dumps(["c"])})
    return str(file), str(folder / name / "out")


def drained(pool: AnalysisPool) -> dict[str, list[dict[str, Any]]]:
    done: dict[str, list[dict[str, Any]]] = {}
    pool.drain(done.__setitem__)
    return done


def test_every_checkpoint_is_reported_once_and_a_bad_one_with_its_error(tmp_path: Path) -> None:
    good = [checkpoint(tmp_path, f"good{i}") for i in range(5)]
    bad = checkpoint(tmp_path, "bad")
    Path(bad[0]).write_bytes(b"torn")
    pool = AnalysisPool(actors=2, num_cpus=0.0, num_gpus=0.0)
    for job in [*good, bad]:
        pool.submit(*job)
    assert pool.pending == 6
    done = drained(pool)
    pool.submit(*good[0])
    assert pool.pending == 0  # it has its results already
    pool.close()
    assert sorted(done) == sorted(file for file, _ in [*good, bad])
    assert all(done[file][0]["error"] is None for file, _ in good)
    assert "damaged" in done[bad[0]][0]["error"]


def test_a_dead_actor_is_replaced_and_its_checkpoints_are_done_all_the_same(tmp_path: Path) -> None:
    jobs = [checkpoint(tmp_path, f"job{i}") for i in range(4)]
    pool = AnalysisPool(actors=1, num_cpus=0.0, num_gpus=0.0)
    for job in jobs:
        pool.submit(*job)
    ray.kill(pool._workers[0].actor)
    done = drained(pool)
    pool.close()
    assert sorted(done) == sorted(file for file, _ in jobs)
    assert all(rows[0]["error"] is None for rows in done.values())
