"""The pool: results of good checkpoints, rows for bad ones, a dead actor replaced."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import ray
import safetensors.torch
import torch

from analysis.actors import AnalysisPool, _fitting, _Worker
from analysis.layers import analyze_checkpoint

pytestmark = pytest.mark.usefixtures("local_ray")


def checkpoint(folder: Path, name: str) -> tuple[str, str]:
    file = folder / name / "model.safetensors"
    file.parent.mkdir()
    safetensors.torch.save_file({"c.weight": torch.randn(4, 4, 3, 3)}, file, {"final_convs": json.dumps(["c"])})
    return str(file), str(folder / name / "out")


def drained_until_placed(pool: AnalysisPool) -> Any:
    while pool._workers[0].starting is not None:
        pool._collect(timeout_s=1.0)
    return pool._workers[0]


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
    assert drained(pool) == {good[0][0]: done[good[0][0]]}  # it has its results already
    pool.close()
    assert sorted(done) == sorted(file for file, _ in [*good, bad])
    assert all(done[file][0]["error"] is None for file, _ in good)
    assert "damaged" in done[bad[0]][0]["error"]


def test_an_error_nobody_foresaw_is_a_row_too_and_the_actor_goes_on(
    tmp_path: Path,
) -> None:
    good, bad = checkpoint(tmp_path, "good"), checkpoint(tmp_path, "bad")
    Path(bad[1]).write_bytes(b"a file where its results should go")
    pool = AnalysisPool(actors=1, num_cpus=0.0, num_gpus=0.0)
    for job in (bad, good):
        pool.submit(*job)
    done = drained(pool)
    assert pool._workers[0].load == 0
    pool.close()
    assert "Error" in done[bad[0]][0]["error"]
    assert done[good[0]][0]["error"] is None


def test_an_outage_of_the_storage_is_told_from_a_bad_checkpoint(tmp_path: Path) -> None:
    away, bad = checkpoint(tmp_path, "away"), checkpoint(tmp_path, "bad")
    Path(away[1]).symlink_to(away[1])  # whatever is below a link to itself, the system can't say
    Path(bad[0]).write_bytes(b"torn")
    pool = AnalysisPool(actors=1, num_cpus=0.0, num_gpus=0.0)
    done = {}
    for job in (away, bad):
        pool.submit(*job)
    while pool.pending:
        done |= {analysed.model_file: analysed.outage for analysed in pool.poll(timeout_s=1.0)}
    pool.close()
    assert done == {away[0]: True, bad[0]: False}


def test_two_jobs_of_one_dead_actor_bring_one_new_actor_and_lose_one_attempt_each(tmp_path: Path) -> None:
    jobs = [checkpoint(tmp_path, f"job{i}") for i in range(2)]
    pool = AnalysisPool(actors=1, num_cpus=0.0, num_gpus=0.0)
    started = drained_until_placed(pool)
    for job in jobs:
        pool.submit(*job)
    assert started.load == 2
    ray.kill(started.actor)
    done = drained(pool)
    assert pool.actors == 1
    assert pool._workers[0] is not started
    pool.close()
    assert all(rows[0]["error"] is None for rows in done.values())


def test_rows_are_those_of_a_plain_call(tmp_path: Path) -> None:
    file, out = checkpoint(tmp_path, "one")
    pool = AnalysisPool(actors=1, num_cpus=0.0, num_gpus=0.0, layers="all")
    pool.submit(file, out)
    (rows,) = drained(pool).values()
    assert min(pool.peaks_mib()) > 50
    pool.close()
    plain = analyze_checkpoint(file, tmp_path / "plain", "all")
    assert [row | {"analysis_wall_s": 0} for row in rows] == [row | {"analysis_wall_s": 0} for row in plain]
    assert (tmp_path / "plain" / "c.npz").read_bytes() == (Path(out) / "c.npz").read_bytes()


def test_an_actor_without_a_place_gets_no_work_and_holds_nobody_up(tmp_path: Path) -> None:
    jobs = [checkpoint(tmp_path, f"job{i}") for i in range(4)]
    pool = AnalysisPool(actors=2, num_cpus=2.0, num_gpus=0.0)  # the cluster has 2 CPUs: one fits
    for job in jobs:
        pool.submit(*job)
    done = drained(pool)
    waiting = [worker for worker in pool._workers if worker.starting is not None]
    pool.close()
    assert len(done) == 4
    assert len(waiting) == 1


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "actors"),
    [
        ({"CPU": 2.0}, 0.0, 0.0, 1),
        ({"CPU": 64.0}, 0.0, 0.0, 16),
        ({"CPU": 64.0}, 2.0, 0.0, 8),
        ({"CPU": 64.0, "GPU": 8.0}, 0.0, 0.25, 8),
        ({"CPU": 4.0, "GPU": 8.0}, 1.0, 0.25, 1),
        ({}, 1.0, 1.0, 1),
    ],
)
def test_auto_is_what_fits_a_quarter_of_the_cluster(
    resources: dict[str, float], cpus: float, gpus: float, actors: int
) -> None:
    assert _fitting(resources, cpus, gpus) == actors


def test_auto_grows_with_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.actors._GROW_EVERY_S", 0.0)
    pool = AnalysisPool(actors="auto", num_cpus=0.25, num_gpus=0.0)
    assert pool.actors == 2
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 3.0})
    pool.poll()
    assert pool.actors == 3
    pool.close()


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


class Well:
    """An actor whose every checkpoint is fine."""

    def analyze(self, model_file: str, out_dir: str, layers: str) -> list[dict[str, Any]]:
        return []


class Sick:
    """An actor on a node without credentials."""

    def analyze(self, model_file: str, out_dir: str, layers: str) -> list[dict[str, Any]]:
        raise OSError(errno.EBUSY, "Please reduce your request rate")


def outages(*kinds: type) -> int:
    """How many outages ten checkpoints meet before all are analysed, or twenty."""
    pool = AnalysisPool(actors=0, num_cpus=0.0, num_gpus=0.0)
    pool._workers = [_Worker(ray.remote(num_cpus=0)(kind).remote(), None) for kind in kinds]
    for number in range(10):
        pool.submit(str(number), "")
    met = 0
    while pool.pending and met < 20:
        for done in pool.poll(timeout_s=1.0):
            met += done.outage
            if done.outage:
                pool.submit(done.model_file, "")
    pool.close()
    return met


def test_an_actor_that_meets_outages_gets_nothing_more_while_another_gets_on() -> None:
    assert 1 <= outages(Sick, Well) <= 2  # what it held when the first became known


def test_where_all_actors_meet_outages_they_go_on_trying() -> None:
    assert outages(Sick) == 20
