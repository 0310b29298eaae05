"""Failures, pauses and the end are told, at most once a minute; against a local server, through apprise or its like."""

import json
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

from sweep.service import notifications as module
from sweep.service.notifications import Notifier, notifier
from sweep.service.observers import SweepState
from sweep.spec import Plan
from sweep.store.trial_dir import Status
from tests.command import run

RUNNING = SweepState({"running": 2}, frozenset({"a", "b"}), 0, False)
PAUSED = SweepState({"pending": 2}, frozenset(), 0, True)
END = SweepState({"finished": 3, "failed": 1, "excluded": 0}, frozenset(), 0, False)
FAILED = Status(status="failed", error="RuntimeError: boom")


class Apprise:
    """What is used of apprise, for URLs of `json://`."""

    def add(self, url: str) -> bool:
        self.url = url.replace("json://", "http://")
        return url.startswith("json://")

    def notify(self, title: str, body: str) -> bool:
        data = json.dumps({"title": title, "message": body}).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url, data), timeout=10) as answer:
            return bool(answer.status == 200)


@pytest.fixture
def apprise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library where it is installed, else a stand-in."""
    if find_spec("apprise") is None:
        made = ModuleType("apprise")
        made.__spec__ = ModuleSpec("apprise", None)
        vars(made)["Apprise"] = Apprise
        monkeypatch.setitem(sys.modules, "apprise", made)


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of a server, and what it has been sent."""
    sent: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    served = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{served.server_port}/", sent
    served.shutdown()
    served.server_close()
    thread.join()


class Clock:
    """A time that the test sets, and a service that it may switch off."""

    def __init__(self) -> None:
        self.now, self.works = 1000.0, True
        self.sent: list[tuple[str, str]] = []

    def send(self, title: str, text: str) -> bool:
        if self.works:
            self.sent.append((title, text))
        return self.works


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


@pytest.mark.filterwarnings("default")  # other people's library
def test_a_server_is_told_of_a_failure_and_of_the_end(
    apprise: None, server: tuple[str, list[dict[str, Any]]], plan: Plan
) -> None:
    url, sent = server
    made = notifier(url)("demo")
    made.ended(plan, FAILED, [])
    made.closed(END, None)
    assert [(one["title"], one["message"]) for one in sent] == [
        ("sweep demo", f"{plan.trial_id}: failed (RuntimeError: boom)"),
        ("sweep demo has ended", "3 finished, 1 failed"),
    ]


def test_failures_within_a_minute_come_together(clock: Clock, plan: Plan) -> None:
    made = Notifier("demo", "json", clock.send)
    for _ in range(15):
        made.ended(plan, FAILED, [])
        made.state(RUNNING)
    assert len(clock.sent) == 1
    clock.now += 61
    made.state(RUNNING)
    made.state(RUNNING)
    assert len(clock.sent) == 2
    assert clock.sent[1][1].splitlines()[9:] == [f"{plan.trial_id}: failed (RuntimeError: boom)", "and 4 lines more"]


def test_a_finished_trial_is_no_news_but_a_pause_is(clock: Clock, plan: Plan) -> None:
    made = Notifier("demo", "json", clock.send)
    made.ended(plan, Status(status="finished"), [])
    for state in (RUNNING, PAUSED, PAUSED):
        made.state(state)
    clock.now += 61
    made.state(RUNNING)
    assert [text for _, text in clock.sent] == ["paused: the storage is unavailable", "continues"]


def test_the_end_says_what_was_left_to_say_and_why(clock: Clock, plan: Plan) -> None:
    made = Notifier("demo", "json", clock.send)
    made.state(PAUSED)
    made.ended(plan, FAILED, [])
    made.closed(END, ValueError("no room"))
    assert clock.sent[1] == (
        "sweep demo has ended",
        f"3 finished, 1 failed: ValueError no room\n{plan.trial_id}: failed (RuntimeError: boom)",
    )


def test_what_cannot_be_delivered_is_sent_later_and_given_up_in_the_end(clock: Clock, plan: Plan) -> None:
    made = Notifier("demo", "json", clock.send)
    clock.works = False
    made.ended(plan, FAILED, [])
    clock.works, clock.now = True, clock.now + 61
    made.state(RUNNING)
    assert [text for _, text in clock.sent] == [f"{plan.trial_id}: failed (RuntimeError: boom)"]
    clock.works = False
    made.ended(plan, FAILED, [])
    for _ in range(9):
        clock.now += 61
        made.state(RUNNING)
    clock.now += 61
    with pytest.raises(ConnectionError, match="10 messages in a row"):
        made.state(RUNNING)


def test_a_url_that_apprise_cant_use_is_refused_without_its_secrets(apprise: None) -> None:
    with pytest.raises(ValueError, match="--notify nonsense://") as refused:
        notifier("nonsense://user:password@host")
    assert "password" not in str(refused.value)


def test_a_mistake_in_an_option_ends_the_command_before_anything_is_planned(tmp_path: Any) -> None:
    said = run("launch", "demo", "--storage", str(tmp_path / "runs"), "--track", "comet=x", code=2)
    assert "--track comet=x: give tensorboard=FOLDER" in said
    assert not (tmp_path / "runs").exists()
