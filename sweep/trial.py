"""Run one trial of a sweep directory: train it, and keep its status and error up to date."""

import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from upath import UPath

from sweep.data.prepare import prepare
from sweep.schedule import Schedule
from sweep.store import EpochRow, Status, TrialDir, this_process
from sweep.train import Report, StoppedError, ignore, never, train


def run_trial(
    trial: TrialDir,
    root: Path | None,
    threads: int,
    report: Report = ignore,
    stop: Callable[[], bool] = never,
) -> Status:
    """Train a planned trial to its end with a number of CPU threads, and give its last status.

    Whatever training raises is recorded in `status.json` and `error.txt` and raised again.
    """
    torch.set_num_threads(threads)
    spec = trial.plan().spec
    before = trial.status()
    status = Status(
        status="running", attempts=before.attempts + 1, started_at=time.time(), heartbeat_at=time.time(),
        epoch=before.epoch, step=before.step, val_accuracy=before.val_accuracy, wall_s=before.wall_s,
        code_version=code_version(), torch_version=torch.__version__, **this_process(),
    )  # fmt: skip
    trial.write_status(status)
    trial.clear_error()

    def record(row: EpochRow, kept: UPath | None) -> None:
        nonlocal status
        status = replace(status, heartbeat_at=time.time(), **_reached(row))
        trial.write_status(status)
        report(row, kept)

    try:
        data = prepare(spec.data, root)
        status = replace(status, steps=Schedule(spec.recipe, len(data.train_images)).steps)
        rows = train(spec, data, trial.path, record, stop)
    except StoppedError:
        trial.write_status(replace(status, status="pending", heartbeat_at=time.time()))
        raise
    except Exception as error:
        trial.write_error(traceback.format_exc())
        summary = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        trial.write_status(replace(status, status="failed", error=summary, heartbeat_at=time.time()))
        raise
    status = replace(status, status="finished", heartbeat_at=time.time(), **_reached(rows[-1]))
    trial.write_status(status)
    return status


@cache
def code_version() -> str:
    """The commit this code is at, `+` behind it where files differ from it; else the installed version."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version("weight-banding")


def _reached(row: EpochRow) -> dict[str, Any]:
    return {key: row[key] for key in ("epoch", "step", "val_accuracy", "wall_s")}
