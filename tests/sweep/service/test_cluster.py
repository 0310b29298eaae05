"""What keeps a local Ray from starting, or its processes, is worked around or told in one line with the cure."""

import shlex
import sys
from pathlib import Path

import pytest

from sweep.service import cluster
from sweep.service.cluster import Patience, require_room
from sweep.service.failures import cant_be_imported


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
    require_room(2, 0)
    with pytest.raises(ValueError, match=r"a trial needs 3 CPUs, and this machine has 2 CPUs; lower resources\.cpus"):
        require_room(3, 0)
    with pytest.raises(ValueError, match=r"a trial needs 1 CPU and 0\.5 GPUs"):
        require_room(1, 0.5)


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
        patience.spend("nothing started", 1, 0)
        waited[0] += 61
    reason = "there is room, but Ray can't start a process in it: bash: line 1: /tmp/my: No such file or directory"
    assert told == [f"nothing started; {reason} ({tmp_path / 'raylet.err'})"]
    with pytest.raises(ValueError, match="nothing started, and there is room, but Ray can't start a process"):
        patience.spend("nothing started", 1, 0)


def test_what_waits_for_room_waits_as_long_as_it_takes(local_ray: None, tmp_path: Path, waited: list[float]) -> None:
    told: list[str] = []
    patience = Patience(told.append, tmp_path)
    for _ in range(10):
        patience.spend("nothing started", 3, 0)
        waited[0] += 61
    assert told == ["nothing started; the cluster has 2 CPUs"]


def test_only_what_cant_be_imported_fails_for_good_before_it_begins() -> None:
    assert cant_be_imported("Traceback\nModuleNotFoundError: No module named 'timm'")
    assert not cant_be_imported("Traceback\nOSError: [Errno 5] Input/output error")
    assert not cant_be_imported("")
