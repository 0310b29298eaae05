"""The watch for EC2's spot notice, over a metadata service and a `ray` command made up for the test."""

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep import spot

NO_NOTICE = (404, "")


@dataclass
class Metadata:
    """What the service answers to the questions for a notice, one after the other; the last answer stays."""

    answers: list[tuple[int, str]]
    asked: int = 0
    address: str = ""
    tokens: set[str] = field(default_factory=set)

    def answer(self) -> tuple[int, str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    service = Metadata(answers=[NO_NOTICE])

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            token = f"token {len(service.tokens)}"
            service.tokens.add(token)
            self.reply(200 if known else 400, token)

        def do_GET(self) -> None:
            if self.headers["X-aws-ec2-metadata-token"] not in service.tokens:
                self.reply(401, "")
            elif self.path == "/latest/meta-data/spot/instance-action":
                self.reply(*service.answer())
            else:
                self.reply(400, "")

        def reply(self, code: int, text: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield service
        server.shutdown()
        thread.join()


@pytest.fixture
def ray_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each call of a `ray` that fails the first time."""
    calls, command = tmp_path / "calls", tmp_path / "bin" / "ray"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ntest $(wc -l < {calls}) -ge 2\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return calls


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch's clock stands still at `NOW`."""
    monkeypatch.setattr(spot, "time", SimpleNamespace(time=NOW.timestamp, sleep=time.sleep))


def notice(in_s: float) -> tuple[int, str]:
    at = (NOW + timedelta(seconds=in_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return 200, f'{{"action": "terminate", "time": "{at}"}}'


def test_no_notice_is_no_end(metadata: Metadata) -> None:
    assert spot.end_of_instance(metadata.address) is None


def test_the_notice_says_when(metadata: Metadata) -> None:
    metadata.answers = [notice(120)]
    assert spot.end_of_instance(metadata.address) == NOW.timestamp() + 120


@pytest.mark.parametrize("answer", [(500, ""), (200, "<html>"), (200, "[]"), (200, "{}"), (200, '{"time": "soon"}')])
def test_an_answer_that_is_no_notice_is_an_error(metadata: Metadata, answer: tuple[int, str]) -> None:
    metadata.answers = [answer]
    with pytest.raises((OSError, ValueError)):
        spot.end_of_instance(metadata.address)


def test_ray_is_told_once_it_listens(
    metadata: Metadata, ray_calls: Path, clock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata.answers = [NO_NOTICE, (503, ""), (200, "nonsense"), notice(120)]
    spot.watch(metadata.address, poll_s=0.01)
    assert metadata.asked == 5
    first, second = ray_calls.read_text().splitlines()
    assert first.startswith("drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message")
    assert second.endswith("--deadline-remaining-seconds 120")
    assert capsys.readouterr().out.count("no answer from") == 2


def test_a_notice_that_comes_late_leaves_no_time(ray_calls: Path, clock: None) -> None:
    assert not spot.drain(NOW.timestamp() - 30)
    assert ray_calls.read_text().endswith("--deadline-remaining-seconds 0\n")


def test_an_unreachable_service_is_said_and_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert spot._ask_patiently("http://127.0.0.1:9") is None
    assert "no answer from http://127.0.0.1:9" in capsys.readouterr().out


def test_it_runs_as_a_command_past_any_proxy(metadata: Metadata, ray_calls: Path) -> None:
    ray_calls.write_text("an earlier call\n")
    metadata.answers = [notice(60)]
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    environment = os.environ | proxies | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{metadata.address}/"}
    subprocess.run([sys.executable, "-m", "sweep.spot"], env=environment, check=True)
    assert "drain-node" in ray_calls.read_text()
