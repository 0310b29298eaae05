"""What Tune runs: tasks in order, failed and preempted ones again, until none is running or waiting."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from sweep.spec import Resources

Task = dict[str, Any]
"""What a worker needs to run a trial, its resources among it; plain values, as Tune wants them."""


def resources_of(task: Task) -> Resources:
    """What a task's trial takes."""
    return Resources.model_validate({name: task[name] for name in Resources.model_fields})


def none_arrived() -> Sequence[Task]:
    """No task was held back."""
    return []


def never() -> bool:
    """Nobody has interrupted."""
    return False


class Queue(Searcher):
    """Hands out tasks: first those that are due, in order; a failed one again after a delay.

    Some may be held back until they are among those that `arrived` returns. `aimed` completes a task as it is handed
    out. Tune waits inside `suggest` while all tasks are held back, so it is there that it must hear of `interrupted`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        arrived: Callable[[], Sequence[Task]] = none_arrived,
        aimed: Callable[[Task], Task] = dict,
        interrupted: Callable[[], bool] = never,
    ) -> None:
        super().__init__()
        self._waiting: list[tuple[float, Task]] = [(0.0, task) for task in tasks]
        self._running: set[str] = set()
        self._held: set[str] = set()
        self._arrived, self._aimed, self._interrupted = arrived, aimed, interrupted
        self.closed = False
        """Whether Tune knows that all tasks are handed out; it asks for no more after that."""

    def __reduce__(self) -> tuple[type["Queue"], tuple[list[Task]]]:
        """Tune stores its searcher for a restore, which is never used here; the copy it stores is empty."""
        return Queue, ([],)

    def add(self, task: Task, delay_s: float = 0.0) -> None:
        """Queue a task to run after a delay."""
        self._waiting.append((time.monotonic() + delay_s, task))

    @property
    def stalls(self) -> bool:
        """Whether nothing runs and all that is left is held back."""
        return bool(self._held) and not self._running and not self._waiting

    def hold(self, trial_id: str) -> None:
        """A task is held back; it will arrive."""
        self._held.add(trial_id)

    def ended(self, trial_id: str) -> None:
        """A task's run has ended, one way or another."""
        self._running.discard(trial_id)

    def holds(self, trial_id: str) -> bool:
        """Whether a trial is running or waiting."""
        return trial_id in self._running | self._held or any(task["trial_id"] == trial_id for _, task in self._waiting)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next task; None while no waiting task is due, FINISHED at the end.

        If nothing else runs, a task is handed out before it is due and waits by itself, since Tune's loop stalls
        while it has no trial.
        """
        for task in self._arrived():
            self._held.discard(task["trial_id"])
            self.add(task)
        if not self._waiting:
            self.closed = not self._running and (not self._held or self._interrupted())
            return Searcher.FINISHED if self.closed else None
        now = time.monotonic()
        due_at, task = min(self._waiting, key=lambda entry: max(entry[0], now))
        if due_at > now and self._running:
            return None
        self._waiting.remove((due_at, task))
        self._running.add(task["trial_id"])
        return {"task": self._aimed(task) | {"delay_s": max(0.0, due_at - now)}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the driver calls `ended` once it knows why."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the sweep directory is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a launch is a fresh experiment; see the sweep directory")
