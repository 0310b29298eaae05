"""Train trials through Ray Tune and analyse their checkpoints in Ray actors while training goes on.

Each call is a fresh Tune experiment whose trials are worker processes (sweep.service.worker). The driver hands out the
unfinished trials of the sweep to them, those that failed or were preempted again, and what the dashboard requests
meanwhile. It knows the state of the sweep from what it hears, and leaves all reading and writing to its clerk.
Everything lasting is in the sweep directory, so Tune's own files go to a temporary folder and are thrown away.
"""

import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from uuid import uuid4

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import FIFOScheduler
from upath import UPath

from sweep.grid.settings import Settings
from sweep.results.compact import Survey, compact_neurons
from sweep.results.cost import Cost, cost_of, read_prices, trial_costs
from sweep.results.live import LiveTables
from sweep.results.words import count
from sweep.service.analyses import Analyses
from sweep.service.choice import answer
from sweep.service.clerk import Clerk
from sweep.service.cluster import Patience, RayCluster, answers, demand, in_words, needs_of, node_of, working_nodes
from sweep.service.failures import backoff_s, cant_be_imported, died_of, report_of
from sweep.service.health import MOST_ALIKE, Alike, Nodes
from sweep.service.metrics import Metrics
from sweep.service.observers import Observers
from sweep.service.placing import Placing
from sweep.service.queue import Kind, Queue, Task, kind_of, resources_of
from sweep.service.shares import Claim, Seat
from sweep.service.stopping import save_and_stop
from sweep.service.worker import Event, TrialWorker, bundle
from sweep.spec import Plan
from sweep.store.files import prove_writable
from sweep.store.lease import Lease
from sweep.store.requests import Request, TrialStop, forget, forget_stop, pending_requests, stop_requested
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.terminal.progress import Display

_WRITE_EVERY_S, _WRITE_SHARE = 5.0, 0.05  # the tables: at most this share of a core goes into them
_LOOK_EVERY_S = 2.0
_MOST_OUTAGES = 10  # of the storage or of nodes that a trial survives in a row, beside its own failures
_AHEAD_S, _MOST_AHEAD = 3.0, 8  # short trials are handed out ahead, so that no worker waits for the driver


@dataclass(eq=False)
class Worker:
    """A worker as the driver knows it; of the tasks that it holds, it works on the first."""

    task: Task
    kind: Kind
    actor: Any = None
    tasks: list[Task] = field(default_factory=list)
    node: str | None = None
    process: int | None = None
    since: float = field(default_factory=time.monotonic)
    closing: bool = False
    going: Any = None
    """Its answer to having been sent home: the tasks that it will not begin."""
    stopping: TrialStop | None = None
    """A reader's request that it has been told of, to save the trial it works on and stop."""
    unwanted: dict[str, TrialStop] = field(default_factory=dict)
    """Readers' requests to leave trials that it has not begun, by trial."""


class _Remains(NamedTuple):
    """A task of a worker that has died, what its trial's files say, and whether the worker had begun it."""

    task: Task
    status: Status
    begun: bool


class Driver(tune.Callback):
    """Sits in Tune's loop: hands out trials, decides what runs again, and has checkpoints analysed."""

    def __init__(
        self,
        sweep: SweepDir,
        settings: Settings,
        seen: Survey,
        display: Display,
        lease: Lease,
        cluster: RayCluster,
        ray_logs: Path | None = None,
    ) -> None:
        self._sweep, self._display, self._lease, self._cluster = sweep, display, lease, cluster
        self._resources = settings.resources  # of trials planned without their own
        self._live = LiveTables(sweep, seen)
        observers = [Metrics(sweep.name), *(observer(sweep.name) for observer in cluster.observers)]
        self._observers = Observers(observers, self._live, display.remark)
        self._clerk = Clerk(display.remark, self._observers.storage)
        self._analyses = Analyses(sweep, settings.analysis, self._live, self._clerk, display, self._observers, ray_logs)
        self._queue = Queue([])
        self._workers: dict[str, Worker] = {}
        self._open: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._outages: Counter[str] = Counter()
        self._pace_s: dict[Kind, float] = {}
        self._nodes, self._alike = Nodes(display.remark, working_nodes), Alike()
        self._patience = Patience(display.remark, ray_logs)
        self._placing = Placing(display.remark)
        self._seat = Seat(uuid4().hex)
        self._unit = "CPU"
        self._prices = read_prices()
        self._used_before: float | None = None
        self._interrupted = False

    @property
    def lost_analyses(self) -> int:
        """Analyses that are left for the next resume: outages of the storage kept them from being done or recorded."""
        return self._analyses.lost

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        """Tune stores its callbacks for a restore, which is never used here; the copy it stores does nothing."""
        return tune.Callback, ()

    def run(self, plans: Sequence[Plan], unanalysed: Sequence[UPath]) -> bool:
        """Train trials and analyse their checkpoints; False if it was stopped before the end.

        A trial that fails is recorded in the sweep directory; the others continue.
        """
        self._clerk.every(_WRITE_EVERY_S, self._write, self._account, _WRITE_SHARE)
        self._clerk.every(_LOOK_EVERY_S, self._look, self._heed)
        ended = False
        try:
            for checkpoint in unanalysed:
                self._analyses.submit(checkpoint)
            self._queue.closed = not plans  # nobody would serve it: what is asked for then is the next resume's
            stopped = self._fit(plans) if plans else False
            if not stopped:
                self._analyses.submit_missing()
                self._analyses.wait(self._lease, self._display.remark, lambda: self._queue.closing)
            ended = not stopped and not self._analyses.pending
        finally:
            with ExitStack() as ending:  # each part, whatever becomes of the others
                ending.callback(self._write_all)
                ending.callback(self._observers.close, self._analyses.pending, self._clerk.away, sys.exception())
                ending.callback(self._seat.leave)
                ending.callback(self._clerk.close)
                ending.callback(self._analyses.close)
        return ended

    def _write_all(self) -> None:
        if not self._lease.lost:  # else the tables are another driver's
            compact_neurons(self._sweep, self._live.write()["layers"])

    def failed_trials(self) -> int:
        """Trials of the sweep that have failed and not been run again."""
        return int((self._live.tables()["trials"]["status"] == "failed").sum())

    def stop(self, why: str) -> None:
        """Start nothing more; trials that run save at their next step, and then the launch ends."""
        if self._queue.closing:
            return
        self._queue.closing = True
        self._display.remark(f"{why}: trials save and stop")
        running = [worker for worker in self._workers.values() if worker.actor is not None]
        for worker in running:
            self._send_home(worker)
        save_and_stop([(worker.node, worker.process) for worker in running if worker.tasks])

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        worker = self._workers[trial.trial_id]
        worker.actor = trial.temporary_state.ray_actor  # Tune has no public way to it (2.60)
        worker.node = node_of(worker.actor)
        worker.since = time.monotonic()
        self._queue.started(trial.trial_id)
        self._feed(worker)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        worker = self._workers[trial.trial_id]
        known = worker.process is not None
        worker.node, worker.process = result["node"], result["process"]
        before = len(worker.tasks)
        for event in result.pop("events"):
            self._hear(worker, event)
        self._measure(worker, before - len(worker.tasks))
        if self._queue.closing and not known and worker.tasks:  # it was told nothing, since nobody knew its process
            save_and_stop([(worker.node, worker.process)])
        if not result.get("done"):
            self._feed(worker)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        worker = self._gone(trial)
        for task in worker.tasks:  # it had no time for them
            self._queue.tasks.add(task)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        worker, report = self._gone(trial), report_of(trial)
        tasks = worker.tasks or self._queue.take(worker.kind, 1)  # else its kind can't start, over and over
        for task in tasks:
            if task not in worker.tasks:
                task["attempts"] = self._live.status(task["trial_id"]).attempts
            self._queue.tasks.hold(task["trial_id"])
        if tasks:
            self._clerk.do(partial(self._examine, worker, tasks, report), partial(self._bury, worker, report))

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._tend()
        waits = bool(self._workers) and all(worker.actor is None for worker in self._workers.values())
        self._display.waits(nothing_runs=waits)
        if not waits:
            self._patience.renew()
        else:
            needs = needs_of(resources_of(next(iter(self._workers.values())).task))
            actors = count(self._analyses.actors_placed, "actor")
            self._patience.spend(
                f"no trial could start: a trial needs {in_words(needs)}, and the analysis has {actors}",
                needs,
                self._seat.share.others,
            )

    def surplus(self) -> set[str]:
        """Workers that have no place yet and nothing to do any more."""
        return self._queue.surplus()

    def _tend(self) -> None:
        """What is due now and then, whatever the trials do."""
        self._lease.require()
        if self._interrupted:
            self.stop("interrupted")
        for task in self._placing.arrived():
            self._queue.tasks.add(task)
        self._take_back()
        self._analyses.collect()
        self._clerk.tend()
        self._share()

    def _paused(self) -> bool:
        return self._clerk.away

    def _full(self) -> bool:
        """Whether as many workers run as may."""
        most, amount = self._cluster.at_a_time, self._seat.share.amount
        return (most is not None and len(self._workers) >= most) or (
            amount is not None and bool(self._workers) and self._used() >= amount
        )

    def _used(self) -> float:
        """What the workers occupy, or wait for, of what sweeps share."""
        return sum(_amount(worker.kind, self._unit) for worker in self._workers.values() if not worker.closing)

    def _share(self) -> None:
        """Leave the other sweeps of the cluster their share: workers above this one's end with their trials."""
        if self._cluster.address is None:  # started for this launch alone
            return
        kinds = self._queue.tasks.ready()
        waiting = sum(number * _amount(kind, self._unit) for kind, number in kinds.items())
        used = self._used()
        claim = Claim(self._sweep.name, self._cluster.weight, used, used + waiting, self._unit)
        self._seat.tend(claim)
        amount = self._seat.share.amount
        working = [worker for worker in self._workers.values() if worker.actor is not None and not worker.closing]
        while amount is not None and len(working) > 1 and used - _amount(working[-1].kind, self._unit) >= amount:
            worker = working.pop()
            used -= _amount(worker.kind, self._unit)
            self._send_home(worker)

    def _fit(self, plans: Sequence[Plan]) -> bool:
        """Run one Tune experiment; True if it was stopped before all trials had ended."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures, one line each
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # its own would stop trials before they have saved
        self._queue = Queue([self._task(plan) for plan in plans], self._placed, self._tend, self._paused, self._full)
        on_gpus = any(self._resources.of_plan(plan).gpus for plan in plans)
        self._unit = "GPU" if on_gpus else "CPU"
        self._open = {plan.trial_id for plan in plans}
        wanted = demand(self._resources.of_plan(plan) for plan in plans)
        with tempfile.TemporaryDirectory(prefix="sweep-tune-") as folder, self._interruptible(), wanted:
            tuner = tune.Tuner(
                tune.with_resources(TrialWorker, bundle),
                tune_config=tune.TuneConfig(search_alg=self._queue, num_samples=-1, scheduler=_NoSurplus(self)),
                run_config=tune.RunConfig(
                    name=self._sweep.name, storage_path=folder, verbose=0, callbacks=[self],
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )  # fmt: skip
            try:
                with redirect_stdout(StringIO()):  # Tune prints a banner whatever `verbose` says
                    tuner.fit()
            finally:
                self._placing.close()
        return bool(self._open)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first SIGINT has trials saved and stopped; the second one ends everything at once."""

        def hear(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _task(self, plan: Plan) -> Task:
        return {
            "sweep": str(self._sweep.path),
            "trial_id": plan.trial_id,
            "root": plan.root,
            "data_key": plan.spec.data.key,
            "cwd": str(Path.cwd()),
            **self._resources.of_plan(plan).model_dump(),
        }

    def _placed(self, worker: str, task: Task) -> Task:
        """The configuration of a worker, which Tune is about to find a place for."""
        task = self._placing.aimed(task) | {"avoided": sorted(self._nodes.avoided)}
        self._workers[worker] = Worker(task, kind_of(task))
        return task

    def _feed(self, worker: Worker) -> None:
        """Give a worker what to do next; nothing more if nothing is left for it, or it should not go on."""
        if worker.closing:
            return
        once = self._cluster.fresh_processes or resources_of(worker.task).processes > 1
        if worker.node in self._nodes.avoided:
            self._send_home(worker)
            return
        wanted = 1 if once else 1 + self._ahead(worker.kind) - len(worker.tasks)
        unlike = worker.node if self._nodes.suspected(worker.node) else None
        tasks = self._queue.take(worker.kind, wanted, unlike) if wanted > 0 else []
        if not tasks and worker.tasks:
            return
        for task in tasks:
            task["attempts"] = self._live.status(task["trial_id"]).attempts
        worker.tasks += tasks
        worker.closing = once or not tasks
        worker.actor.give.remote(tasks, worker.closing)

    def _send_home(self, worker: Worker) -> None:
        """Let a worker end with the trial that it works on; what else it holds comes back when it has heard of it."""
        worker.closing = True
        if worker.going is None:
            worker.going = worker.actor.go_home.remote()

    def _take_back(self) -> None:
        """What workers that were sent home will not begin is handed out again, or left if a reader has asked for it."""
        going = {worker.going: worker for worker in self._workers.values() if worker.going is not None}
        heard, _ = ray.wait(list(going), num_returns=len(going), timeout=0) if going else ([], [])
        for reference in heard:
            worker, dropped = going[reference], []
            worker.going = None
            with suppress(RayError):  # it has died, and is looked into when Tune knows
                dropped = ray.get(reference)
            for task in [task for task in worker.tasks if task["trial_id"] in dropped]:
                worker.tasks.remove(task)
                if task["trial_id"] in worker.unwanted:
                    self._leave(worker.unwanted[task["trial_id"]])
                else:
                    self._queue.tasks.add(task)

    def _ahead(self, kind: Kind) -> int:
        """How many trials a worker of a kind may hold beside the one that it works on: none near the end."""
        ahead = int(_AHEAD_S / self._pace_s[kind]) if kind in self._pace_s else 0
        workers = sum(worker.kind == kind and worker.actor is not None for worker in self._workers.values())
        return min(ahead, _MOST_AHEAD, self._queue.waiting(kind) // (2 * max(workers, 1)))

    def _measure(self, worker: Worker, ended: int) -> None:
        """Learn how long trials of a kind take."""
        if ended:
            now = time.monotonic()
            pace_s = max((now - worker.since) / ended, 0.01)
            self._pace_s[worker.kind] = 0.8 * self._pace_s.get(worker.kind, pace_s) + 0.2 * pace_s
            worker.since = now

    def _gone(self, trial: Any) -> Worker:
        worker = self._workers.pop(trial.trial_id)
        self._queue.ended(trial.trial_id)
        self._placing.left(worker.task)
        return worker

    def _hear(self, worker: Worker, event: Event) -> None:
        trial_id = event["trial_id"]
        if "status" in event:
            self._live.tell(trial_id, event["status"])
        elif "rows" in event:
            for row in event["rows"]:
                self._live.epoch(trial_id, row)
        elif "row" in event:
            row = event["row"]
            self._live.epoch(trial_id, row)
            self._display.epoch(trial_id, int(row["epoch"] or 0), row["val_accuracy"])
            self._observers.epoch(trial_id, row)
            self._nodes.succeeded(worker.node)
            self._outages.pop(trial_id, None)
            self._failures.pop(trial_id, None)
            if event["kept"] is not None:
                self._analyses.submit(UPath(event["kept"]))
        else:
            task = next(task for task in worker.tasks if task["trial_id"] == trial_id)
            worker.tasks.remove(task)
            self._ended(worker, task, event)

    def _ended(self, worker: Worker, task: Task, event: Event) -> None:
        """A worker is done with a trial, one way or another."""
        trial_id, end = event["trial_id"], event["end"]
        if end == "finished":
            self._alike.finished()
            self._conclude(trial_id)
        elif end == "lacks data":
            delay_s = self._placing.missing(task, worker.node or "")
            if delay_s is None:
                self._queue.tasks.hold(trial_id)
            else:
                self._queue.tasks.add(task, delay_s)
        elif end == "superseded":
            self._lease.require()  # another process has the trial: another driver's, or one that was taken for dead
            self._queue.tasks.add(task, backoff_s(1))
        elif end == "preempted" and worker.stopping is not None and worker.stopping.trial_id == trial_id:
            self._leave(worker.stopping)
        elif end == "preempted":
            self._queue.tasks.add(task)
            if not self._queue.closing:
                begun = "from its last checkpoint" if self._live.status(trial_id).step else "from the beginning"
                self._display.remark(f"{trial_id}: preempted; continues elsewhere {begun}")
        else:
            self._failed(worker, task, event)

    def _failed(self, worker: Worker, task: Task, event: Event) -> None:
        trial_id, status = event["trial_id"], self._live.status(event["trial_id"])
        if status.status != "failed":  # its process could not record it
            status = replace(status, status="failed", error=event["error"], final=event.get("final", False))
            self._live.tell(trial_id, status)
            traceback = event.get("traceback", event["error"])
            self._clerk.do(partial(self._record, trial_id, status, traceback), _nothing)
        self._clerk.do(partial(self._live.read_epochs, trial_id), _nothing)
        if event.get("storage") and self._outages[trial_id] < _MOST_OUTAGES:
            self._outages[trial_id] += 1
            self._queue.tasks.hold(trial_id)
            delay_s = backoff_s(self._outages[trial_id])
            self._display.remark(f"{trial_id}: {event['error']}; it continues when the storage answers")
            self._clerk.do(self._probe, lambda _: self._queue.tasks.add(task, delay_s))
            return
        self._count(worker, task, status)

    def _examine(self, worker: Worker, tasks: Sequence[Task], report: str) -> tuple[bool, list[_Remains]]:
        """Whether the node of a worker that has died is gone, and what the worker has left of its trials."""
        node_gone = worker.node is not None and not answers(worker.node)
        return node_gone, [self._found(task, report, node_gone) for task in tasks]

    def _found(self, task: Task, report: str, node_gone: bool) -> _Remains:
        """What a worker that has died left of a trial; what has become of one that it was training is recorded."""
        trial_id = task["trial_id"]
        status = self._live.read_again(trial_id)
        begun = status.attempts > task["attempts"]
        if begun and status.status == "running" and node_gone and self._outages[trial_id] < _MOST_OUTAGES:
            reason = self._sweep.trial(trial_id).interrupted("its node is gone")
            status = replace(status, status="pending", reason=reason)
            self._record(trial_id, status)
        elif begun and status.status == "running":
            status = _died(status, report)
            self._record(trial_id, status, report)
        return _Remains(task, status, begun)

    def _bury(self, worker: Worker, report: str, examined: tuple[bool, Sequence[_Remains]]) -> None:
        """Decide about the trials of a worker that has died: the one that it was at has failed, unless its node has."""
        node_gone, remains = examined
        blamed = False
        for task, status, begun in remains:
            self._queue.tasks.drop(task["trial_id"])
            self._live.tell(task["trial_id"], status)
            if begun and status.status == "finished":
                self._conclude(task["trial_id"])
            elif begun and status.status == "failed":
                blamed = True
                self._count(worker, task, status)
            elif node_gone:
                self._move(worker, task, status, begun)
            elif not (blamed or begun or any(other.begun for other in remains)):
                blamed = True  # its process could not even start
                status = _died(status, report)
                self._clerk.do(partial(self._record, task["trial_id"], status, report), _nothing)
                self._live.tell(task["trial_id"], status)
                self._count(worker, task, status)
            else:
                self._queue.tasks.add(task)

    def _move(self, worker: Worker, task: Task, status: Status, begun: bool) -> None:
        """A trial's node is gone: that is no failure of the trial."""
        trial_id = task["trial_id"]
        if begun and not self._queue.closing:
            self._outages[trial_id] += 1
            where = "from its last checkpoint" if status.step else "from the beginning"
            self._display.remark(f"{trial_id}: its node {str(worker.node)[:8]} is gone; continues elsewhere {where}")
        self._queue.tasks.add(task, backoff_s(self._outages[trial_id]) if begun else 0.0)

    def _count(self, worker: Worker, task: Task, status: Status) -> None:
        """A trial has failed: again, unless it has failed too often or would fail again."""
        trial_id, error = task["trial_id"], status.error or ""
        blamed = self._nodes.failed(worker.node, trial_id)
        self._failures[trial_id] += 1
        self._failures.subtract(blamed)  # the node's failures
        failures = self._failures[trial_id]
        if status.final or failures > self._cluster.max_failures:
            self._conclude(trial_id)
            if self._alike.failed(trial_id, error):
                self.stop(f"{MOST_ALIKE} trials in a row have failed in the same way ({error})")
            return
        delay_s = backoff_s(failures)
        task["failed_on"] = worker.node
        self._queue.tasks.add(task, delay_s)
        if not self._queue.closing:
            retry = f"retry {max(failures, 1)} of {self._cluster.max_failures} in {delay_s:.0f} s"
            self._display.remark(f"{trial_id}: failed ({error}); {retry}")

    def _record(self, trial_id: str, status: Status, traceback: str | None = None) -> None:
        """Write what a trial's process could not."""
        trial = self._sweep.trial(trial_id)
        if trial.status().attempts > status.attempts:
            return  # it runs again already
        if traceback is not None:
            trial.write_error(traceback)
        trial.write_status(status)

    def _look(self) -> tuple[bool, list[Request | TrialStop]]:
        return stop_requested(self._sweep.path), pending_requests(self._sweep.path)

    def _heed(self, asked: tuple[bool, list[Request | TrialStop]]) -> None:
        stop, requests = asked
        if stop:
            self._clerk.do(partial(forget_stop, self._sweep.path), _nothing)
            self.stop("asked to stop")
        self._answer(requests)

    def _answer(self, requests: Sequence[Request | TrialStop]) -> None:
        """Run trials again that the dashboard asks for, unless they run or are analysed: then at the next look."""
        working = {task["trial_id"] for worker in self._workers.values() for task in worker.tasks}
        for request in requests if not self._queue.closing and not self._queue.closed else ():
            trial_id = request.trial_id
            if isinstance(request, TrialStop):
                self._stop_trial(request)
                continue
            if trial_id in working or self._queue.holds(trial_id) or self._analyses.busy_with(trial_id):
                continue
            self._queue.tasks.hold(trial_id)
            self._clerk.do(partial(self._answered, request), self._begin_again)

    def _stop_trial(self, request: TrialStop) -> None:
        """Have a trial that runs save and stop, and one that waits wait for the next launch."""
        trial_id = request.trial_id
        for worker in self._workers.values():
            if trial_id not in (task["trial_id"] for task in worker.tasks):
                continue
            if worker.tasks[0]["trial_id"] != trial_id:
                worker.unwanted[trial_id] = request
                self._send_home(worker)
            elif worker.process is not None and worker.stopping is None:
                worker.stopping = request
                save_and_stop([(worker.node, worker.process)])
            return
        if self._queue.tasks.remove(trial_id) or not self._queue.holds(trial_id):
            self._leave(request)

    def _leave(self, request: TrialStop) -> None:
        """A trial that a reader has stopped is not run again, unless that is asked for."""
        self._queue.tasks.hold(request.trial_id)
        self._clerk.do(partial(self._left, request), partial(self._take_leave, request))

    def _left(self, request: TrialStop) -> Status:
        """What the status of a stopped trial says from now on."""
        trial = self._sweep.trial(request.trial_id)
        status = trial.status()
        if status.status == "pending":
            status = replace(status, reason=trial.interrupted("stopped by a reader"))
            trial.write_status(status)
        forget(self._sweep.path, request)
        return status

    def _take_leave(self, request: TrialStop, status: Status) -> None:
        trial_id = request.trial_id
        self._queue.tasks.drop(trial_id)
        self._live.tell(trial_id, status)
        if trial_id not in self._open:
            return
        if status.status in ("finished", "failed"):  # it had ended, and waited to be tried again
            self._conclude(trial_id)
            return
        self._open.discard(trial_id)
        self._display.ended(trial_id, str(status.reason))

    def _answered(self, request: Request) -> tuple[Request, Plan | None, Status]:
        plan = answer(self._sweep, request)
        return request, plan, self._sweep.trial(request.trial_id).status()

    def _begin_again(self, answered: tuple[Request, Plan | None, Status]) -> None:
        request, plan, status = answered
        self._queue.tasks.drop(request.trial_id)
        if plan is None:
            return
        if status.status == "failed":  # until it starts, its file says so; whoever asked sees that it was heard
            status = replace(status, status="pending", error=None, reason="waits to be run again")
        self._live.reopen(plan, status)
        self._failures[plan.trial_id] = self._outages[plan.trial_id] = 0
        self._queue.tasks.add(self._task(plan))
        self._open.add(plan.trial_id)
        self._display.another_trial(plan.trial_id, plan.spec.recipe.epochs - status.epoch)
        self._display.remark(f"{plan.trial_id}: retry requested, from {request.start}")

    def _write(self) -> Cost | None:
        """Write the tables; returns what the sweep has cost, if that is limited."""
        if not self._live.changed or self._lease.lost:
            return None
        tables = self._live.write()
        return None if self._cluster.budget is None else cost_of(trial_costs(tables["trials"], [], self._prices))

    def _account(self, cost: Cost | None) -> None:
        """Stop when what this launch may use up is used up."""
        budget = self._cluster.budget
        if cost is None or budget is None:
            return
        used = budget.used(cost)
        if self._used_before is None:
            self._used_before = used
        if used - self._used_before >= budget.amount:
            self.stop(f"the budget of {budget} is used up; resume with another --budget to go on")

    def _probe(self) -> None:
        """Prove that the storage can be written."""
        prove_writable(self._sweep.path)

    def _conclude(self, trial_id: str) -> None:
        self._open.discard(trial_id)
        status = self._live.status(trial_id)
        accuracy = f", validation accuracy {status.val_accuracy:.3f}" if status.val_accuracy is not None else ""
        self._display.ended(trial_id, status.error or f"{status.status}{accuracy}")
        self._observers.ended(trial_id)


class _NoSurplus(FIFOScheduler):
    """First come, first served; workers that have nothing to do any more are not started."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def __reduce__(self) -> tuple[type[FIFOScheduler], tuple[()]]:
        """As `Driver`."""
        return FIFOScheduler, ()

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        surplus = self._driver.surplus()
        for trial in list(tune_controller.get_live_trials()) if surplus else ():
            if trial.trial_id in surplus:
                tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)


def _died(status: Status, report: str) -> Status:
    return replace(status, status="failed", error=died_of(report), final=cant_be_imported(report))


def _amount(kind: Kind, unit: str) -> float:
    """How much of what sweeps share a worker of a kind occupies."""
    return kind.gpus if unit == "GPU" else float(kind.cpus)


def _nothing(_: object) -> None:
    """Nothing is to be done then."""
