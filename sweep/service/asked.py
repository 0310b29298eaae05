"""What readers ask of a sweep while it is worked on: run a trial again, or stop it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sweep.service.analyses import Analyses
from sweep.service.choice import answer
from sweep.service.ledger import Ledger
from sweep.service.queue import Task
from sweep.service.stopping import save_and_stop
from sweep.spec import Plan
from sweep.store.requests import Request, TrialStop, forget
from sweep.store.trial_dir import Status


class Asked:
    """Answers readers' requests; `task_of` makes the task of a trial that is run again."""

    def __init__(self, ledger: Ledger, analyses: Analyses, task_of: Callable[[Plan], Task]) -> None:
        self._ledger, self._analyses, self._task_of = ledger, analyses, task_of

    def answer(self, requests: Sequence[Request | TrialStop]) -> None:
        """Run trials again that the dashboard asks for, unless they run or are analysed: then at the next look."""
        queue = self._ledger.queue
        working = {task["trial_id"] for worker in self._ledger.workers.values() for task in worker.tasks}
        for request in requests if not queue.closing and not queue.closed else ():
            trial_id = request.trial_id
            if isinstance(request, TrialStop):
                self._stop_trial(request)
                continue
            if trial_id in working or queue.holds(trial_id) or self._analyses.busy_with(trial_id):
                continue
            queue.tasks.hold(trial_id)
            self._ledger.clerk.do(partial(self._answered, request), self._begin_again)

    def leave(self, request: TrialStop) -> None:
        """A trial that a reader has stopped is not run again, unless that is asked for."""
        self._ledger.queue.tasks.hold(request.trial_id)
        self._ledger.clerk.do(partial(self._left, request), partial(self._take_leave, request))

    def _stop_trial(self, request: TrialStop) -> None:
        """Have a trial that runs save and stop, and one that waits wait for the next launch."""
        trial_id, queue = request.trial_id, self._ledger.queue
        for worker in self._ledger.workers.values():
            if trial_id not in (task["trial_id"] for task in worker.tasks):
                continue
            if worker.tasks[0]["trial_id"] != trial_id:
                worker.unwanted[trial_id] = request
                worker.send_home()
            elif worker.process is not None and worker.stopping is None:
                worker.stopping = request
                save_and_stop([(worker.node, worker.process)])
            return
        if queue.tasks.remove(trial_id) or not queue.holds(trial_id):
            self.leave(request)

    def _left(self, request: TrialStop) -> Status:
        """What the status of a stopped trial says from now on."""
        trial = self._ledger.sweep.trial(request.trial_id)
        status = trial.status()
        if status.status == "pending":
            status = replace(status, reason=trial.interrupted("stopped by a reader"))
            trial.write_status(status)
        forget(self._ledger.sweep.path, request)
        return status

    def _take_leave(self, request: TrialStop, status: Status) -> None:
        trial_id = request.trial_id
        self._ledger.queue.tasks.drop(trial_id)
        self._ledger.live.tell(trial_id, status)
        if trial_id not in self._ledger.open:
            return
        if status.status in ("finished", "failed"):  # it had ended, and waited to be tried again
            self._ledger.conclude(trial_id)
            return
        self._ledger.open.discard(trial_id)
        self._ledger.display.ended(trial_id, str(status.reason))

    def _answered(self, request: Request) -> tuple[Request, Plan | None, Status]:
        plan = answer(self._ledger.sweep, request)
        return request, plan, self._ledger.sweep.trial(request.trial_id).status()

    def _begin_again(self, answered: tuple[Request, Plan | None, Status]) -> None:
        ledger = self._ledger
        request, plan, status = answered
        ledger.queue.tasks.drop(request.trial_id)
        if plan is None:
            return
        if status.status == "failed":  # until it starts, its file says so; whoever asked sees that it was heard
            status = replace(status, status="pending", error=None, reason="waits to be run again")
        ledger.live.reopen(plan, status)
        ledger.failures[plan.trial_id] = ledger.outages[plan.trial_id] = 0
        ledger.queue.tasks.add(self._task_of(plan))
        ledger.open.add(plan.trial_id)
        ledger.display.another_trial(plan.trial_id, plan.spec.recipe.epochs - status.epoch)
        ledger.display.remark(f"{plan.trial_id}: retry requested, from {request.start}")
