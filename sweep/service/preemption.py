"""Whether a trial's machine is about to go away: it got SIGTERM, or Ray is draining its node."""

import signal
import time
from functools import cache
from types import FrameType

import ray

from sweep.store.log import logger

_LOOK_EVERY_S = 2.0


class DrainNotice:
    """Whether this node is about to go; called often, it asks Ray every two seconds."""

    def __init__(self) -> None:
        self.told = False
        self._look_at = 0.0
        self._node_id = ray.get_runtime_context().get_node_id()

    def __call__(self) -> bool:
        if not self.told and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY_S
            self.told = is_draining(self._node_id)
        return self.told


class PreemptionNotice:
    """Whether this process must stop, by SIGTERM or since its node is drained; called after each step."""

    def __init__(self) -> None:
        self._told = False
        self._drained = DrainNotice()
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)

    def __call__(self, step: int) -> bool:
        return self._told or self._drained()

    @property
    def told(self) -> bool:
        """Whether it is known already, without asking Ray."""
        return self._told or self._drained.told

    def close(self) -> None:
        """Restore Ray's signal handler."""
        signal.signal(signal.SIGTERM, self._before)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._told = True


def is_draining(node_id: str) -> bool:
    """Whether Ray is draining a node; False, and logged once, if this version of Ray can't say.

    The function is private: Ray has no public one (2.60). Ray Train's own preemption watcher uses it too.
    """
    try:
        return node_id in ray._private.state.state.get_draining_nodes()
    except (AttributeError, ImportError) as error:
        _tell_once(str(error))
        return False


@cache
def _tell_once(error: str) -> None:
    logger.info(
        f"Ray {ray.__version__} does not say which nodes it drains ({error}); only SIGTERM announces a preemption"
    )
