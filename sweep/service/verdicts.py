"""What becomes of a trial whose worker is done with it, has died, or has lost its node."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from sweep.service.cluster import answers
from sweep.service.failures import backoff_s, cant_be_imported, died_of
from sweep.service.health import MOST_ALIKE, Alike, Nodes
from sweep.service.ledger import Ledger, Worker
from sweep.service.placing import Placing
from sweep.service.queue import Task
from sweep.service.worker import Event
from sweep.store.files import prove_writable
from sweep.store.lease import Lease
from sweep.store.requests import TrialStop
from sweep.store.trial_dir import Status

_MOST_OUTAGES = 10  # of the storage or of nodes that a trial survives in a row, beside its own failures


class _Remains(NamedTuple):
    """A task of a worker that has died, what its trial's files say, and whether the worker had begun it."""

    task: Task
    status: Status
    begun: bool


class Verdicts:
    """Decides whether a trial has ended, runs again or continues elsewhere, and whose fault it was.

    `leave` is called with a reader's request once its trial has stopped, `stop` with why the launch should.
    """

    def __init__(
        self,
        ledger: Ledger,
        nodes: Nodes,
        placing: Placing,
        lease: Lease,
        max_failures: int,
        leave: Callable[[TrialStop], None],
        stop: Callable[[str], None],
    ) -> None:
        self._ledger, self._nodes, self._placing, self._lease = ledger, nodes, placing, lease
        self._max_failures, self._leave, self._stop = max_failures, leave, stop
        self._alike = Alike()

    def ended(self, worker: Worker, task: Task, event: Event) -> None:
        """A worker is done with a trial, one way or another."""
        trial_id, end, ledger = event["trial_id"], event["end"], self._ledger
        if end == "finished":
            self._alike.finished()
            ledger.conclude(trial_id)
        elif end == "lacks data":
            delay_s = self._placing.missing(task, worker.node or "")
            if delay_s is None:
                ledger.queue.tasks.hold(trial_id)
            else:
                ledger.queue.tasks.add(task, delay_s)
        elif end == "superseded":
            self._lease.require()  # another process has the trial: another driver's, or one that was taken for dead
            ledger.queue.tasks.add(task, backoff_s(1))
        elif end == "preempted" and worker.stopping is not None and worker.stopping.trial_id == trial_id:
            self._leave(worker.stopping)
        elif end == "preempted":
            ledger.queue.tasks.add(task)
            if not ledger.queue.closing:
                begun = "from its last checkpoint" if ledger.live.status(trial_id).step else "from the beginning"
                ledger.display.remark(f"{trial_id}: preempted; continues elsewhere {begun}")
        else:
            self._failed(worker, task, event)

    def died(self, worker: Worker, tasks: Sequence[Task], report: str) -> None:
        """A worker has died with these tasks, or its kind can't start; `report` is what Ray says of it."""
        self._ledger.clerk.do(partial(self._examine, worker, tasks, report), partial(self._bury, worker, report))

    def _failed(self, worker: Worker, task: Task, event: Event) -> None:
        trial_id, ledger = event["trial_id"], self._ledger
        status = ledger.live.status(trial_id)
        if status.status != "failed":  # its process could not record it
            status = replace(status, status="failed", error=event["error"], final=event.get("final", False))
            ledger.live.tell(trial_id, status)
            traceback = event.get("traceback", event["error"])
            ledger.clerk.do(partial(self._record, trial_id, status, traceback))
        ledger.clerk.do(partial(ledger.live.read_epochs, trial_id))
        if event.get("storage") and ledger.outages[trial_id] < _MOST_OUTAGES:
            ledger.outages[trial_id] += 1
            ledger.queue.tasks.hold(trial_id)
            delay_s = backoff_s(ledger.outages[trial_id])
            ledger.display.remark(f"{trial_id}: {event['error']}; it continues when the storage answers")
            ledger.clerk.do(self._probe, lambda _: ledger.queue.tasks.add(task, delay_s))
            return
        self._count(worker, task, status)

    def _probe(self) -> None:
        """Prove that the storage can be written."""
        prove_writable(self._ledger.sweep.path)

    def _examine(self, worker: Worker, tasks: Sequence[Task], report: str) -> tuple[bool, list[_Remains]]:
        """Whether the node of a worker that has died is gone, and what the worker has left of its trials."""
        node_gone = worker.node is not None and not answers(worker.node)
        return node_gone, [self._found(task, report, node_gone) for task in tasks]

    def _found(self, task: Task, report: str, node_gone: bool) -> _Remains:
        """What a worker that has died left of a trial; what has become of one that it was training is recorded."""
        trial_id = task["trial_id"]
        status = self._ledger.live.read_again(trial_id)
        begun = status.attempts > task["attempts"]
        if begun and status.status == "running" and node_gone and self._ledger.outages[trial_id] < _MOST_OUTAGES:
            reason = self._ledger.sweep.trial(trial_id).interrupted("its node is gone")
            status = replace(status, status="pending", reason=reason)
            self._record(trial_id, status)
        elif begun and status.status == "running":
            status = _died(status, report)
            self._record(trial_id, status, report)
        return _Remains(task, status, begun)

    def _bury(self, worker: Worker, report: str, examined: tuple[bool, Sequence[_Remains]]) -> None:
        """Decide about the trials of a worker that has died: the one that it was at has failed, unless its node has."""
        ledger = self._ledger
        node_gone, remains = examined
        blamed = False
        for task, status, begun in remains:
            ledger.queue.tasks.drop(task["trial_id"])
            ledger.live.tell(task["trial_id"], status)
            if begun and status.status == "finished":
                ledger.conclude(task["trial_id"])
            elif begun and status.status == "failed":
                blamed = True
                self._count(worker, task, status)
            elif node_gone:
                self._move(worker, task, status, begun)
            elif not (blamed or begun or any(other.begun for other in remains)):
                blamed = True  # its process could not even start
                status = _died(status, report)
                ledger.clerk.do(partial(self._record, task["trial_id"], status, report))
                ledger.live.tell(task["trial_id"], status)
                self._count(worker, task, status)
            else:
                ledger.queue.tasks.add(task)

    def _move(self, worker: Worker, task: Task, status: Status, begun: bool) -> None:
        """A trial's node is gone: that is no failure of the trial."""
        trial_id, ledger = task["trial_id"], self._ledger
        if begun and not ledger.queue.closing:
            ledger.outages[trial_id] += 1
            where = "from its last checkpoint" if status.step else "from the beginning"
            ledger.display.remark(f"{trial_id}: its node {str(worker.node)[:8]} is gone; continues elsewhere {where}")
        ledger.queue.tasks.add(task, backoff_s(ledger.outages[trial_id]) if begun else 0.0)

    def _count(self, worker: Worker, task: Task, status: Status) -> None:
        """A trial has failed: again, unless it has failed too often or would fail again."""
        trial_id, error, ledger = task["trial_id"], status.error or "", self._ledger
        blamed = self._nodes.failed(worker.node, trial_id)
        ledger.failures[trial_id] += 1
        ledger.failures.subtract(blamed)  # the node's failures
        failures = ledger.failures[trial_id]
        if status.final or failures > self._max_failures:
            ledger.conclude(trial_id)
            if self._alike.failed(trial_id, error):
                self._stop(f"{MOST_ALIKE} trials in a row have failed in the same way ({error})")
            return
        delay_s = backoff_s(failures)
        task["failed_on"] = worker.node
        ledger.queue.tasks.add(task, delay_s)
        if not ledger.queue.closing:
            retry = f"retry {max(failures, 1)} of {self._max_failures} in {delay_s:.0f} s"
            ledger.display.remark(f"{trial_id}: failed ({error}); {retry}")

    def _record(self, trial_id: str, status: Status, traceback: str | None = None) -> None:
        """Write what a trial's process could not."""
        trial = self._ledger.sweep.trial(trial_id)
        if trial.status().attempts > status.attempts:
            return  # it runs again already
        if traceback is not None:
            trial.write_error(traceback)
        trial.write_status(status)


def _died(status: Status, report: str) -> Status:
    return replace(status, status="failed", error=died_of(report), final=cant_be_imported(report))
