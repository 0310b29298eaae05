"""What Tune runs: tasks in order, failed and preempted ones again, until none is running or waiting."""

import time
from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from sweep.spec import Resources

Task = dict[str, Any]
"""What a worker needs to run a trial, its resources among it; plain values, as Tune wants them."""


def resources_of(task: Task) -> Resources:
    """What a task's trial takes."""
    return Resources.model_validate({name: task[name] for name in Resources.model_fields})


class Queue(Searcher):
    """Hands out tasks: first those that are due, in order; a failed one again after a delay."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self._waiting: list[tuple[float, Task]] = [(0.0, task) for task in tasks]
        self._running: set[str] = set()
        self.closed = False
        """Whether Tune knows that all tasks are handed out; it asks for no more after that."""

    def add(self, task: Task, delay_s: float = 0.0) -> None:
        """Queue a task to run after a delay."""
        self._waiting.append((time.monotonic() + delay_s, task))

    def ended(self, trial_id: str) -> None:
        """A task's run has ended, one way or another."""
        self._running.discard(trial_id)

    def holds(self, trial_id: str) -> bool:
        """Whether a trial is running or waiting."""
        return trial_id in self._running or any(task["trial_id"] == trial_id for _, task in self._waiting)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next task; None while no waiting task is due, FINISHED at the end.

        If nothing else runs, a task is handed out before it is due and waits by itself, since Tune's loop stalls
        while it has no trial.
        """
        if not self._waiting:
            self.closed = not self._running
            return Searcher.FINISHED if self.closed else None
        now = time.monotonic()
        due_at, task = min(self._waiting, key=lambda entry: max(entry[0], now))
        if due_at > now and self._running:
            return None
        self._waiting.remove((due_at, task))
        self._running.add(task["trial_id"])
        return {"task": task | {"delay_s": max(0.0, due_at - now)}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the driver calls `ended` once it knows why."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the sweep directory is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a launch is a fresh experiment; see the sweep directory")
