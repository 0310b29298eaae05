"""What the shell completes: fast, without torch, and silent where it can't."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli import completion
from tests.dashboard.synthetic import write_sweep


def completed(line: str, folder: Path, **variables: str) -> list[str]:
    """What bash is told for a command line, of which the last word is being typed."""
    words = line.split(" ")
    asked = {"_SWEEP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = (
        "import sys; sys.argv = ['sweep']; from sweep.cli import app\n"
        "try: app(prog_name='sweep')\n"
        "finally: assert not {'torch', 'ray', 'pandas'} & set(sys.modules), sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked | variables, cwd=folder, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.slow
def test_names_are_completed(tmp_path: Path) -> None:
    for name in ("runs/first", "other/second"):
        write_sweep(tmp_path / name)
    (tmp_path / "runs" / "fir-is-no-sweep").mkdir()
    (tmp_path / "mine.yaml").touch()
    assert completed("sweep status f", tmp_path) == ["first"]
    assert completed("sweep remove --storage other s", tmp_path) == ["second"]
    assert completed("sweep diff first s", tmp_path, SWEEP_STORAGE="other") == ["second"]
    assert completed("sweep status ", tmp_path, SWEEP_STORAGE="s3://nowhere/at/all") == []
    assert completed("sweep launch de", tmp_path) == ["demo"]
    assert completed("sweep launch mi", tmp_path) == ["mine.yaml"]
    assert completed("sweep list sw", tmp_path) == ["sweeps"]
    assert "launch" in completed("sweep la", tmp_path)


def test_names_of_a_grid_come_from_the_catalogue() -> None:
    assert "simplified_mini" in completion.named("architectures")("simpl")
    assert completion.named("interventions")("rotate18") == ["rotate180"]


def test_a_completion_that_cannot_be_made_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(completion, "__file__", str(tmp_path / "a" / "b" / "completion.py"))
    monkeypatch.chdir(tmp_path)
    assert completion.named("architectures")("") == []
    assert completion.grids("") == []

    class Context:
        params = {"storage": str(tmp_path / "nowhere")}

    assert completion.sweeps(Context(), "") == []  # type: ignore[arg-type]
