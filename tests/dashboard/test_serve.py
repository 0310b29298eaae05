"""What `sweep dashboard` accepts, refuses, and tells the server."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from dashboard import access, serve
from tests.command import run
from tests.conftest import free_port
from tests.dashboard.chromium import served as started_server
from tests.dashboard.synthetic import write_sweep

Serve = Callable[..., dict[str, Any]]


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen(1)
        yield taken.getsockname()[1]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Runs the server's start with some options; gives the options of Streamlit, and the door as `door`."""
    started: dict[str, Any] = {}

    def start(app: st.App, *, config: dict[str, Any]) -> None:
        started.update(config, door=app._user_middleware[0].kwargs["door"])

    def serve_with(*options: str) -> dict[str, Any]:
        started.clear()
        monkeypatch.setattr(sys, "argv", ["serve.py", "runs", *options])
        serve.main()
        return started

    monkeypatch.setattr(st.App, "run", start)
    monkeypatch.setattr(serve.bootstrap, "load_config_options", dict)  # of all tests in this process
    monkeypatch.setattr(access, "needs_login", lambda: False)
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)
    return serve_with


@pytest.fixture
def refused(served: Serve, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refused_with(*options: str) -> str:
        with pytest.raises(SystemExit) as left:
            served(*options)
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("sweep: ")
        assert said.count("\n") == 1
        return said

    return refused_with


def test_only_this_machine_and_the_token_open_it_by_default(served: Serve) -> None:
    options = served()
    assert options["server.address"] == "127.0.0.1"
    assert options["client.showErrorDetails"] == "none"
    assert 8501 <= options["server.port"] < 8601
    door = options["door"]
    assert len(door.token) == 32
    assert (door.path, door.cookie) == ("/", f"sweep_dashboard_{options['server.port']}")
    assert served()["door"].token != door.token


def test_without_a_token_only_this_machines_names_open_it(served: Serve) -> None:
    door = served("--no-token")["door"]
    assert door.token is None
    assert door.hosts == {"localhost", "127.0.0.1", "::1"}


def test_the_environment_gives_the_token(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.TOKEN_VARIABLE, "one of the environment")
    assert served()["door"].token == "one of the environment"
    assert access.TOKEN_VARIABLE not in os.environ


def test_a_short_token_is_refused(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.TOKEN_VARIABLE, "short")
    assert "easy to guess" in refused()


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http", "8501.0", "", "²"])
def test_what_is_no_port_is_refused(refused: Callable[..., str], port: str) -> None:
    assert f"--port {port}: a port is a number from 1 to 65535" in refused(f"--port={port}")


def test_a_taken_port_is_refused_and_another_found_where_none_is_asked_for(
    served: Serve, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as taken:
        assert f"port {taken} is taken; name another by --port" in refused("--port", str(taken))
        monkeypatch.setattr(serve, "_FIRST_PORT", taken)
        assert served()["server.port"] > taken
        monkeypatch.setattr(serve, "_PORTS", 1)
        assert "are all taken" in refused()
    port = free_port()
    assert served("--port", str(port))["server.port"] == port


def test_a_network_gets_in_by_token_and_only_if_one_says_so(served: Serve, refused: Callable[..., str]) -> None:
    assert "or say --insecure" in refused("--host", "0.0.0.0")
    assert served("--host", "0.0.0.0", "--insecure")["door"].token is not None
    for options in ([], ["--insecure"]):
        assert "would let in everyone" in refused("--host", "0.0.0.0", "--no-token", *options)
    assert "there is no such address" in refused("--host", "no.such.host.invalid", "--insecure")
    assert "can't listen at 192.0.2.1" in refused("--host", "192.0.2.1", "--insecure")


def test_a_certificate_makes_a_network_private(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"server.sslCertFile": "cert.pem", "server.corsAllowedOrigins": []}
    monkeypatch.setattr(st, "get_option", given.__getitem__)
    assert served("--host", "0.0.0.0")["door"].token is not None


def test_a_login_takes_the_tokens_place(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "needs_login", lambda: True)
    door = served("--host", "0.0.0.0", "--insecure")["door"]
    assert (door.token, door.hosts) == (None, None)


@pytest.mark.parametrize("path", ["/banding", "banding/", "/banding/"])
def test_a_base_path_may_have_slashes_around_it(served: Serve, path: str) -> None:
    options = served("--base-path", path)
    assert (options["server.baseUrlPath"], options["door"].path) == ("banding", "/banding/")
    assert served("--base-path", "/a/b")["server.baseUrlPath"] == "a/b"
    assert served("--base-path", "/")["door"].path == "/"


@pytest.mark.parametrize("path", ["/a b", "http://x.org", "/../x", "/a?b", "/a;Secure"])
def test_what_is_no_base_path_is_refused(refused: Callable[..., str], path: str) -> None:
    assert "give a path of letters" in refused("--base-path", path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `sweep dashboard` would become."""
    line: list[str] = []

    def become(path: str, arguments: list[str]) -> None:
        line[:] = arguments

    monkeypatch.setattr(os, "execv", become)
    return line


def shown(line: list[str], *arguments: str) -> str:
    """The path that `sweep dashboard` serves."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("SWEEP_STORAGE", raising=False)
        run("dashboard", *arguments)
    assert line[1:3] == ["-P", serve.__file__]
    return line[3]


def test_a_sweep_or_a_storage_is_named_in_any_way(started: list[str], tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    write_sweep(storage / "demo")
    assert shown(started, str(storage)) == str(storage)
    assert shown(started, str(storage / "demo")) == str(storage / "demo")
    assert shown(started, "--storage", str(storage)) == str(storage)
    assert shown(started, "demo", "--storage", str(storage)) == str(storage / "demo")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SWEEP_STORAGE", str(storage))
        run("dashboard", "demo")
    assert started[3] == str(storage / "demo")
    (tmp_path / "empty").mkdir()
    assert shown(started, str(tmp_path / "empty")) == str(tmp_path / "empty")


def test_what_is_neither_is_told_with_the_sweeps_there_are(started: list[str], tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    write_sweep(storage / "demo")
    (tmp_path / "other" / "folder").mkdir(parents=True)
    for wrong in ("dmeo", str(tmp_path / "nothing"), str(tmp_path / "other")):
        said = run("dashboard", wrong, "--storage", str(storage), code=2)
        assert f"{wrong} is neither a sweep nor a storage that holds any; sweeps in {storage}: demo" in said
        assert said.count("\n") == 1
    said = run("dashboard", "--storage", str(tmp_path / "nothing"), code=2)
    assert f"{tmp_path / 'nothing'} holds no sweeps: launch one by" in said
    assert started == []


def test_the_options_reach_the_server(started: list[str], tmp_path: Path, served: Serve) -> None:
    write_sweep(tmp_path / "demo")
    run("dashboard", str(tmp_path), "--port", "9000", "--host", "::1", "--base-path", "/x", "--no-token", "--insecure")
    place, options = serve._arguments(started[3:])
    assert place == str(tmp_path)
    assert options == serve.Options(host="::1", port="9000", base_path="/x", token=False, insecure=True)
    run("dashboard", str(tmp_path))
    assert serve._arguments(started[3:])[1] == serve.Options(
        host="127.0.0.1", port=None, base_path="", token=True, insecure=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_server_stops_without_a_word_when_asked_to(tmp_path: Path, sent: signal.Signals) -> None:
    write_sweep(tmp_path / "demo")
    with started_server(tmp_path, tmp_path / "log") as server:
        while "Whoever has this link" not in server.output:  # the last that it says
            assert server.process.poll() is None
        before = server.output
        server.process.send_signal(sent)
        assert server.process.wait() in (0, -sent)
    assert server.output == before
