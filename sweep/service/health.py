"""What failures have in common: a node on which trials fail in a row, or one cause that would fail a whole grid."""

import time
from collections import defaultdict
from collections.abc import Callable

from sweep.results.words import kind_of

_IN_A_ROW = 3  # failures on a node without a success before it is avoided
_REST_S, _LONGEST_REST_S = 300.0, 3600.0
MOST_ALIKE = 10
"""Trials that may fail for good in the same way, one after another, before a launch stops."""


class Nodes:
    """Which nodes to avoid, and for how long; one is never avoided if no other is left."""

    def __init__(self, say: Callable[[str], None], alive: Callable[[], set[str]]) -> None:
        self._say, self._alive = say, alive
        self._failures: dict[str, list[str]] = defaultdict(list)
        self._until: dict[str, float] = {}
        self._rests: dict[str, float] = {}
        self._excused: set[str] = set()

    @property
    def avoided(self) -> frozenset[str]:
        """The nodes on which no trial should start now."""
        now = time.monotonic()
        return frozenset(node for node, until in self._until.items() if until > now)

    def succeeded(self, node: str | None) -> None:
        """A trial has got on on a node."""
        if node is not None and node in self._failures:
            del self._failures[node]
            self._rests.pop(node, None)

    def suspected(self, node: str | None) -> bool:
        """Whether what has failed on a node is rather tried elsewhere: nothing has got on there since."""
        return node in self._failures and bool(self._alive() - self.avoided - {node})

    def failed(self, node: str | None, trial_id: str) -> list[str]:
        """A trial has failed on a node; returns the trials whose failures are the node's own.

        Whether a node or the only trial that has failed on it is to blame, that trial's next attempts elsewhere show:
        it is excused for one node.
        """
        if node is None or node in self.avoided:
            return [] if node is None else [trial_id]
        self._failures[node].append(trial_id)
        blamed = self._failures[node]
        if len(blamed) < _IN_A_ROW or not self._alive() - self.avoided - {node}:
            return []
        if len(set(blamed)) == 1:
            if trial_id in self._excused:
                return []
            self._excused.add(trial_id)
        rest_s = self._rests[node] = min(2 * self._rests.get(node, _REST_S / 2), _LONGEST_REST_S)
        self._until[node] = time.monotonic() + rest_s
        del self._failures[node]
        avoided = f"it is avoided for {rest_s / 60:.0f} minutes"
        self._say(f"{len(blamed)} attempts in a row have failed on node {node[:8]}: {avoided}")
        return blamed


class Alike:
    """Counts trials that fail for good in the same way, with none finished in between."""

    def __init__(self) -> None:
        self._kind = ""
        self._trials: set[str] = set()

    def finished(self) -> None:
        """A trial has finished."""
        self._trials.clear()

    def failed(self, trial_id: str, error: str) -> bool:
        """A trial has failed for good; True if so many have failed in this way that a grid would."""
        kind = kind_of(error)
        if kind != self._kind:
            self._kind, self._trials = kind, set()
        self._trials.add(trial_id)
        return len(self._trials) >= MOST_ALIKE
