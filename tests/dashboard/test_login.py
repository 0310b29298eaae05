"""With a login configured, no page shows anything before it."""

import sys
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import access
from tests.dashboard.synthetic import write_sweep

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
VIEWS = sorted((APP.parent / "views").glob("*.py"))


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AppTest:
    write_sweep(tmp_path / "demo")
    monkeypatch.setattr(sys, "argv", ["app.py", str(tmp_path)])
    monkeypatch.setattr(access, "needs_login", lambda: True)
    app = AppTest.from_file(APP, default_timeout=600)
    app.user = {"is_logged_in": False}
    return app


@pytest.mark.parametrize("view", VIEWS, ids=lambda path: path.stem)
def test_every_page_asks_for_a_login_and_shows_nothing_else(app: AppTest, view: Path) -> None:
    page = app.switch_page(f"views/{view.name}").run()
    assert not page.exception
    assert [button.label for button in page.button] == ["Log in"]
    assert [title.value for title in page.title] == ["Weight banding"]
    assert len(page.main) == 2
    assert len(page.sidebar) == 0


def test_who_has_logged_in_sees_the_pages_and_can_leave(app: AppTest) -> None:
    app.user = {"is_logged_in": True, "email": "a_b_@example.org"}
    page = app.run()
    assert not page.exception
    assert "demo" in page.title[0].value
    assert "Log out" in [button.label for button in page.sidebar.button]
    assert page.sidebar.caption[0].value == "a_b\\_@\u2060example.org"


@pytest.mark.parametrize("called", ["login", "logout"])
def test_the_buttons_are_streamlits_own(app: AppTest, monkeypatch: pytest.MonkeyPatch, called: str) -> None:
    calls: list[str] = []
    monkeypatch.setattr(st, called, lambda: calls.append(called))
    app.user = {"is_logged_in": called == "logout"}
    page = app.run()
    buttons = {button.label: button for button in page.button}
    buttons["Log in" if called == "login" else "Log out"].click().run()
    assert calls == [called]
