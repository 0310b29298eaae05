"""What takes the storage's time, in threads of its own, so that the loop that schedules trials never waits for it."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sweep.store.files import is_outage

T = TypeVar("T")
_AGAIN_S = 5.0  # after an outage
_THREADS = 4
_ENDED_S = 60.0  # that the last jobs of a driver may take while the storage is away


def _nothing_more(_: object) -> None:
    """Nothing is to be done then."""


@dataclass(eq=False)
class _Job:
    """What to do, and what to do then with what it returns, back in the loop."""

    what: Callable[[], Any]
    then: Callable[[Any], None]
    every_s: float | None = None
    share: float = 1.0
    due_at: float = 0.0
    running: Future[Any] | None = None
    began_at: float = 0.0
    took_s: float = 0.0

    def run(self) -> Any:
        began = time.perf_counter()
        try:
            return self.what()
        finally:
            self.took_s = time.perf_counter() - began


class Clerk:
    """Does jobs that read or write the storage; those that find it unavailable are done again until it answers.

    All methods are for one thread, in which the jobs' results arrive too. `took` hears the seconds of each job.
    """

    def __init__(self, say: Callable[[str], None], took: Callable[[float], None] = lambda _: None) -> None:
        self._say, self._took = say, took
        self._jobs: list[_Job] = []
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="clerk")
        self._failing: set[_Job] = set()

    @property
    def away(self) -> bool:
        """Whether the storage is unavailable: something that failed has not been done since."""
        return bool(self._failing)

    def do(self, what: Callable[[], T], then: Callable[[T], None] = _nothing_more) -> None:
        """Do something once, and then what is to be done with what it returns."""
        self._jobs.append(_Job(what, then))
        self.tend()

    def every(self, seconds: float, what: Callable[[], T], then: Callable[[T], None], share: float = 1.0) -> None:
        """Do something again and again, so often that it takes at most a share of the time."""
        self._jobs.append(_Job(what, then, seconds, share))

    def tend(self) -> None:
        """Begin what is due and hand over what is done."""
        now = time.monotonic()
        for job in list(self._jobs):
            if job.running is not None and job.running.done():
                self._ended(job, job.running, now)
            if job.running is None and now >= job.due_at and job in self._jobs:
                job.began_at = now
                job.running = self._pool.submit(job.run)

    def close(self) -> None:
        """Finish what was to be done once; gives up on a storage that stays away."""
        until = time.monotonic() + _ENDED_S
        for job in self._jobs:
            job.due_at = job.due_at if job.every_s is None else until
        while any(job.every_s is None or job.running for job in self._jobs) and time.monotonic() < until:
            self.tend()
            time.sleep(0.01)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ended(self, job: _Job, running: Future[Any], now: float) -> None:
        job.running = None
        self._took(job.took_s)
        try:
            found = running.result()
        except Exception as error:
            if not is_outage(error):
                self._jobs.remove(job)
                raise
            job.due_at = now + _AGAIN_S
            if not self.away:
                self._say(f"the storage is unavailable: {error}; no trial starts until it answers")
            self._failing.add(job)
            return
        if job in self._failing:
            self._failing.remove(job)
            if not self.away:
                self._say("the storage answers again")
        if job.every_s is None:
            self._jobs.remove(job)
        else:
            job.due_at = now + max(job.every_s, (now - job.began_at) / job.share)
        job.then(found)
