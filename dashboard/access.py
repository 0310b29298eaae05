"""Who may look at the dashboard: whoever has its token, or logs in.

The token comes once, as `?token=` of any address; a cookie stands for it from then on, so that links need not carry it.
`Gate` stands before all that Streamlit serves: pages, pictures, downloads, scripts, and the socket that draws pages.
"""

import hmac
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.util import find_spec
from urllib.parse import quote, urlsplit

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose
from streamlit.errors import StreamlitSecretNotFoundError

TOKEN_VARIABLE = "SWEEP_DASHBOARD_TOKEN"
SHORTEST_TOKEN = 16  # characters
_PARAMETER = "token"
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
}
_POLICY_VIOLATION = 1008


def given_token() -> str | None:
    """The token that the environment gives, if any; it is taken out, for nothing that runs here to find.

    Raises:
        ValueError: it is too short to be one.
    """
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if token and len(token) < SHORTEST_TOKEN:
        raise ValueError(
            f"{TOKEN_VARIABLE} is easy to guess: give it {SHORTEST_TOKEN} characters or more, such as those of "
            "`openssl rand -hex 16`, or unset it for a random token"
        )
    return token or None


def new_token() -> str:
    return secrets.token_urlsafe(24)


@cache
def needs_login() -> bool:
    """Whether Streamlit's secrets configure a login (`[auth]`); what they say when this is first asked remains.

    Raises:
        ValueError: they can't be read, or the login's library is missing.
    """
    try:
        configured = "auth" in st.secrets
    except StreamlitSecretNotFoundError as error:
        if error.error_id == "no-secrets-found":
            return False
        raise ValueError(f"Streamlit's secrets can't be read: {' '.join(str(error).split())}; mend the file") from error
    if configured and find_spec("authlib") is None:
        raise ValueError("Streamlit's secrets configure a login, which needs Authlib: pip install 'streamlit[auth]'")
    return configured


@dataclass(frozen=True)
class Door:
    """What opens the dashboard: a token if there is one, under a name for the cookie that stands for it.

    `path` is where the dashboard begins, "/" unless it lies elsewhere behind a proxy. `hosts` are the names by which
    it may be called, or None for any: without a token, another page that claims to be this machine could look in.
    `origins` are pages of other addresses that may open the socket, such as a proxy's that hides its own address.
    """

    token: str | None
    cookie: str
    path: str = "/"
    hosts: Collection[str] | None = None
    origins: Collection[str] = ()

    @property
    def ticket(self) -> str:
        """What the cookie says: it follows from the token, but the token doesn't follow from it."""
        return hmac.new(str(self.token).encode(), b"sweep dashboard", "sha256").hexdigest()

    def knows(self, caller: HTTPConnection) -> bool:
        """Whether a caller has shown the token before, or shows it in a header as a proxy may."""
        if self.token is None:
            return True
        shown = caller.headers.get("authorization", "")
        return _same(caller.cookies.get(self.cookie, ""), self.ticket) or _same(shown, f"Bearer {self.token}")

    def opens_for(self, token: str) -> bool:
        return self.token is not None and _same(token, self.token)

    def is_called_by_name(self, caller: HTTPConnection) -> bool:
        """Whether a caller asked for one of the names that this machine goes by."""
        return self.hosts is None or _hostname(caller.headers.get("host", "")) in self.hosts

    def is_own_page(self, caller: HTTPConnection) -> bool:
        """Whether a page of this dashboard calls, or something that is no browser; cookies don't tell ports apart."""
        origin = caller.headers.get("origin")
        own = caller.headers.get("host", "")
        return origin is None or urlsplit(origin).netloc == own or origin in self.origins


class Gate:
    """ASGI middleware that lets in who has the token and tells others how to come by it."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app = app
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self.app
        if scope["type"] == "http":
            answer = self._refusal(HTTPConnection(scope)) or self.app
            send = _with_headers(send)
        elif scope["type"] == "websocket":
            scope["query_string"] = b""  # Streamlit needs none, and the server logs it
            caller = HTTPConnection(scope)
            if not (self.door.is_called_by_name(caller) and self.door.is_own_page(caller) and self.door.knows(caller)):
                answer = WebSocketClose(_POLICY_VIOLATION)
        await answer(scope, receive, send)

    def _refusal(self, caller: HTTPConnection) -> Response | None:
        """What a caller gets instead of the dashboard, or None."""
        if not self.door.is_called_by_name(caller):
            return _page("This dashboard has no token and answers only as localhost.", 421)
        token = caller.query_params.get(_PARAMETER)
        if self.door.token is not None and token is not None and caller.scope["method"] in ("GET", "HEAD"):
            return self._taken_out(caller, token)
        if self.door.knows(caller):
            return None
        return _page("This dashboard opens with its token.", 403, _form(caller))

    def _taken_out(self, caller: HTTPConnection, token: str) -> Response:
        """Send the caller to the same address without the token."""
        opens = self.door.opens_for(token)
        if not opens and not self.door.knows(caller):
            return _page("This token doesn't open this dashboard; a restart may have changed it.", 403, _form(caller))
        place = quote(caller.scope["path"].rsplit("/", 1)[-1])
        rest = "&".join(f"{quote(name)}={quote(value)}" for name, value in _other_parameters(caller))
        response = RedirectResponse(f"./{place}" + (f"?{rest}" if rest else ""), 303, {"Cache-Control": "no-store"})
        if opens:
            secure = caller.url.scheme == "https"
            response.set_cookie(
                self.door.cookie, self.door.ticket, path=self.door.path, secure=secure, httponly=True, samesite="lax"
            )
        return response


def _same(shown: str, expected: str) -> bool:
    return hmac.compare_digest(shown.encode(errors="replace"), expected.encode(errors="replace"))


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _other_parameters(caller: HTTPConnection) -> list[tuple[str, str]]:
    return [(name, value) for name, value in caller.query_params.multi_items() if name != _PARAMETER]


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sent


def _form(caller: HTTPConnection) -> str:
    """A box for the token that leads to the address that was asked for."""
    kept = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in _other_parameters(caller)
    )
    return f"""<p>It stands at the end of the link that <code>sweep dashboard</code> printed. Ask who started it.</p>
<form>{kept}<label>Token <input type="password" name="{_PARAMETER}" autocomplete="off" required autofocus></label>
<button>Open</button></form>"""


def _page(said: str, status: int, more: str = "") -> Response:
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Weight banding</title>
<style>:root {{ color-scheme: light dark; font: 1rem/1.5 sans-serif }} body {{ max-width: 40rem; margin: 4rem auto;
padding: 0 1rem }}</style></head>
<body><main><h1>Weight banding</h1><p>{escape(said)}</p>{more}</main></body></html>"""
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})
