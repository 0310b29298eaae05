"""A trial as Ray Tune runs it: one epoch per call, saved and stopped at the next step if its machine is about to go."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune
from upath import UPath

from sweep.grid.schema import Resources
from sweep.service.preemption import PreemptionNotice
from sweep.store.manifest import EpochRow
from sweep.store.trial_dir import TrialDir
from sweep.training.train import StoppedError
from sweep.training.trial import trial_course


class RayTrial(tune.Trainable):
    """Runs `trial_course`. A preempted trial ends without an error and says so, and is handed out again."""

    def setup(self, config: dict[str, Any]) -> None:
        task = config["task"]
        with suppress(OSError):  # another machine may not have the folder; paths that matter are absolute
            os.chdir(task["cwd"])
        if not task["gpus"]:  # Ray hides no GPU from a trial that reserves none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._delay_s = task["delay_s"]
        self._notice = PreemptionNotice()
        self._epochs: Iterator[tuple[EpochRow, UPath | None]] = trial_course(
            TrialDir(UPath(task["sweep"]) / "trials" / task["trial_id"]),
            None if task["root"] is None else Path(task["root"]),
            task["cpus"],
            self._notice,
            task["save_every_s"],
        )

    def step(self) -> dict[str, Any]:
        """One epoch; `done` at the end, or when the machine is about to go."""
        time.sleep(self._delay_s)  # a failed trial is retried after a delay
        self._delay_s = 0.0
        try:
            row, kept = next(self._epochs)
        except StopIteration:
            return {"done": True}
        except StoppedError:
            return {"done": True, "preempted": True}
        return {
            "epoch": row["epoch"],
            "val_accuracy": row["val_accuracy"],
            "kept": None if kept is None else str(kept),
        }

    def cleanup(self) -> None:
        """Tune stops the trial; what it has saved is kept."""
        self._notice.close()
        self._epochs.close()  # type: ignore[attr-defined]  # a generator


_DEATH = re.compile(r"ActorDiedError|ActorUnavailableError|[Tt]he actor (died|is (dead|unavailable))")


def report_of(trial: Any) -> str:
    """What Tune wrote about a trial's failure, read from the original: the copy in the storage comes later."""
    file = Path(trial.error_file or "")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def died_of(traceback: str) -> str:
    """Why a process that could not report it itself has ended, according to Ray."""
    lines = [line for line in traceback.strip().splitlines() if line.strip()]
    if "OutOfMemoryError" in traceback or "running low on memory" in traceback:
        return (
            "its node ran out of memory and Ray killed the trial; give trials more resources.cpus, or smaller batches"
        )
    if not lines or _DEATH.search(traceback):
        return "the trial's process died (killed, out of memory, or its node gone)"
    return lines[-1].strip()


def cant_be_imported(traceback: str) -> bool:
    """Whether a trial's process could not import what it needs; a retry would fail too."""
    return died_of(traceback).startswith(("ImportError:", "ModuleNotFoundError:"))


def bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    resources = Resources.model_validate({name: config["task"][name] for name in Resources.model_fields})
    return tune.PlacementGroupFactory([{"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})])
