"""A set made by the tasks of a Ray cluster is the one that is made here."""

import os
from pathlib import Path
from typing import Any

import pytest

from sweep.service.preparing import in_tasks
from tests.command import run
from tests.sweep.data.pictures_on_disk import two_classes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_tasks_make_the_set_that_is_made_here(ray_address: str, tmp_path: Path) -> None:
    source = two_classes(tmp_path / "source", 20)
    (source / "a" / "bad.png").write_text("no picture")
    settings = ["--set", "image_size=1000"]  # 18 of them fill a shard
    run("prepare", "folder", str(source), *settings, "--to", str(tmp_path / "tasks"), "--address", ray_address)
    run("prepare", "folder", str(source), *settings, "--to", str(tmp_path / "here"), "--workers", "2")
    (by_tasks,), (here,) = ((tmp_path / name).iterdir() for name in ("tasks", "here"))
    assert len([name for name in contents(here) if name.startswith("images-")]) == 3
    assert contents(by_tasks) == contents(here)


def fail_or_say(item: int) -> tuple[int, int]:
    if item == 5:
        raise ValueError("five")
    return item, os.getpid()


@pytest.mark.slow
def test_results_come_in_order_from_other_processes_and_errors_as_they_were(ray_address: str) -> None:
    with in_tasks(ray_address, workers=2) as mapped:
        results: list[Any] = []
        with pytest.raises(ValueError, match="five"):
            results.extend(mapped(fail_or_say, iter(range(9))))
    assert [item for item, _ in results] == list(range(5))
    assert os.getpid() not in {process for _, process in results}


def test_a_cluster_needs_a_target_that_its_nodes_share() -> None:
    assert "--address needs --to" in run("prepare", "scenes", "--address", "auto", code=2)
