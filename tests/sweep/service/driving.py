"""A driver outside Tune: the display, workers and reports that its tests give it."""

import os
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ray

from sweep.service.driver import Driver
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status


class Told:
    """A display that remembers."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.ends: list[str] = []

    def epoch(self, trial_id: str, epoch: int, val_accuracy: float | None) -> None: ...
    def another_trial(self, trial_id: str, epochs: int) -> None: ...
    def analysed(self, done: int, waiting: int) -> None: ...
    def waits(self, nothing_runs: bool) -> None: ...

    def ended(self, trial_id: str, outcome: str) -> None:
        self.ends.append(outcome)

    def remark(self, line: str) -> None:
        self.remarks.append(line)


class Actor:
    """A worker's process, as far as the driver talks to it."""

    def __init__(self) -> None:
        self.given: list[tuple[list[str], bool]] = []
        self.give = SimpleNamespace(
            remote=lambda tasks, no_more: self.given.append(([task["trial_id"] for task in tasks], no_more))
        )
        self.not_begun: list[str] = []
        self.go_home = SimpleNamespace(remote=self._go_home)
        self.give_back = SimpleNamespace(remote=lambda: ray.put(self.not_begun))

    def _go_home(self) -> ray.ObjectRef[list[str]]:
        self.given.append(([], True))
        return ray.put(self.not_begun)


def at_work(driven: Driver, plan: Plan, node: str = "n1", name: str = "w") -> tuple[SimpleNamespace, Actor]:
    """A worker that has been given the trial, as the trial of Tune that it is."""
    driven._ledger.open.add(plan.trial_id)
    if not driven._queue.holds(plan.trial_id):
        driven._queue.tasks.add(driven._task(plan))
    assert isinstance(driven._queue.suggest(name) or driven._placed(name, driven._task(plan)), dict)
    if name not in driven._workers:
        driven._placed(name, driven._task(plan))
    actor = Actor()
    trial = SimpleNamespace(trial_id=name, temporary_state=SimpleNamespace(ray_actor=actor), error_file=None)
    driven.on_trial_start(0, [], trial)
    driven._workers[name].node, driven._workers[name].process = node, os.getpid()
    return trial, actor


def report(driven: Driver, trial: SimpleNamespace, *events: dict[str, Any], done: bool = False) -> None:
    worker = driven._workers[trial.trial_id]
    result = {"events": list(events), "node": worker.node, "process": worker.process, "done": done}
    driven.on_trial_result(0, [], trial, result)


def settle(driven: Driver) -> None:
    """Let the clerk do what it has been asked."""
    for _ in range(500):
        driven._clerk.tend()
        if not any(job.every_s is None and not job.due_at for job in driven._clerk._jobs):
            return
        time.sleep(0.01)
    raise AssertionError("the clerk is never done")


def failure(plan: Plan, error: str = "RuntimeError: boom", **facts: Any) -> dict[str, Any]:
    return {"trial_id": plan.trial_id, "end": "failed", "error": error, "traceback": f"Traceback\n{error}", **facts}


def behind(driven: Driver, sweep: SweepDir, plan: Plan, *seeds: int) -> list[str]:
    """Let further trials wait in a worker behind the one that it works on; returns their ids."""
    others = [replace(plan, spec=plan.spec.model_copy(update={"init_seed": seed})) for seed in seeds]
    sweep.add(others)
    for other in others:
        driven._live.reopen(other, Status())
        driven._workers["w"].tasks.append(driven._task(other) | {"attempts": 0})
        driven._ledger.open.add(other.trial_id)
    return [other.trial_id for other in others]
