"""The import rules of pyproject.toml hold, and the dashboard needs neither torch nor Ray."""

import subprocess
import sys

import pytest


def test_imports_go_one_way() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["dashboard.source", "dashboard.shape", "dashboard.charts", "sweep.results.tables"])
def test_reading_results_needs_neither_torch_nor_ray(module: str) -> None:
    code = f"import sys, {module}; sys.exit(', '.join({{'torch', 'ray'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
