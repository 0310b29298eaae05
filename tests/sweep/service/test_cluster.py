"""What keeps a local Ray from starting, or its processes, is worked around or told in one line with the cure."""

import os
import shlex
import socket
import sys
from pathlib import Path

import pytest
import ray

from sweep.service import cluster
from sweep.service.cluster import Patience, answers, demand, node_of, require_room, working_nodes
from sweep.service.failures import cant_be_imported
from sweep.spec import Resources


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/short"}, "/short"),
        ({"TMPDIR": "/" + "l" * 80}, "/tmp"),
        ({"TMPDIR": "/" + "é" * 20}, "/tmp"),  # 41 bytes
        ({"RAY_TMPDIR": "/mine", "TMPDIR": "/" + "l" * 80}, "/mine"),
    ],
)
def test_ray_gets_a_folder_in_which_its_sockets_fit(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str
) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cluster._ray_folder() == folder


def test_a_folder_of_the_users_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/" + "l" * 60)
    with pytest.raises(ValueError, match=r"RAY_TMPDIR=/l+ is too long: .* at most \d+ bytes, such as /tmp"):
        cluster._ray_folder()


@pytest.mark.parametrize("path", ["/my projects/bin/python", "/a(b)&$c/python", "/plain/python"])
def test_ray_is_told_of_a_python_that_a_shell_would_take_apart(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(sys, "executable", path)
    told = cluster._interpreter().get("runtime_env", {}).get("py_executable", path)
    assert shlex.split(told) == [path]


@pytest.mark.parametrize("path", ["/it's/python", '/"/python', "/a\\b/python"])
def test_a_python_that_ray_cant_start_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(sys, "executable", path)
    with pytest.raises(ValueError, match="its path has a quote or a backslash"):
        cluster._interpreter()


def test_a_trial_that_no_node_can_hold_is_refused(local_ray: None) -> None:
    require_room([Resources(cpus=2)], None)
    with pytest.raises(ValueError, match=r"a trial needs 3 CPUs, and this machine has 2 CPUs; lower resources\.cpus"):
        require_room([Resources(), Resources(cpus=3)], None)
    with pytest.raises(ValueError, match=r"a trial needs 1 CPU and 0\.5 GPUs, and no node .* more than 2 CPUs"):
        require_room([Resources(gpus=0.5)], "auto")


NODE_TYPES = """
available_node_types:
  head: {resources: {CPU: 0, GPU: 0}, max_workers: 0}
  worker: {resources: {CPU: 48, GPU: 4, "accelerator_type:L4": 1}}
  forbidden: {resources: {CPU: 192, GPU: 8}, max_workers: 0}
"""


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cluster of a head without GPUs that a launcher has started; returns the head's home."""
    labels = {"ray.io/node-group": "head"}
    head = {"Alive": True, "Resources": {"CPU": 4.0}, "Labels": labels}
    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}, "Labels": {}}
    monkeypatch.setattr("ray.nodes", lambda: [head, gone])
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_trial_that_fits_a_node_which_may_join_may_wait_for_it(growing: Path) -> None:
    (growing / "ray_bootstrap_config.yaml").write_text(NODE_TYPES)
    require_room([Resources(cpus=8, gpus=4), Resources(cpus=48, gpus=1, accelerator="L4")], "auto")
    for refused, words in [
        (Resources(cpus=8, gpus=8), "8 CPUs and 8 GPUs on one node"),
        (Resources(gpus=1, accelerator="H100"), "1 CPU and 1 GPU of type H100"),
    ]:
        with pytest.raises(ValueError, match=rf"a trial needs {words}, .* 4 CPUs or 48 CPUs and 4 GPUs of type L4;"):
            require_room([refused], "auto")


def test_where_nobody_says_what_may_join_a_trial_may_wait(growing: Path) -> None:
    require_room([Resources(cpus=8, gpus=8)], "auto")


def test_several_gpus_must_be_one_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    monkeypatch.setattr("ray.nodes", lambda: [node, node])
    require_room([Resources(cpus=2, gpus=2)], "auto")
    with pytest.raises(ValueError, match=r"a trial needs 4 CPUs and 4 GPUs on one node"):
        require_room([Resources(cpus=4, gpus=4)], "auto")


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of Patience."""
    now = [1000.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    return now


def test_a_process_that_doesnt_start_is_no_lack_of_cpus(local_ray: None, tmp_path: Path, waited: list[float]) -> None:
    (tmp_path / "raylet.err").write_text("bash: line 1: /tmp/my: No such file or directory\n")
    told: list[str] = []
    patience = Patience(told.append, tmp_path)
    for _ in range(5):
        patience.spend("nothing started", {"CPU": 1})
        waited[0] += 61
    reason = "there is room, but Ray can't start a process in it: bash: line 1: /tmp/my: No such file or directory"
    assert told == [f"nothing started; {reason} ({tmp_path / 'raylet.err'})"]
    with pytest.raises(ValueError, match="nothing started, and there is room, but Ray can't start a process"):
        patience.spend("nothing started", {"CPU": 1})


def test_what_waits_for_room_waits_as_long_as_it_takes(local_ray: None, tmp_path: Path, waited: list[float]) -> None:
    told: list[str] = []
    patience = Patience(told.append, tmp_path)
    for _ in range(10):
        patience.spend("nothing started", {"CPU": 3}, [("photos", 1.0, "CPU")])
        waited[0] += 61
    assert told == ["nothing started; the cluster has 2 CPUs, 2 CPUs of them free; photos has 1 CPU"]


def test_a_node_is_alive_if_it_answers_whatever_ray_says(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = ray.nodes()
    assert answers(node["NodeID"])
    assert not answers("another")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setattr("ray.nodes", lambda: [node | {"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}])
    assert not answers(node["NodeID"])


def test_where_an_actor_ran_is_known_after_its_end(local_ray: None) -> None:
    class Nobody:
        def here(self) -> None: ...

    actor = ray.remote(Nobody).options(num_cpus=0).remote()
    ray.get(actor.here.remote())
    ray.kill(actor)
    assert node_of(actor) == ray.nodes()[0]["NodeID"]


def test_a_head_without_cpus_takes_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"NodeID": "head", "Alive": True, "Resources": {"memory": 1.0, "CPU": 0.0}},
        {"NodeID": "worker", "Alive": True, "Resources": {"CPU": 8.0}},
        {"NodeID": "gone", "Alive": False, "Resources": {}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert working_nodes() == {"worker"}


def test_only_what_cant_be_imported_fails_for_good_before_it_begins() -> None:
    assert cant_be_imported("Traceback\nModuleNotFoundError: No module named 'timm'")
    assert not cant_be_imported("Traceback\nOSError: [Errno 5] Input/output error")
    assert not cant_be_imported("")


@pytest.mark.parametrize(
    ("gpus", "said"), [((0.0, 2.0), "16"), ((1.0,), "16"), ((1.0, 0.25), "64"), ((0.3,), "54"), ((0.01,), "256")],
)  # fmt: skip
def test_enough_demand_reaches_the_autoscaler(
    gpus: tuple[float, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNE_MAX_PENDING_TRIALS_PG", raising=False)
    with demand(Resources(gpus=share, cpus=2) for share in gpus):
        assert os.environ["TUNE_MAX_PENDING_TRIALS_PG"] == said
    assert "TUNE_MAX_PENDING_TRIALS_PG" not in os.environ
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "3")
    with demand([Resources(gpus=0.5)]):
        assert os.environ["TUNE_MAX_PENDING_TRIALS_PG"] == "3"
