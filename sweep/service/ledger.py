"""What a launch knows of its trials and its workers, as far as both judge what has ended and heed what is asked."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sweep.results.live import LiveTables
from sweep.service.clerk import Clerk
from sweep.service.observers import Observers
from sweep.service.queue import Kind, Queue, Task
from sweep.store.requests import TrialStop
from sweep.store.sweep_dir import SweepDir
from sweep.terminal.progress import Display


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
    sent_home: bool = False
    returning: list[Any] = field(default_factory=list)
    """Its answers to having been sent home, or asked for what waits: each the tasks that it has not begun."""
    stopping: TrialStop | None = None
    """A reader's request that it has been told of, to save the trial it works on and stop."""
    unwanted: dict[str, TrialStop] = field(default_factory=dict)
    """Readers' requests to leave trials that it has not begun, by trial."""

    def send_home(self) -> None:
        """Let it end with the trial that it works on; what else it holds comes back when it has heard of it."""
        self.closing = True
        if not self.sent_home:
            self.sent_home = True
            self.returning.append(self.actor.go_home.remote())

    def give_back(self) -> None:
        """Have it return what waits behind the trial that it works on."""
        if not self.returning:
            self.returning.append(self.actor.give_back.remote())


@dataclass(frozen=True)
class Ledger:
    """The trials that are open and how often each has failed, with all that a decision about one changes."""

    sweep: SweepDir
    live: LiveTables
    queue: Queue
    clerk: Clerk
    display: Display
    observers: Observers
    workers: dict[str, Worker] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    """Trials that have not ended, or are to run again."""
    failures: Counter[str] = field(default_factory=Counter)
    """Of each trial since its last epoch."""
    outages: Counter[str] = field(default_factory=Counter)
    """Of the storage or of nodes, since a trial's last epoch."""

    def got_on(self, trial_id: str) -> None:
        """A trial has finished an epoch: what it met before counts no more."""
        self.outages.pop(trial_id, None)
        self.failures.pop(trial_id, None)

    def conclude(self, trial_id: str) -> None:
        """A trial is finished or has failed for good."""
        self.open.discard(trial_id)
        status = self.live.status(trial_id)
        accuracy = f", validation accuracy {status.val_accuracy:.3f}" if status.val_accuracy is not None else ""
        self.display.ended(trial_id, status.error or f"{status.status}{accuracy}")
        self.observers.ended(trial_id)
