"""What goes wrong is said in words."""

import logging
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from upath import UPath

from dashboard.trouble import in_words
from sweep.results.tables import DamagedTableError
from sweep.store.files import read_json

UNKNOWN = KeyError("no such column")
OUTAGE = PermissionError(13, "Permission denied", "/storage/a_b/*x*")


def page() -> None:
    import streamlit as st

    from dashboard.trouble import told

    def fail() -> None:
        raise st.session_state.error

    @st.fragment
    @told()
    def part() -> None:
        if st.session_state.where == "fragment":
            fail()

    part()
    st.write("after the fragment")
    with told():
        if st.session_state.where == "page":
            fail()
    st.write("after the page")


def shown(where: str, error: Exception) -> AppTest:
    app = AppTest.from_function(page)
    app.session_state.where, app.session_state.error = where, error
    return app.run(timeout=600)


def test_a_damaged_file_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "a_b.json").write_text("{")
    with pytest.raises(ValueError, match="damaged") as raised:
        read_json(UPath(tmp_path / "a_b.json"))
    said = in_words(raised.value)
    assert said is not None
    assert "a_b.json is damaged" in said
    assert "\\`sweep resume\\`" in said
    assert in_words(DamagedTableError("a table")) == "a table"


def test_an_outage_and_a_sweep_that_is_gone_are_told() -> None:
    assert "The storage can't be reached." in str(in_words(OUTAGE))
    assert "\\*x\\*" in str(in_words(OUTAGE))
    assert "A file is gone: the sweep may have been removed" in str(in_words(FileNotFoundError(2, "gone", "x")))


@pytest.mark.parametrize("value", ["x", "\udcff"])
def test_errors_of_libraries_are_not_taken_for_words(value: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # any
        Path(f"\0{value}").read_text()
    assert in_words(raised.value) is None
    assert in_words(UNKNOWN) is None


@pytest.mark.parametrize("where", ["page", "fragment"])
def test_trouble_ends_the_page_or_the_fragment_in_words(where: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dashboard.trouble"):
        app = shown(where, OUTAGE)
    assert not app.exception
    assert "The storage can't be reached." in app.error[0].value
    assert [record.levelname for record in caplog.records if record.name == "dashboard.trouble"] == ["WARNING"]
    assert "after the page" not in [element.value for element in app.markdown]


@pytest.mark.parametrize("where", ["page", "fragment"])
def test_other_errors_are_left_to_the_last_resort(where: str) -> None:
    app = shown(where, UNKNOWN)
    assert len(app.exception) == 1
    assert not app.error


def test_the_last_resort_says_where_to_look() -> None:
    def resort() -> None:
        import streamlit as st

        from dashboard.trouble import tell

        tell(st.session_state.error)

    app = AppTest.from_function(resort)
    app.session_state.error = UNKNOWN
    assert "the server's log has details" in app.run(timeout=600).error[0].value
    app.session_state.error = OUTAGE
    assert "The storage can't be reached." in app.run(timeout=600).error[0].value
