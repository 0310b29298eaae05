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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from upath import UPath

from sweep.grid.settings import Settings
from sweep.results.compact import Survey, compact_neurons
from sweep.results.cost import Cost, cost_of, read_prices, trial_costs
from sweep.results.live import LiveTables
from sweep.results.words import count
from sweep.service.analyses import Analyses
from sweep.service.asked import Asked
from sweep.service.clerk import Clerk
from sweep.service.cluster import Patience, RayCluster, demand, in_words, needs_of, node_of, working_nodes
from sweep.service.failures import report_of
from sweep.service.handing import Handing
from sweep.service.health import Nodes
from sweep.service.ledger import Ledger, Worker
from sweep.service.metrics import Metrics
from sweep.service.observers import Observers
from sweep.service.placing import Placing
from sweep.service.queue import Kind, Queue, Task, kind_of, resources_of
from sweep.service.shares import Claim, Seat
from sweep.service.stopping import save_and_stop
from sweep.service.verdicts import Verdicts
from sweep.service.worker import Event, TrialWorker, bundle
from sweep.spec import Plan
from sweep.store.lease import Lease
from sweep.store.requests import Request, TrialStop, forget_stop, pending_requests, stop_requested
from sweep.store.sweep_dir import SweepDir
from sweep.terminal.progress import Display

_WRITE_EVERY_S, _WRITE_SHARE = 5.0, 0.05  # the tables: at most this share of a core goes into them
_LOOK_EVERY_S = 2.0


class Driver(tune.Callback):
    """Sits in Tune's loop: starts workers, hears what they report, and has it judged, handed out and analysed."""

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
        self._queue = Queue([], self._placed, self._tend, self._paused, self._full)
        self._ledger = Ledger(sweep, self._live, self._queue, self._clerk, display, self._observers)
        self._workers = self._ledger.workers
        self._nodes, self._placing = Nodes(display.remark, working_nodes), Placing(display.remark)
        self._asked = Asked(self._ledger, self._analyses, self._task)
        self._verdicts = Verdicts(
            self._ledger, self._nodes, self._placing, lease, cluster.max_failures, self._asked.leave, self.stop
        )
        self._handing = Handing(self._ledger, self._nodes, cluster.fresh_processes, self._asked.leave)
        self._patience = Patience(display.remark, ray_logs)
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
            worker.send_home()
        save_and_stop([(worker.node, worker.process) for worker in running if worker.tasks])

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        worker = self._workers[trial.trial_id]
        worker.actor = trial.temporary_state.ray_actor  # Tune has no public way to it (2.60)
        worker.node = node_of(worker.actor)
        worker.since = time.monotonic()
        self._queue.started(trial.trial_id)
        self._handing.feed(worker)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        worker = self._workers[trial.trial_id]
        known = worker.process is not None
        worker.node, worker.process = result["node"], result["process"]
        before = len(worker.tasks)
        for event in result.pop("events"):
            self._hear(worker, event)
        self._handing.measure(worker, before - len(worker.tasks))
        if self._queue.closing and not known and worker.tasks:  # it was told nothing, since nobody knew its process
            save_and_stop([(worker.node, worker.process)])
        if not result.get("done"):
            self._handing.feed(worker)

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
            self._verdicts.died(worker, tasks, report)

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
        self._handing.take_back()
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
            worker.send_home()

    def _fit(self, plans: Sequence[Plan]) -> bool:
        """Run one Tune experiment; True if it was stopped before all trials had ended."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the driver reports failures, one line each
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # its own would stop trials before they have saved
        for plan in plans:
            self._queue.tasks.add(self._task(plan))
        on_gpus = any(self._resources.of_plan(plan).gpus for plan in plans)
        self._unit = "GPU" if on_gpus else "CPU"
        self._ledger.open.update(plan.trial_id for plan in plans)
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
        return bool(self._ledger.open)

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
            "data_key": plan.spec.data.prepared.key,
            "cwd": str(Path.cwd()),
            **self._resources.of_plan(plan).model_dump(),
        }

    def _placed(self, worker: str, task: Task) -> Task:
        """The configuration of a worker, which Tune is about to find a place for."""
        task = self._placing.aimed(task) | {"avoided": sorted(self._nodes.avoided)}
        self._workers[worker] = Worker(task, kind_of(task))
        return task

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
            self._ledger.got_on(trial_id)
            if event["kept"] is not None:
                self._analyses.submit(UPath(event["kept"]))
        else:
            task = next(task for task in worker.tasks if task["trial_id"] == trial_id)
            worker.tasks.remove(task)
            self._verdicts.ended(worker, task, event)

    def _look(self) -> tuple[bool, list[Request | TrialStop]]:
        return stop_requested(self._sweep.path), pending_requests(self._sweep.path)

    def _heed(self, asked: tuple[bool, list[Request | TrialStop]]) -> None:
        stop, requests = asked
        if stop:
            self._clerk.do(partial(forget_stop, self._sweep.path))
            self.stop("asked to stop")
        self._asked.answer(requests)

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


def _amount(kind: Kind, unit: str) -> float:
    """How much of what sweeps share a worker of a kind occupies."""
    return kind.gpus if unit == "GPU" else float(kind.cpus)
