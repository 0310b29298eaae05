"""What workers are given to do next, and what is taken back from those that will not begin it soon."""

import time
from collections.abc import Callable
from contextlib import suppress

import ray
from ray.exceptions import RayError

from sweep.service.health import Nodes
from sweep.service.ledger import Ledger, Worker
from sweep.service.queue import Kind, resources_of
from sweep.store.requests import TrialStop

_AHEAD_S, _MOST_AHEAD = 3.0, 8  # short trials are handed out ahead, so that no worker waits for the driver


class Handing:
    """Hands trials to workers; with `fresh_processes` each worker gets one.

    `leave` is called with a reader's request for a trial that is taken back.
    """

    def __init__(self, ledger: Ledger, nodes: Nodes, fresh_processes: bool, leave: Callable[[TrialStop], None]) -> None:
        self._ledger, self._nodes, self._leave = ledger, nodes, leave
        self._fresh_processes = fresh_processes
        self._pace_s: dict[Kind, float] = {}

    def feed(self, worker: Worker) -> None:
        """Give a worker what to do next; nothing more if nothing is left for it, or it should not go on."""
        if worker.closing:
            return
        once = self._fresh_processes or resources_of(worker.task).processes > 1
        if worker.node in self._nodes.avoided:
            worker.send_home()
            return
        wanted = 1 if once else 1 + self._ahead(worker) - len(worker.tasks)
        unlike = worker.node if self._nodes.suspected(worker.node) else None
        tasks = self._ledger.queue.take(worker.kind, wanted, unlike) if wanted > 0 else []
        if not tasks and worker.tasks:
            return
        for task in tasks:
            task["attempts"] = self._ledger.live.status(task["trial_id"]).attempts
        worker.tasks += tasks
        worker.closing = once or not tasks
        worker.actor.give.remote(tasks, worker.closing)

    def measure(self, worker: Worker, ended: int) -> None:
        """Learn how long trials of a kind take."""
        if ended:
            now = time.monotonic()
            pace_s = max((now - worker.since) / ended, 0.01)
            self._pace_s[worker.kind] = 0.8 * self._pace_s.get(worker.kind, pace_s) + 0.2 * pace_s
            worker.since = now

    def take_back(self) -> None:
        """Hand out again what workers will not begin soon, or leave it if a reader has asked for that.

        Those are workers that were sent home, and ones whose trial takes longer than trials of its kind did when others
        were handed out behind it. A worker says what it has not begun: it may be at its next trial before it hears that
        it is asked.
        """
        for worker in self._ledger.workers.values():
            if len(worker.tasks) > 1 and _takes_long(worker):
                worker.give_back()
        asked = {answer: worker for worker in self._ledger.workers.values() for answer in worker.returning}
        heard, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        for answer in heard:
            worker, dropped = asked[answer], []
            worker.returning.remove(answer)
            with suppress(RayError):  # it has died, and is looked into when Tune knows
                dropped = ray.get(answer)
            for task in [task for task in worker.tasks if task["trial_id"] in dropped]:
                worker.tasks.remove(task)
                if task["trial_id"] in worker.unwanted:
                    self._leave(worker.unwanted[task["trial_id"]])
                else:
                    self._ledger.queue.tasks.add(task)

    def _ahead(self, worker: Worker) -> int:
        """How many trials a worker may hold beside the one that it works on: none near the end or behind a long one."""
        kind = worker.kind
        if worker.tasks and _takes_long(worker):
            return 0
        ahead = int(_AHEAD_S / self._pace_s[kind]) if kind in self._pace_s else 0
        workers = sum(worker.kind == kind and worker.actor is not None for worker in self._ledger.workers.values())
        return min(ahead, _MOST_AHEAD, self._ledger.queue.waiting(kind) // (2 * max(workers, 1)))


def _takes_long(worker: Worker) -> bool:
    """Whether the trial at work has gone on for longer than all that is handed out ahead should take."""
    return time.monotonic() - worker.since > 2 * _AHEAD_S
