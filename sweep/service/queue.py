"""What waits to be trained, and for how many workers of which kind Tune should find places.

A worker is a process that trains one trial after another of its kind: those that take the same resources and read the
same data. To Tune, a worker is a trial; what it trains next is the driver's decision (sweep.service.driver).
"""

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

from ray.tune.search import Searcher

from sweep.spec import Resources

Task = dict[str, Any]
"""What a worker needs to run a trial, its resources among it; plain values, as Tune wants them."""

_Waiting = tuple[int, int, Task]
"""A task behind what decides its turn."""


class Kind(NamedTuple):
    """What trials must share to be trained one after another by one process."""

    cpus: int
    gpus: float
    accelerator: str | None
    data_key: str | None


def kind_of(task: Task) -> Kind:
    """The kind of worker that a task needs."""
    data_key = task["data_key"] if task["root"] is not None else None
    return Kind(task["cpus"], task["gpus"], task["accelerator"], data_key)


def resources_of(task: Task) -> Resources:
    """What a task's trial takes."""
    return Resources.model_validate({name: task[name] for name in Resources.model_fields})


class Tasks:
    """Tasks that wait: in order, those of higher priority first; some until a time has come, some held back."""

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._order = count()
        self._ready: dict[Kind, list[_Waiting]] = defaultdict(list)
        self._later: list[tuple[float, int, Task]] = []
        self._held: set[str] = set()
        self._ids: set[str] = set()
        for task in tasks:
            self.add(task)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._ids

    def add(self, task: Task, delay_s: float = 0.0) -> None:
        """Let a task wait, at least for `delay_s`; one that has waited before keeps its place."""
        task.setdefault("order", next(self._order))
        self._ids.add(task["trial_id"])
        self._held.discard(task["trial_id"])
        if delay_s > 0:
            heapq.heappush(self._later, (time.monotonic() + delay_s, task["order"], task))
        else:
            heapq.heappush(self._ready[kind_of(task)], (-task.get("priority", 0), task["order"], task))

    def hold(self, trial_id: str) -> None:
        """A task waits until it is added again."""
        self._ids.add(trial_id)
        self._held.add(trial_id)

    def drop(self, trial_id: str) -> None:
        """A task that was held back no longer waits."""
        self._ids.discard(trial_id)
        self._held.discard(trial_id)

    def remove(self, trial_id: str) -> bool:
        """Let a task wait no longer; False if it was held back, or is not here."""
        if trial_id not in self._ids or trial_id in self._held:
            return False
        self._later = [entry for entry in self._later if entry[2]["trial_id"] != trial_id]
        heapq.heapify(self._later)
        for ready in self._ready.values():
            ready[:] = [entry for entry in ready if entry[2]["trial_id"] != trial_id]
            heapq.heapify(ready)
        self._ids.discard(trial_id)
        return True

    def ready(self) -> dict[Kind, int]:
        """How many tasks of each kind could run now, the kind whose turn it is first."""
        while self._later and self._later[0][0] <= time.monotonic():
            self.add(heapq.heappop(self._later)[2])
        waiting = [kind for kind, tasks in self._ready.items() if tasks]
        return {kind: len(self._ready[kind]) for kind in sorted(waiting, key=lambda kind: self._ready[kind][0][:2])}

    def first(self, kind: Kind) -> Task:
        """The task whose turn it is among those of a kind that could run now."""
        return self._ready[kind][0][2]

    def take(self, kind: Kind, most: int, sought: Iterable[Kind] = (), node: str | None = None) -> list[Task]:
        """Up to `most` tasks of a kind; none while one of a `sought` kind is of higher priority.

        Those that have failed on `node` are taken only if there is nothing else: it may be the node's fault.
        """
        ready = self.ready()
        if kind not in ready:
            return []
        own = self._ready[kind]
        if any(self._ready[other][0][0] < own[0][0] for other in sought if other in ready):
            return []
        taken: list[_Waiting] = []
        failed: list[_Waiting] = []
        while own and len(taken) < most:
            entry = heapq.heappop(own)
            (taken if node is None or entry[2].get("failed_on") != node else failed).append(entry)
        if failed and not taken:
            taken.append(failed.pop(0))
        for entry in failed:
            heapq.heappush(own, entry)
        tasks = [task for _, _, task in taken]
        self._ids.difference_update(task["trial_id"] for task in tasks)
        return tasks


def anywhere(worker: str, task: Task) -> Task:
    """A worker may run on any node."""
    return task


def never() -> bool:
    """Nothing is paused."""
    return False


class Queue(Searcher):
    """Tells Tune which workers to find places for, until no task waits or is being worked on.

    A worker's configuration is the first task of its kind, completed by `placed`, which is also told the worker's name.
    `tend` is called where Tune's loop stands still, since it waits inside `suggest` while it has no worker. `paused`
    says that no worker should start or be given anything now, `full` that there should be no more of them.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        placed: Callable[[str, Task], Task] = anywhere,
        tend: Callable[[], object] = never,
        paused: Callable[[], bool] = never,
        full: Callable[[], bool] = never,
    ) -> None:
        super().__init__()
        self.tasks = Tasks(tasks)
        self._placed, self._tend, self._paused, self._full = placed, tend, paused, full
        self._starting: dict[str, Kind] = {}
        self._working: set[str] = set()
        self.closing = False
        """Whether what still waits is to be left for the next launch."""
        self.closed = False
        """Whether Tune has been told that there is nothing more; it asks for no more after that."""

    def __reduce__(self) -> tuple[type["Queue"], tuple[list[Task]]]:
        """Tune stores its searcher for a restore, which is never used here; the copy it stores is empty."""
        return Queue, ([],)

    @property
    def idle(self) -> bool:
        """Whether no worker is at work or wanted."""
        return not self._starting and not self._working

    def holds(self, trial_id: str) -> bool:
        """Whether a trial is waiting here."""
        return trial_id in self.tasks

    def started(self, worker: str) -> None:
        """A worker has found its place."""
        self._starting.pop(worker, None)
        self._working.add(worker)

    def ended(self, worker: str) -> None:
        """A worker is gone, whether it had started or not."""
        self._starting.pop(worker, None)
        self._working.discard(worker)

    def take(self, kind: Kind, most: int, node: str | None = None) -> list[Task]:
        """Tasks for a worker of a kind on a node; none if its place is wanted for something of higher priority."""
        if self.closing or self._paused():
            return []
        return self.tasks.take(kind, most, self._starting.values(), node)

    def waiting(self, kind: Kind) -> int:
        """How many tasks of a kind could run now."""
        return self.tasks.ready().get(kind, 0)

    def surplus(self) -> set[str]:
        """Workers that have no place yet and nothing to do any more."""
        ready = {} if self.closing else self.tasks.ready()
        seen: Counter[Kind] = Counter()
        too_many = set()
        for worker, kind in self._starting.items():
            seen[kind] += 1
            if seen[kind] > ready.get(kind, 0):
                too_many.add(worker)
        return too_many

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of another worker; None while none is needed, FINISHED at the end."""
        if self.idle:
            self._tend()
        if self.closing or not self.tasks:
            self.closed = self.idle
            return Searcher.FINISHED if self.closed else None
        if self._paused() or self._full():
            return None
        starting = Counter(self._starting.values())
        needed = [kind for kind, waiting in self.tasks.ready().items() if waiting > starting[kind]]
        if not needed:
            return None
        first = {kind: self.tasks.first(kind) for kind in needed}
        # Of equal priority, the kind with the fewest workers on their way: a kind with many trials shuts out no other.
        kind = min(needed, key=lambda kind: (-first[kind].get("priority", 0), starting[kind]))
        self._starting[trial_id] = kind
        return {"task": self._placed(trial_id, first[kind])}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the driver calls `ended` once it knows why."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the sweep directory is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a launch is a fresh experiment; see the sweep directory")
