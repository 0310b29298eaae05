"""The import rules of pyproject.toml hold, and what only reads a sweep loads neither torch nor Ray."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sweep import ROOT

pytestmark = pytest.mark.slow

WRITTEN = Path(__file__).parent / "sweep" / "store" / "before_the_rooms.tar.xz"
COMMANDS = [
    ["status", "before"],
    ["status", "before", "--json"],
    ["report", "before", "-o", "report.html"],
    ["resume", "before"],
]
RUN = """
import sys
from sweep.cli import app
for command in {commands}:
    try:
        app([*command, "--storage", "."])
    except SystemExit as end:
        assert not end.code, (command, end.code)
    loaded = {{"torch", "ray"}} & set(sys.modules)
    assert not loaded, (command, loaded)
"""


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


def test_the_dashboard_needs_neither_torch_nor_ray() -> None:
    modules = "dashboard.source, dashboard.shape, dashboard.charts"
    code = f"import sys, {modules}; sys.exit(', '.join({{'torch', 'ray'}} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_driver_leaves_torch_to_its_workers() -> None:
    """It takes 260 MiB, beside a driver's 200."""
    code = "import sys, sweep.service.driver, sweep.service.launch; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """A storage with a sweep of which every trial is finished and analysed."""
    with tarfile.open(WRITTEN) as archive:
        archive.extractall(tmp_path, filter="data")
    for trial in (tmp_path / "before" / "trials").iterdir():
        if "untrained" not in trial.name:
            shutil.rmtree(trial)
    return tmp_path


def test_what_only_reads_a_sweep_loads_neither_torch_nor_ray(settled: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", RUN.format(commands=COMMANDS)]
    done = subprocess.run(command, cwd=settled, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to do" in done.stdout


def test_the_projects_packages_win_over_others_of_their_names_on_the_path(tmp_path: Path) -> None:
    for name in ("analysis", "dashboard", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('this is not the project')")
    code = "import sweep, analysis, dashboard.serve, models.names; print(models.__file__)"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-P", "-c", code]
    found = subprocess.check_output(command, env=os.environ | {"PYTHONPATH": path}, text=True, cwd=tmp_path)
    assert found.strip() == str(ROOT / "models" / "__init__.py")
