"""A process that trains one trial after another, which Ray Tune starts, places and watches as one of its trials.

It reports what has happened to its trials about once a second, however short they are, and is given further ones in
between. Each of them finds the process as the first one did (sweep.service.isolation). A trial that fails is the last
one of its process; so is one that is interrupted.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any, Literal, TypedDict

import ray
from ray import tune
from upath import UPath

from sweep.service.cluster import bundle_of
from sweep.service.isolation import Surroundings
from sweep.service.placing import lacks_data, place_of
from sweep.service.preemption import PreemptionNotice
from sweep.service.queue import Task, resources_of
from sweep.store.files import is_outage
from sweep.store.manifest import EpochRow
from sweep.store.trial_dir import Status, TrialDir

_REPORT_EVERY_S = 1.0
_IDLE_S = 0.05

End = Literal["finished", "failed", "preempted", "superseded", "lacks data"]


class Event(TypedDict, total=False):
    """What has happened to a trial: a status that it has taken on, an epoch's end, or its end in this process.

    `rows` are the first ones that an attempt has, those of an earlier one among them, which may have told nobody.
    `kept` is the folder of a checkpoint to analyse. Of a failure, `error` is a line, `traceback` the whole, `final`
    says that a retry would fail too, and `storage` that the storage has failed.
    """

    trial_id: str
    status: Status
    row: EpochRow
    rows: list[EpochRow]
    kept: str | None
    end: End
    error: str
    traceback: str
    final: bool
    storage: bool


class TrialWorker(tune.Trainable):
    """Trains the trials that it is given; a step lasts until there is something to report."""

    def setup(self, config: dict[str, Any]) -> None:
        task = config["task"]
        with suppress(OSError):  # another machine may not have the folder; paths that matter are absolute
            os.chdir(task["cwd"])
        if not task["gpus"]:  # Ray hides no GPU from a trial that reserves none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""

        import_module("sweep.training.trial")  # takes seconds, and is part of what each trial finds
        self._notice = PreemptionNotice()
        self._surroundings = Surroundings()
        self._node = ray.get_runtime_context().get_node_id()
        self._given: deque[Task] = deque()
        self._no_more = False
        self._known = False
        self._events: list[Event] = []
        self._task: Task | None = None
        self._epochs: Iterator[tuple[EpochRow, UPath | None]] | None = None

    def give(self, tasks: list[Task], no_more: bool) -> None:
        """Take on further trials; Tune runs this between two steps."""
        self._given.extend(tasks)
        self._no_more = no_more

    def give_back(self) -> list[str]:
        """Return the trials that have not begun, which are the driver's again."""
        dropped = [task["trial_id"] for task in self._given]
        self._given.clear()
        return dropped

    def go_home(self) -> list[str]:
        """End with the trial at work; returns the others."""
        self._no_more = True
        return self.give_back()

    def step(self) -> dict[str, Any]:
        """What has happened since the last step; `done` if this process can't or need not go on."""
        until = time.monotonic() + _REPORT_EVERY_S
        done = False
        while not done and self._known:
            if self._epochs is not None:
                done = self._advance()
            elif self._notice.told or (not self._given and self._no_more):
                done = True
            elif self._given:
                done = self._begin(self._given.popleft())
            else:
                time.sleep(_IDLE_S)
                break
            if time.monotonic() >= until:
                break
        self._known = True  # the first report only says where this process is, so that it can be told to stop
        events, self._events = self._events, []
        return {"events": events, "node": self._node, "process": os.getpid(), "done": done}

    def cleanup(self) -> None:
        """Tune stops the process; what its trial has saved is kept."""
        self._notice.close()
        if self._epochs is not None:
            self._epochs.close()  # type: ignore[attr-defined]  # a generator

    def _begin(self, task: Task) -> bool:
        trial = TrialDir(UPath(task["sweep"]) / "trials" / task["trial_id"])
        self._task = task
        try:
            if lacks_data(task, trial):
                return self._ended("lacks data")
            self._epochs = self._course(task, trial)
        except Exception as error:  # noqa: BLE001  # the trial's own, whatever it is
            return self._failed(error)
        return False

    def _advance(self) -> bool:
        """Train an epoch; returns whether the process must end."""
        from sweep.training.train import StoppedError
        from sweep.training.trial import SupersededError

        assert self._task is not None
        assert self._epochs is not None
        try:
            row, kept = next(self._epochs)
        except StopIteration:
            return self._ended("finished") or self._spoilt()
        except StoppedError:
            return self._ended("preempted")
        except SupersededError:
            return self._ended("superseded")
        except Exception as error:  # noqa: BLE001  # the trial's own, whatever it is
            return self._failed(error)
        kept_in = None if kept is None else str(kept)
        self._events.append({"trial_id": self._task["trial_id"], "row": row, "kept": kept_in})
        return False

    def _spoilt(self) -> bool:
        """Make the process as it was before the trial; True if that is not possible."""
        return self._task is not None and not self._surroundings.restored()

    def _ended(self, how: End, **facts: Any) -> bool:
        """Report a trial's end; True if it is the last one of this process."""
        assert self._task is not None
        self._events.append({"trial_id": self._task["trial_id"], "end": how, **facts})  # type: ignore[typeddict-item]
        self._epochs = None
        return how != "finished"

    def _failed(self, error: Exception) -> bool:
        import traceback

        from sweep.training.trial import is_certain, summary

        return self._ended(
            "failed",
            error=summary(error),
            traceback="".join(traceback.format_exception(error)),
            final=is_certain(error),
            storage=is_outage(error),
        )

    def _course(self, task: Task, trial: TrialDir) -> Iterator[tuple[EpochRow, UPath | None]]:
        """A trial's epochs; on several GPUs, together with the processes of the others."""
        from sweep.service.followers import following
        from sweep.training.ranks import ALONE
        from sweep.training.trial import trial_course

        resources = resources_of(task)
        threads, save_every_s = resources.cpus_per_process, resources.save_every_s
        with following(task, trial) if resources.processes > 1 else nullcontext(ALONE) as ranks:
            yield from trial_course(
                trial, task["root"], threads, self._notice, save_every_s, ranks, self._tell, self._tell_rows
            )

    def _tell(self, status: Status) -> None:
        """Report a status; of several between two reports, the last."""
        assert self._task is not None
        trial_id = self._task["trial_id"]
        last = self._events[-1] if self._events else {}
        if last.get("trial_id") == trial_id and "status" in last:
            self._events.pop()
        self._events.append({"trial_id": trial_id, "status": status})

    def _tell_rows(self, rows: list[EpochRow]) -> None:
        assert self._task is not None
        self._events.append({"trial_id": self._task["trial_id"], "rows": rows})


def bundle(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray reserves for a worker: a bundle for each of its processes, all on one node."""
    resources = resources_of(config["task"])
    bundles = [bundle_of(resources)] * resources.processes
    return tune.PlacementGroupFactory(bundles, strategy="STRICT_PACK", **place_of(config["task"]))
