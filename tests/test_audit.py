"""What `make audit` says about what pip-audit has found out; the look-up itself needs the network."""

import runpy

import pytest

from sweep import ROOT

TELL = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["tell"]
SOUND = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "not found"}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


def test_a_vulnerable_package_is_a_failure_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert TELL([SOUND, UNKNOWN, BAD]) == 1
    assert capsys.readouterr().out == "c 2: CVE-1, mended in 3\n2 packages looked up, 1 unknown, 1 vulnerabilities\n"
    assert TELL([SOUND]) == 0


def test_an_index_that_knows_nothing_is_no_all_clear(capsys: pytest.CaptureFixture[str]) -> None:
    assert TELL([UNKNOWN]) == 0
    assert "audit skipped" in capsys.readouterr().out
