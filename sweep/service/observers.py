"""Who hears how a sweep goes: metrics, trackers, notifications.

The driver tells `Observers`, which tells each observer in a thread of its own: none ever blocks the loop that schedules
trials. One that fails, or can't keep up, is dropped; the sweep goes on.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.results.live import LiveTables
from sweep.results.tables import Row
from sweep.spec import Plan
from sweep.store.manifest import EpochRow
from sweep.store.trial_dir import Status

_STATE_EVERY_S = 5.0
_MOST_UNHEARD = 10_000  # events that an observer may be behind
_LAST_EVENTS_S = 30.0  # that all observers together may take at the end


@dataclass(frozen=True)
class SweepState:
    """A sweep now: how many trials are in each state, which ones run, how many analyses wait or run.

    `paused`: the storage is unavailable, and no trial starts.
    """

    trials: Mapping[str, int]
    running: frozenset[str]
    analyses_waiting: int
    paused: bool


class Observer:
    """Hears what happens in a sweep, one event after another, in one thread; override what is of interest."""

    name = "an observer"
    """What the user is told has failed."""

    def epoch(self, plan: Plan, row: EpochRow) -> None:
        """A trial has finished an epoch."""

    def ended(self, plan: Plan, status: Status, layers: Sequence[Row]) -> None:
        """A trial is finished or has failed for good, and nothing of it waits for analysis.

        `layers` are the rows of the last checkpoint that was analysed while this driver ran.
        """

    def storage(self, seconds: float) -> None:
        """A job of the driver that reads or writes the storage has taken this long."""

    def state(self, state: SweepState) -> None:
        """How the sweep stands; every few seconds."""

    def closed(self, state: SweepState, error: BaseException | None) -> None:
        """The driver ends, because of an error or not; the last event."""


class _Listener:
    """An observer and its thread."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.error: Exception | None = None
        self._events: queue.Queue[Callable[[Observer], None] | None] = queue.Queue(_MOST_UNHEARD)
        self._thread = threading.Thread(target=self._listen, name=f"observer {observer.name}", daemon=True)
        self._thread.start()

    def tell(self, event: Callable[[Observer], None] | None) -> None:
        """Hand over an event; None is the last."""
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self.error = self.error or TimeoutError(f"it is {_MOST_UNHEARD} events behind")

    def wait(self, timeout_s: float) -> None:
        """Wait until it has heard the last event."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.error = TimeoutError(f"it is {self._events.qsize()} events behind at the end")

    def _listen(self) -> None:
        while self.error is None and (event := self._events.get()) is not None:
            try:
                event(self.observer)
            except Exception as error:  # noqa: BLE001  # a library's or a server's, whatever it is
                self.error = error


class Observers:
    """Tells all observers of a sweep; each method returns at once, but for `close`."""

    def __init__(self, observers: Sequence[Observer], live: LiveTables, say: Callable[[str], None]) -> None:
        self._live, self._say = live, say
        self._listeners = [_Listener(observer) for observer in observers]
        self._layers: dict[str, tuple[int, Sequence[Row]]] = {}
        self._ending: dict[str, tuple[Plan, Status]] = {}
        self._due_at = 0.0

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        """A trial has finished an epoch."""
        if (plan := self._live.plan(trial_id)) is not None:
            self._tell(lambda observer: observer.epoch(plan, row))

    def analysed(self, trial_id: str, step: int, rows: Sequence[Row]) -> None:
        """A checkpoint has been analysed."""
        if step >= self._layers.get(trial_id, (0, ()))[0]:
            self._layers[trial_id] = step, rows

    def ended(self, trial_id: str) -> None:
        """A trial is finished or has failed for good."""
        if (plan := self._live.plan(trial_id)) is not None:
            self._ending[trial_id] = plan, self._live.status(trial_id)

    def storage(self, seconds: float) -> None:
        """A job of the storage has taken this long."""
        self._tell(lambda observer: observer.storage(seconds))

    def tend(self, analyses_waiting: int, busy_with: Callable[[str], bool], paused: bool) -> None:
        """Tell what is due; `busy_with` says whether a trial waits for analysis."""
        for trial_id in [trial_id for trial_id in self._ending if not busy_with(trial_id)]:
            self._tell_end(trial_id)
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + _STATE_EVERY_S
            state = self._state(analyses_waiting, paused)
            self._tell(lambda observer: observer.state(state))

    def close(self, analyses_waiting: int, paused: bool, error: BaseException | None) -> None:
        """Tell the end, and wait until it has been heard, for half a minute at most."""
        for trial_id in list(self._ending):
            self._tell_end(trial_id)
        state = self._state(analyses_waiting, paused)
        self._tell(lambda observer: observer.closed(state, error))
        for listener in self._listeners:
            listener.tell(None)
        until = time.monotonic() + _LAST_EVENTS_S
        for listener in self._listeners:
            listener.wait(max(0.0, until - time.monotonic()))
        self._drop_failed()

    def _tell_end(self, trial_id: str) -> None:
        plan, status = self._ending.pop(trial_id)
        _, layers = self._layers.pop(trial_id, (0, ()))
        self._tell(lambda observer: observer.ended(plan, status, layers))

    def _tell(self, event: Callable[[Observer], None]) -> None:
        self._drop_failed()
        for listener in self._listeners:
            listener.tell(event)

    def _drop_failed(self) -> None:
        for listener in [listener for listener in self._listeners if listener.error is not None]:
            self._listeners.remove(listener)
            said = " ".join(str(listener.error).split())[:300]
            self._say(f"{listener.observer.name}: {type(listener.error).__name__}: {said}; it hears no more")

    def _state(self, analyses_waiting: int, paused: bool) -> SweepState:
        statuses = self._live.statuses()
        running = frozenset(trial_id for trial_id, status in statuses.items() if status.status == "running")
        return SweepState(self._live.counts(), running, analyses_waiting, paused)


def parameters_of(plan: Plan) -> dict[str, Any]:
    """The fields of a trial's spec by dotted names, such as `recipe.lr`; lists stay lists."""
    return _flat(plan.spec.model_dump(mode="json"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
