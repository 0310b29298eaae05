"""Data where the trials are: what a node lacks is fetched to it in a task of its own, while no GPU is reserved.

A trial that starts on a node without its data gives its place back at once. It is handed out again when the data is
there, and from then on trials prefer the nodes that have it. Where fetching didn't help, the trial tries by itself on
that node, and says in its own words what is wrong.
"""

import inspect
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from upath import UPath

from sweep.service.failures import died_of
from sweep.service.preemption import DrainNotice
from sweep.service.queue import Task, resources_of
from sweep.store.files import STORAGE_ERRORS
from sweep.store.trial_dir import TrialDir

_TELL_EVERY_S = 5.0
_TRY_ELSEWHERE_S = 30.0  # before a trial that other nodes could run may land on a fetching one again
_TARGET, _NODE_ID = "_soft_target_node_id", "ray.io/node-id"


class Placing:
    """Which nodes have which data, and what is being fetched where."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._homes: dict[str, set[str]] = {}
        self._running: dict[Any, tuple[str, str]] = {}
        self._waiting: dict[tuple[str, str], list[Task]] = {}
        self._sent: Counter[str] = Counter()

    def aimed(self, task: Task) -> Task:
        """A worker's task with the node to run on: of those that have its data, the one with the fewest workers."""
        homes = self._living_homes(task["data_key"])
        if not homes:
            return task | {"node": None}
        node = min(sorted(homes), key=self._sent.__getitem__)
        self._sent[node] += 1
        return task | {"node": node}

    def left(self, task: Task) -> None:
        """A worker has left the node it was meant for."""
        if task.get("node") is not None:
            self._sent[task["node"]] -= 1

    def missing(self, task: Task, node: str) -> float | None:
        """Fetch a trial's data to a node that lacks it.

        Returns the delay after which the trial may be handed out again, if another node could run it meanwhile; else
        None: it waits for the fetch.
        """
        place = (task["data_key"], node)
        if place not in self._waiting:
            self._waiting[place] = []
            if node not in self._homes.get(task["data_key"], ()):  # else it has arrived since the trial looked
                self._say(f"fetching {task['data_key']} to node {node[:8]}, which lacks it")
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            fetch = ray.remote(_fetch).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            self._running[fetch.remote(task)] = place
        elif self._living_homes(task["data_key"]) - {node}:
            return _TRY_ELSEWHERE_S
        self._waiting[place].append(task)
        return None

    def arrived(self) -> list[Task]:
        """Trials whose fetch has ended; where it failed, they try by themselves and say why."""
        if not self._running:
            return []
        ready: list[Task] = []
        done, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        for reference in done:
            key, node = place = self._running.pop(reference)
            tasks = self._waiting.pop(place)
            try:
                ray.get(reference)
                self._homes.setdefault(key, set()).add(node)
            except Exception as error:  # noqa: BLE001  # the task's own, or that its node is gone
                self._say(f"fetching {key} to node {node[:8]} failed: {died_of(str(error))}")
            ready += [task | {"fetched_to": node} for task in tasks]
        return ready

    def close(self) -> None:
        """Stop fetching; what has been fetched is kept."""
        for reference in self._running:
            ray.cancel(reference, force=False)
        self._running.clear()

    def _living_homes(self, key: str) -> set[str]:
        homes = self._homes.get(key, set())
        return homes & {node["NodeID"] for node in ray.nodes() if node["Alive"]} if homes else set()


def lacks_data(task: Task, trial: TrialDir) -> bool:
    """Whether a trial must wait until its data has been fetched to this node."""
    if task["root"] is None or task.get("fetched_to") == ray.get_runtime_context().get_node_id():
        return False
    from sweep.data.prepare import is_placed  # imports torch

    return not is_placed(trial.plan().spec.data)


def place_of(task: Task) -> dict[str, Any]:
    """What makes a placement group prefer the node that a task is aimed at, and keep off those it avoids.

    The first is left out where this version of Ray can't do it: its argument is private, since Ray has no public way to
    prefer a node for a placement group (2.60).
    """
    node, avoided = task.get("node"), task.get("avoided")
    can_prefer = _TARGET in inspect.signature(placement_group).parameters
    there: dict[str, Any] = {_TARGET: node} if node and can_prefer else {}
    if avoided:
        others = {_NODE_ID: f"!in({','.join(sorted(avoided))})"}
        there["bundle_label_selector"] = [others] * resources_of(task).processes
    return there


def _fetch(task: Task) -> None:
    """Fetch a trial's data to this node; the trial's status says how far it is."""
    from sweep.data.prepare import fetch

    with suppress(OSError):  # as its trial does: SWEEP_CACHE may be a relative path
        os.chdir(task["cwd"])
    trial = TrialDir(UPath(task["sweep"]) / "trials" / task["trial_id"])
    fetch(trial.plan().spec.data, task["root"], _Teller(trial), DrainNotice())


class _Teller:
    """Writes the progress of a fetch into a trial's status, now and then."""

    def __init__(self, trial: TrialDir) -> None:
        self._trial, self._next = trial, 0.0

    def __call__(self, done: int, total: int, unit: str) -> None:
        from sweep.data.prepare import in_words

        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _TELL_EVERY_S
        said = f"{in_words(done, total, unit)} on {socket.gethostname()}"
        try:
            status = self._trial.status()
            if status.status == "pending":
                self._trial.write_status(replace(status, reason=said, heartbeat_at=time.time()))
        except STORAGE_ERRORS:  # the data may still arrive
            return
