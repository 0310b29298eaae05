"""A pool of Ray actors that analyse checkpoints as they appear, beside the training that makes them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from upath import UPath

from analysis.layers import RESULTS, Row, analyze_checkpoint, failed_row

_IN_FLIGHT = 2  # per actor: one at work, one waiting, so that no actor waits for the driver
_ATTEMPTS = 2


class Analyst:
    """Analyses one checkpoint after another; takes paths, gives small rows."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def analyze(self, model_file: str, out_dir: str) -> list[Row]:
        return analyze_checkpoint(model_file, out_dir)


@dataclass(frozen=True)
class _Job:
    model_file: str
    out_dir: str
    attempt: int = 1


class AnalysisPool:
    """Hands checkpoints to actors without ever waiting for them.

    A checkpoint whose actor dies is tried once more on a new actor, then reported as a row with the error.
    """

    def __init__(self, actors: int, num_cpus: float, num_gpus: float) -> None:
        self._options = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._actors = [self._start() for _ in range(actors)]
        self._queue: deque[_Job] = deque()
        self._running: dict[Any, tuple[_Job, int]] = {}
        self._load = [0] * actors

    @property
    def pending(self) -> int:
        """Checkpoints handed over and not reported yet."""
        return len(self._queue) + len(self._running)

    def submit(self, model_file: str, out_dir: str) -> None:
        """Hand over a checkpoint; one that has its results already is left out."""
        if not (UPath(out_dir) / RESULTS).exists():
            self._queue.append(_Job(model_file, out_dir))
            self._dispatch()

    def poll(self) -> list[tuple[str, list[Row]]]:
        """The checkpoints finished since the last call, each with its rows; returns at once."""
        return self._collect(timeout_s=0.0)

    def drain(self, on_done: Callable[[str, list[Row]], None]) -> None:
        """Wait for all checkpoints handed over, telling of each as it finishes."""
        while self.pending:
            for model_file, rows in self._collect(timeout_s=1.0):
                on_done(model_file, rows)

    def close(self) -> None:
        """Stop the actors; what they have not finished is done by the next launch."""
        for actor in self._actors:
            ray.kill(actor)

    def _start(self) -> Any:
        return ray.remote(Analyst).options(**self._options).remote()

    def _dispatch(self) -> None:
        while self._queue and min(self._load) < _IN_FLIGHT:
            index = self._load.index(min(self._load))
            job = self._queue.popleft()
            reference = self._actors[index].analyze.remote(job.model_file, job.out_dir)
            self._running[reference] = (job, index)
            self._load[index] += 1

    def _collect(self, timeout_s: float) -> list[tuple[str, list[Row]]]:
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=timeout_s)
        done = []
        for reference in ready:
            job, index = self._running.pop(reference)
            self._load[index] -= 1
            try:
                done.append((job.model_file, ray.get(reference)))
            except RayError as error:
                done += self._failed(job, index, error)
        self._dispatch()
        return done

    def _failed(self, job: _Job, index: int, error: RayError) -> list[tuple[str, list[Row]]]:
        self._replace(index)
        if job.attempt < _ATTEMPTS:
            self._queue.appendleft(_Job(job.model_file, job.out_dir, job.attempt + 1))
            return []
        return [(job.model_file, [failed_row("", 1, error)])]

    def _replace(self, index: int) -> None:
        """Start a new actor unless another job of the dead one has done so already."""
        ray.kill(self._actors[index])
        self._actors[index] = self._start()
