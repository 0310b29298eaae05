"""Which code a trial was trained by, and what differs from the code that worked on a sweep before."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from sweep.store import code
from sweep.store.sweep_dir import SweepDir


def _forget() -> None:
    code.code_version.cache_clear()
    code._files.cache_clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of two files, without git."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "sweep" / "a.py").write_text("A = 1\n")
    (tmp_path / "models" / "b.py").write_text("B = 1\n")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.delenv(code.SENT_VERSION, raising=False)
    _forget()
    yield tmp_path
    _forget()


def _change(project: Path, text: str) -> None:
    (project / "sweep" / "a.py").write_text(text)
    _forget()


def test_without_git_the_hash_tells_one_code_from_another(project: Path) -> None:
    first = code.code_version()
    assert first.endswith(f" code {code.code_hash()}")
    _change(project, "A = 2\n")
    assert code.code_version() != first
    _change(project, "A = 1\n")
    assert code.code_version() == first


def test_with_git_the_commit_is_named_and_whether_files_differ_from_it(project: Path) -> None:
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[:10]
    assert code.code_version() == f"{commit} code {code.code_hash()}"
    _change(project, "A = 2\n")
    assert code.code_version() == f"{commit}+ code {code.code_hash()}"


def test_the_senders_commit_is_told_only_of_the_senders_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = f"0123456789+ code {code.code_hash()}"
    monkeypatch.setenv(code.SENT_VERSION, sent)
    assert code.code_version() == sent
    assert code.sent_from_other_code() is None
    _change(project, "A = 2\n")
    assert "0123456789" not in code.code_version()
    assert code.sent_from_other_code() == sent


def test_files_that_changed_since_the_last_work_on_a_sweep_are_named(project: Path, tmp_path: Path) -> None:
    sweep = SweepDir(UPath(tmp_path / "runs" / "demo"))
    assert code.files_changed(sweep) == []
    code.record_code(sweep)
    assert code.files_changed(sweep) == []
    _change(project, "A = 2\n")
    (project / "models" / "c.py").write_text("")
    assert code.files_changed(sweep) == ["models/c.py", "sweep/a.py"]
    code.record_code(sweep)
    (project / "models" / "c.py").unlink()
    _change(project, "A = 1\n")
    assert code.files_changed(sweep) == ["models/c.py", "sweep/a.py"], "the last code counts, not any earlier one"


def test_a_damaged_record_is_passed_over(project: Path, tmp_path: Path) -> None:
    sweep = SweepDir(UPath(tmp_path / "demo"))
    code.record_code(sweep)
    (sweep.code / "0000000000.json").write_text("{")
    assert code.files_changed(sweep) == []
