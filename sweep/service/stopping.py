"""Tell trials to save and stop, wherever they run."""

import os
import signal
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def save_and_stop(processes: Iterable[tuple[str | None, int | None]]) -> None:
    """Send processes, each given as its node and id, the signal at which a trial saves and stops; doesn't wait."""
    on: dict[str, list[int]] = defaultdict(list)
    for node, process in processes:
        if node is not None and process is not None:
            on[node].append(process)
    for node, ids in on.items():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        ray.remote(_terminate).options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(ids)


def _terminate(processes: list[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(process, signal.SIGTERM)
