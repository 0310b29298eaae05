"""`sweep stop` without a cluster: it stops a driver that runs, which saves first, and the sweep can be resumed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from upath import UPath

from sweep.store.files import files_below
from sweep.store.lease import holder
from sweep.store.manifest import MANIFEST
from sweep.store.requests import stop_requested
from sweep.store.sweep_dir import SweepDir
from tests.command import document, run, wait_for
from tests.sweep.conftest import TINY

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_driver_that_runs_saves_and_stops(ray_address: str, tmp_path: Path) -> None:
    settings = [word for setting in [*TINY, "recipe.epochs=50000"] for word in ("--set", setting)]
    command = [sys.executable, "-m", "sweep.cli", "launch", "demo", *settings, "--storage", str(tmp_path)]
    command += ["--address", ray_address]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        sweep = SweepDir(UPath(tmp_path / "demo"))
        wait_for(lambda: any(trial.status().epoch > 1 for trial in sweep.trials()), driver)
        found = document("stop", "demo", "--storage", str(tmp_path))
        assert found["stopped"] == {"host": os.uname().nodename, "pid": driver.pid}
        assert found["resume"] == f"sweep resume {sweep.path}"
        printed, _ = driver.communicate()
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 130, printed
    assert re.search(r"stopped; continue with: sweep resume \S+/demo", printed)
    (trial,) = sweep.trials()
    status = trial.status()
    assert (status.status, holder(sweep.path), stop_requested(sweep.path)) == ("pending", None, False)
    assert f"checkpoints/{status.step}/{MANIFEST}" in files_below(trial.path), "it has saved where it stopped"
    assert "nothing to stop" in run("stop", "demo", "--storage", str(tmp_path), code=2)
