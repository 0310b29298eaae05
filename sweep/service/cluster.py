"""Where a launch runs: a Ray cluster, or one started on this machine for it."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sweep.results.words import count

MAX_FAILURES = 3


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where and how a launch runs: a Ray address (None: a local cluster) and how often a trial may fail and go on."""

    address: str | None = None
    max_failures: int = MAX_FAILURES


_PATIENCE_S = 60.0  # without anything that runs, before the user is told what waits for what
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about the user's work leaves the cluster
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its CSV, JSON and TensorBoard files would be thrown away
    "TUNE_MAX_PENDING_TRIALS_PG": "16",  # trials that wait for resources at a time: an autoscaler sees how far to grow
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a grid mean the same in a trial as where it was launched
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else each worker warns; RayTrial hides GPUs itself
}
"""What Ray and Tune read when they start; the user's own values win."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start a local one for the time of the block.

    Raises:
        ValueError: no cluster answers at the address.
    """
    import ray  # takes a second; a resume with nothing to do gets by without it

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": 128 * 2**20}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at --address {address}: {error}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself
    try:
        yield
    finally:
        ray.shutdown()


class Patience:
    """Tells the user once what waits for what, after a minute in which nothing ran."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since: float | None = None
        self._told = False

    def renew(self) -> None:
        """Something runs."""
        self._since = None

    def spend(self, said: str) -> None:
        """Nothing runs, for the reason said."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= _PATIENCE_S and not self._told:
            self._told = True
            self._say(f"{said}; the cluster has {_size_of_cluster()}")


def in_words(cpus: float, gpus: float) -> str:
    """Resources in words: `2 CPUs and 0.5 GPUs`."""
    return count(cpus, "CPU") + (f" and {count(gpus, 'GPU')}" if gpus else "")


def _size_of_cluster() -> str:
    import ray

    has = ray.cluster_resources()
    return in_words(has.get("CPU", 0), has.get("GPU", 0))
