"""A pool of Ray actors that analyse checkpoints as they appear, while training goes on."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from analysis.write import is_outage

if TYPE_CHECKING:  # it loads torch, which the actors need, but not the driver
    from analysis.layers import Choice, Row

_IN_FLIGHT = 2  # per actor: one at work, one waiting, so that no actor waits for the driver
_ATTEMPTS = 2  # a checkpoint that kills two actors would kill a third
_FAILED_STARTS = 3  # in a row, before the pool gives up
_SHARE_OF_CLUSTER = 0.25  # `auto`: what actors reserve at most, so that trials have room
_CPUS_PER_ACTOR = 4  # `auto`, where actors reserve nothing: one actor for this many CPUs
_GROW_EVERY_S = 10.0
_REST_S = 60.0  # of an actor that has met an outage, which may be its node's own: credentials, a broken network


class Analyst:
    """Analyses one checkpoint after another; takes paths, returns small rows."""

    def __init__(self, num_gpus: float) -> None:
        from analysis.layers import best_device

        self._device = best_device() if num_gpus else "cpu"

    def ready(self) -> None:
        """Answers once the actor has a place in the cluster."""

    def analyze(self, model_file: str, out_dir: str, layers: Choice) -> list[Row]:
        from analysis.layers import analyze_checkpoint

        return analyze_checkpoint(model_file, out_dir, layers, self._device)

    def peak_mib(self) -> float:
        """The largest resident memory of this process so far, in MiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Analysed(NamedTuple):
    """A checkpoint that an actor is done with; after an `outage` of the storage, its rows say only that."""

    model_file: str
    rows: list[Row]
    outage: bool = False


@dataclass(frozen=True)
class _Job:
    model_file: str
    out_dir: str
    attempt: int = 1


@dataclass(eq=False)
class _Worker:
    """An actor and how many checkpoints it holds; it gets none before it has a place in the cluster."""

    actor: Any
    starting: Any
    load: int = 0
    rests_until: float = 0.0


class AnalysisPool:
    """Hands checkpoints to actors and never waits for them; only a queue of paths waits.

    `actors`: how many, or `auto`: as many as fit `num_cpus` and `num_gpus` into a quarter of the cluster, or
    one for each 4 CPUs where both are 0, growing with the cluster. An actor with a share of a GPU factorises there.
    A checkpoint whose actor dies is retried once on a new actor, then reported as a row with the error. One that met an
    outage of the storage is reported as such: whoever knows when the storage answers may submit it again. Its actor
    gets nothing more for a minute while others get on. `layers` goes with each checkpoint to the `analyst`, the class
    of the actors.
    """

    def __init__(
        self,
        actors: int | Literal["auto"],
        num_cpus: float,
        num_gpus: float,
        layers: Any = "final",
        analyst: type[Analyst] = Analyst,
    ) -> None:
        self._wanted, self._layers, self._analyst = actors, layers, analyst
        self._num_cpus, self._num_gpus = num_cpus, num_gpus
        self._workers: list[_Worker] = []
        self._queue: deque[_Job] = deque()
        self._running: dict[Any, tuple[_Job, _Worker]] = {}
        self._grow_at = 0.0
        self._failed_starts = 0
        self._grow()

    @property
    def pending(self) -> int:
        """Checkpoints submitted and not reported yet."""
        return len(self._queue) + len(self._running)

    @property
    def actors(self) -> int:
        """Actors started, with a place in the cluster or waiting for one."""
        return len(self._workers)

    def submit(self, model_file: str, out_dir: str) -> None:
        """Submit a checkpoint; of one that already has its results, these are returned."""
        self._queue.append(_Job(model_file, out_dir))
        self._dispatch()

    @property
    def placed(self) -> int:
        """Actors with a place in the cluster."""
        return sum(worker.starting is None for worker in self._workers)

    def holds(self, model_file: str) -> bool:
        """Whether a checkpoint is submitted and not reported yet."""
        jobs = [*self._queue, *(job for job, _ in self._running.values())]
        return any(job.model_file == model_file for job in jobs)

    def poll(self, timeout_s: float = 0.0) -> list[Analysed]:
        """The checkpoints finished since the last call; waits for one at most `timeout_s`."""
        return self._collect(timeout_s)

    def drain(self, on_done: Callable[[str, list[Row]], None]) -> None:
        """Wait for all submitted checkpoints, reporting each as it finishes."""
        while self.pending:
            for done in self._collect(timeout_s=1.0):
                on_done(done.model_file, done.rows)

    def peaks_mib(self) -> list[float]:
        """The largest resident memory of each actor so far; waits until they are free."""
        return ray.get([worker.actor.peak_mib.remote() for worker in self._workers])

    def close(self) -> None:
        """Stop the actors; the next launch does what they have not finished."""
        for worker in self._workers:
            ray.kill(worker.actor)

    def _grow(self) -> None:
        """Start the actors that are missing; for `auto`, look at the cluster now and then."""
        if time.monotonic() < self._grow_at:
            return
        wanted = self._wanted
        if wanted == "auto":
            wanted = _fitting(ray.cluster_resources(), self._num_cpus, self._num_gpus)
            self._grow_at = time.monotonic() + _GROW_EVERY_S
        self._workers += [self._start() for _ in range(wanted - len(self._workers))]

    def _start(self) -> _Worker:
        shares = {"num_cpus": self._num_cpus, "num_gpus": self._num_gpus}
        actor = ray.remote(self._analyst).options(**shares, scheduling_strategy="SPREAD").remote(self._num_gpus)
        return _Worker(actor, starting=actor.ready.remote())

    def _dispatch(self) -> None:
        while self._queue:
            free = self._free()
            if not free:
                return
            worker = min(free, key=lambda worker: worker.load)
            job = self._queue.popleft()
            reference = worker.actor.analyze.remote(job.model_file, job.out_dir, self._layers)
            self._running[reference] = (job, worker)
            worker.load += 1

    def _free(self) -> list[_Worker]:
        """Actors that can take a checkpoint; those that have met an outage lately only if all have."""
        placed = [worker for worker in self._workers if worker.starting is None]
        well = [worker for worker in placed if worker.rests_until <= time.monotonic()]
        return [worker for worker in well or placed if worker.load < _IN_FLIGHT]

    def _collect(self, timeout_s: float) -> list[Analysed]:
        self._grow()
        starting = {worker.starting: worker for worker in self._workers if worker.starting is not None}
        references = [*starting, *self._running]
        if not references:
            return []
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0) if ready else (ready, [])
        done: list[Analysed] = []
        for reference in ready:
            if reference in starting:
                self._started(starting[reference])
            else:
                done += self._finished(reference)
        self._dispatch()
        return done

    def _started(self, worker: _Worker) -> None:
        reference, worker.starting = worker.starting, None
        try:
            ray.get(reference)
            self._failed_starts = 0
        except RayActorError:  # its node went away, or it can't be started anywhere
            self._failed_starts += 1
            if self._failed_starts > _FAILED_STARTS:
                raise
            self._replace(worker)

    def _finished(self, reference: Any) -> list[Analysed]:
        job, worker = self._running.pop(reference)
        worker.load -= 1
        try:
            return [Analysed(job.model_file, ray.get(reference))]
        except RayError as error:
            if isinstance(error, RayActorError):
                self._replace(worker)
                if job.attempt < _ATTEMPTS:
                    self._queue.appendleft(_Job(job.model_file, job.out_dir, job.attempt + 1))
                    return []
            from analysis.layers import failed_row

            outage = isinstance(error, RayTaskError) and is_outage(error.cause)
            worker.rests_until = time.monotonic() + _REST_S if outage else worker.rests_until
            return [Analysed(job.model_file, [failed_row("", 1, error)], outage)]

    def _replace(self, worker: _Worker) -> None:
        """Start a new actor unless another job of the dead one has already done so."""
        if worker in self._workers:
            self._workers.remove(worker)
            ray.kill(worker.actor)
            self._workers.append(self._start())


def _fitting(resources: dict[str, float], num_cpus: float, num_gpus: float) -> int:
    """How many actors with these shares fit into a quarter of a cluster, the rest being the trials'; at least one."""
    if not num_cpus and not num_gpus:
        return max(1, int(resources.get("CPU", 0)) // _CPUS_PER_ACTOR)
    shares = [(resources.get("CPU", 0.0), num_cpus), (resources.get("GPU", 0.0), num_gpus)]
    return max(1, min(int(total * _SHARE_OF_CLUSTER / share) for total, share in shares if share))
