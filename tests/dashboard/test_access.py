"""The gate lets in who has the token, and nobody else to anything."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import streamlit as st
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send
from streamlit import config

from dashboard import access
from dashboard.access import Door, Gate

TOKEN = "a token of the tests, 1"
DOOR = Door(token=TOKEN, cookie="sweep_dashboard_8501", path="/banding/")
COOKIE = f"sweep_dashboard_8501={DOOR.ticket}"
PATHS = [
    "/", "/trial", "/media/abc.png", "//media//abc.png", "/static/js/a.js", "/component/x/index.html",
    "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/_stcore/stream", "/_stcore/upload_file/a/b",
]  # fmt: skip


@dataclass
class Behind:
    """Stands for Streamlit: notes what reaches it."""

    reached: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"results"})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: str


def ask(door: Door, path: str, query: str = "", method: str = "GET", scheme: str = "http", **headers: str) -> Answer:
    """What a caller gets; the status is 0 for a socket that is refused."""
    behind, sent = Behind(), list[Message]()
    named = {"host": "localhost:8501"} | headers
    scope = {
        "type": "websocket" if scheme in ("ws", "wss") else "http",
        "method": method,
        "scheme": scheme,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "server": ("127.0.0.1", 8501),
    }

    async def receive() -> Message:
        raise AssertionError("nobody has anything to hear")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Gate(behind, door)(scope, receive, send))
    if scope["type"] == "websocket":
        assert bool(behind.reached) != bool(sent)
        assert all(message["type"] == "websocket.close" for message in sent)
        assert all(scope["query_string"] == b"" for scope in behind.reached)
        return Answer(0 if sent else 200, Headers(), "")
    assert bool(behind.reached) == (sent[1]["body"] == b"results")
    return Answer(sent[0]["status"], Headers(raw=sent[0]["headers"]), sent[1]["body"].decode())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_is_answered_without_the_token(path: str, method: str) -> None:
    assert ask(DOOR, path, method=method).status == 403
    assert ask(DOOR, path, method=method, cookie=f"{DOOR.cookie}=wrong").status == 403
    assert ask(DOOR, path, method=method, authorization=f"Bearer {TOKEN}x").status == 403
    assert ask(DOOR, path, method=method, authorization=f"Basic {TOKEN}").status == 403
    assert ask(DOOR, path, f"token={TOKEN}x", method=method).status == 403


@pytest.mark.parametrize("path", PATHS)
def test_everything_is_answered_with_the_cookie_or_the_header(path: str) -> None:
    assert ask(DOOR, path, cookie=COOKIE).body == "results"
    assert ask(DOOR, path, cookie=f"other=1; {COOKIE}; _streamlit_xsrf=2").body == "results"
    assert ask(DOOR, path, authorization=f"Bearer {TOKEN}").body == "results"


def test_a_socket_opens_with_the_cookie_alone() -> None:
    assert ask(DOOR, "/_stcore/stream", scheme="ws").status == 0
    assert ask(DOOR, "/_stcore/stream", f"token={TOKEN}", scheme="ws").status == 0
    assert ask(DOOR, "/_stcore/stream", scheme="ws", cookie=COOKIE).status == 200
    assert ask(DOOR, "/_stcore/stream", f"token={TOKEN}", scheme="ws", cookie=COOKIE).status == 200


def test_a_socket_does_not_open_for_another_address_page() -> None:
    def opens(origin: str, host: str = "localhost:8501", door: Door = DOOR) -> bool:
        return ask(door, "/_stcore/stream", scheme="wss", cookie=COOKIE, origin=origin, host=host).status == 200

    assert opens("http://localhost:8501")
    assert opens("https://lab.example.org", "lab.example.org")
    assert not opens("http://localhost:9000")
    assert not opens("http://evil.example.org")
    assert not opens("null")
    assert opens("https://lab.example.org", door=replace(DOOR, origins=["https://lab.example.org"]))


def test_the_token_becomes_a_cookie_and_leaves_the_address() -> None:
    answer = ask(DOOR, "/banding/trial", f"sweep=a%26b&token={TOKEN.replace(' ', '+')}&trial=x&trial=y+z")
    assert answer.status == 303
    assert answer.headers["location"] == "./trial?sweep=a%26b&trial=x&trial=y%20z"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = answer.headers["set-cookie"]
    assert cookie == f"{COOKIE}; HttpOnly; Path=/banding/; SameSite=lax"
    assert TOKEN not in str(answer)
    assert "; Secure" in ask(DOOR, "/", f"token={TOKEN}", scheme="https").headers["set-cookie"]


def test_a_token_leaves_the_address_of_who_is_let_in_already() -> None:
    answer = ask(DOOR, "/", "token=old", cookie=COOKIE)
    assert (answer.status, answer.headers["location"]) == (303, "./")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path", ["//evil.example.org", "//evil.example.org/", "/\\evil.example.org", "/http://a.org/b"]
)
def test_no_address_leads_to_another_server(path: str) -> None:
    location = ask(DOOR, path, f"token={TOKEN}").headers["location"]
    assert location.startswith("./")
    assert "/" not in location[2:]
    assert "\\" not in location


def test_who_has_no_token_is_asked_for_it_and_keeps_the_address() -> None:
    answer = ask(DOOR, "/trial", "sweep=%22%3E%3Cscript%3E&trial=x")
    assert "opens with its token" in answer.body
    assert '<input type="hidden" name="sweep" value="&quot;&gt;&lt;script&gt;">' in answer.body
    assert '<input type="hidden" name="trial" value="x">' in answer.body
    assert "doesn&#x27;t open this dashboard" in ask(DOOR, "/trial", "token=wrong").body


def test_without_a_token_only_this_machines_names_are_answered() -> None:
    door = replace(DOOR, token=None, hosts={"localhost", "127.0.0.1", "::1"})
    for host in ("localhost:8501", "127.0.0.1:8501", "[::1]:8501", "LOCALHOST"):
        assert ask(door, "/", host=host).body == "results"
        assert ask(door, "/_stcore/stream", scheme="ws", host=host, origin=f"http://{host}").status == 200
    for host in ("evil.example.org", "localhost.evil.example.org:8501", "[", ""):
        assert ask(door, "/", host=host).status == 421
        assert ask(door, "/_stcore/stream", scheme="ws", host=host, origin=f"http://{host}").status == 0


def test_no_page_of_another_address_frames_the_dashboard() -> None:
    assert ask(DOOR, "/", cookie=COOKIE).headers["content-security-policy"] == "frame-ancestors 'self'"


def test_tokens_are_long_and_leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({access.new_token() for _ in range(100)}) == 100
    assert len(access.new_token()) == 32
    monkeypatch.setenv("SWEEP_DASHBOARD_TOKEN", TOKEN)
    assert access.given_token() == TOKEN
    assert access.given_token() is None
    monkeypatch.setenv("SWEEP_DASHBOARD_TOKEN", "too short")
    with pytest.raises(ValueError, match="SWEEP_DASHBOARD_TOKEN is easy to guess"):
        access.given_token()


def configured(monkeypatch: pytest.MonkeyPatch, folder: Path, secrets: str) -> bool:
    (folder / "secrets.toml").write_text(secrets)
    monkeypatch.setattr(access, "find_spec", lambda name: name)
    return access.needs_login.__wrapped__()


@pytest.fixture
def _secrets(tmp_path: Path) -> Iterator[None]:
    """Streamlit looks for its secrets in this test's folder."""
    before = st.get_option("secrets.files")
    config.set_option("secrets.files", [str(tmp_path / "secrets.toml")])
    st.secrets._reset()
    yield
    config.set_option("secrets.files", before)
    st.secrets._reset()


@pytest.mark.usefixtures("_secrets")
@pytest.mark.parametrize(("secrets", "needed"), [("[auth]\nclient_id = 'x'", True), ("[other]\na = 1", False)])
def test_streamlits_secrets_say_whether_a_login_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets: str, needed: bool
) -> None:
    assert not access.needs_login.__wrapped__()
    assert configured(monkeypatch, tmp_path, secrets) is needed


@pytest.mark.usefixtures("_secrets")
def test_a_login_that_cannot_work_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="secrets can't be read") as raised:
        configured(monkeypatch, tmp_path, "[auth")
    assert "\n" not in str(raised.value)
    (tmp_path / "secrets.toml").write_text("[auth]\nclient_id = 'x'")
    monkeypatch.setattr(access, "find_spec", {}.get)
    with pytest.raises(ValueError, match="needs Authlib"):
        access.needs_login.__wrapped__()
