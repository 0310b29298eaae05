"""Messages about failures, pauses and the end of a sweep, through apprise: mail, chat, a URL of one's own."""

import time
from collections.abc import Callable, Sequence
from typing import get_args

from sweep.results.tables import Row
from sweep.results.words import count
from sweep.service.observers import Observer, SweepState
from sweep.service.trackers import require_library
from sweep.spec import Plan
from sweep.store.trial_dir import State, Status

_EVERY_S = 60.0
_MOST_LINES = 10
_MOST_ATTEMPTS = 10  # in a row without a message delivered; then the service is given up

Send = Callable[[str, str], bool]
"""Delivers a title and a text; False if that failed."""


class Notifier(Observer):
    """Sends to one service, at most a message a minute: what happened in between comes in the next one."""

    def __init__(self, sweep: str, service: str, send: Send) -> None:
        self.name = f"--notify {service}"
        self._sweep, self._send = sweep, send
        self._lines: list[str] = []
        self._paused = False
        self._due_at = 0.0
        self._attempts = 0

    def ended(self, plan: Plan, status: Status, layers: Sequence[Row]) -> None:
        if status.status == "failed":
            self._lines.append(f"{plan.trial_id}: failed ({status.error})")
            self._send_if_due()

    def state(self, state: SweepState) -> None:
        if state.paused != self._paused:
            self._paused = state.paused
            self._lines.append("paused: the storage is unavailable" if state.paused else "continues")
        self._send_if_due()

    def closed(self, state: SweepState, error: BaseException | None) -> None:
        trials = ", ".join(f"{state.trials[name]} {name}" for name in get_args(State) if state.trials.get(name))
        why = "" if error is None else f": {type(error).__name__} {error}".rstrip()
        self._lines.insert(0, f"{trials or 'no trials'}{why}")
        self._deliver(f"sweep {self._sweep} has ended")
        if self._lines:
            raise ConnectionError("the last message could not be delivered")

    def _send_if_due(self) -> None:
        if self._lines and time.monotonic() >= self._due_at:
            self._deliver(f"sweep {self._sweep}")

    def _deliver(self, title: str) -> None:
        """Send what there is to say; what can't be delivered is kept for the next message."""
        self._due_at = time.monotonic() + _EVERY_S
        shown, more = self._lines[:_MOST_LINES], len(self._lines) - _MOST_LINES
        text = "\n".join([*shown, f"and {count(more, 'line')} more"] if more > 0 else shown)
        if self._send(title, text):
            self._lines.clear()
            self._attempts = 0
            return
        self._attempts += 1
        if self._attempts >= _MOST_ATTEMPTS:
            raise ConnectionError(f"{count(self._attempts, 'message')} in a row could not be delivered")


def notifier(url: str) -> Callable[[str], Observer]:
    """What makes a notifier for a sweep's name, from a URL of apprise.

    Raises:
        ValueError: apprise can't use the URL, or is not installed.
    """
    require_library("--notify", "apprise")
    import apprise

    service = url.partition("://")[0]  # the rest may hold a password
    target = apprise.Apprise()
    if not target.add(url):
        raise ValueError(
            f"--notify {service}://...: apprise can't use this URL; its services: https://github.com/caronc/apprise"
        )

    def send(title: str, text: str) -> bool:
        return bool(target.notify(title=title, body=text))

    return lambda sweep: Notifier(sweep, service, send)
