"""A trial as Ray Tune runs it: one epoch per call, saved and stopped at the next step if its machine is about to go."""

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import ray
from ray import tune
from upath import UPath

from sweep.service.cluster import bundle_of
from sweep.service.followers import following
from sweep.service.placing import aim, lacks_data
from sweep.service.preemption import PreemptionNotice
from sweep.service.queue import Task, resources_of
from sweep.store.manifest import EpochRow
from sweep.store.trial_dir import TrialDir
from sweep.training.ranks import ALONE
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
        self._trial = TrialDir(UPath(task["sweep"]) / "trials" / task["trial_id"])
        self._epochs = _course(task, self._trial, self._notice)
        self._task, self._at_start = task, True

    def step(self) -> dict[str, Any]:
        """One epoch; `done` at the end, or when the machine is about to go or lacks the data."""
        time.sleep(self._delay_s)  # a failed trial is retried after a delay
        self._delay_s = 0.0
        if self._at_start and lacks_data(self._task, self._trial):
            return {"done": True, "lacks_data_on": ray.get_runtime_context().get_node_id()}
        self._at_start = False
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


def _course(task: Task, trial: TrialDir, stop: PreemptionNotice) -> Iterator[tuple[EpochRow, UPath | None]]:
    """A trial's epochs; on several GPUs, together with the processes of the others."""
    resources = resources_of(task)
    threads, save_every_s = resources.cpus_per_process, resources.save_every_s
    with following(task, trial) if resources.processes > 1 else nullcontext(ALONE) as ranks:
        yield from trial_course(trial, task["root"], threads, stop, save_every_s, ranks)


def bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray reserves for a trial: a bundle for each of its processes, all on one node."""
    resources = resources_of(config["task"])
    bundles, there = [bundle_of(resources)] * resources.processes, aim(config["task"].get("node"))
    return tune.PlacementGroupFactory(bundles, strategy="STRICT_PACK", **there)
