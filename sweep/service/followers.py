"""The other processes of a trial on several GPUs: one Ray actor for each, in the trial's own placement group."""

import os
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from upath import UPath

from sweep.service.failures import died_of
from sweep.service.queue import Task, resources_of
from sweep.store.trial_dir import TrialDir
from sweep.training.train import StoppedError

_CAUSE_S = 10.0  # by then Ray has noticed that a process died, on a busy machine too


@contextmanager
def following(task: Task, trial: TrialDir) -> Iterator[Any]:
    """Start a trial's other processes and join them; yields this process's rank, the first.

    If one of them dies, the trial has failed: its status says so and this process ends, since nothing else ends its
    waiting for the others.
    """
    from sweep.training.ranks import joined

    resources = resources_of(task)
    size = resources.processes
    place = get_current_placement_group()
    others = [
        Follower.options(  # type: ignore[attr-defined]
            num_cpus=resources.cpus_per_process,
            num_gpus=1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(place, rank),
        ).remote()
        for rank in range(1, size)
    ]
    ended, watching = threading.Event(), None
    try:
        devices = [*_own_gpus(), *(gpu for gpus in ray.get([other.gpus.remote() for other in others]) for gpu in gpus)]
        address = f"127.0.0.1:{_free_port()}"  # all bundles are on one node
        running = {other.run.remote(task, devices, rank, address): rank for rank, other in enumerate(others, 1)}
        watching = threading.Thread(target=_watch, args=(running, trial, ended), daemon=True)
        watching.start()
        _use_gpu(devices, 0)
        with joined(0, size, address) as ranks:
            yield ranks
    except StoppedError:
        raise
    except Exception:
        if watching is not None:
            watching.join(_CAUSE_S)  # if another process died first, that is the cause, and this one ends here
        raise
    finally:
        ended.set()
        for other in others:
            ray.kill(other)


@ray.remote
class Follower:
    """One process of a trial, on one GPU."""

    def gpus(self) -> list[str]:
        """The ids of its GPUs on its node."""
        return _own_gpus()

    def run(self, task: Task, devices: list[str], rank: int, address: str) -> None:
        """Train until the trial ends or is stopped."""
        from sweep.training.ranks import joined
        from sweep.training.trial import follow

        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first process hears it too, and they stop together
        _use_gpu(devices, rank)
        trial = TrialDir(UPath(task["sweep"]) / "trials" / task["trial_id"])
        resources = resources_of(task)
        with joined(rank, resources.processes, address) as ranks:
            follow(trial, task["root"], resources.cpus_per_process, resources.save_every_s, ranks)


def _own_gpus() -> list[str]:
    return [str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids()["GPU"]]


def _use_gpu(devices: list[str], rank: int) -> None:
    """Choose this process's GPU among those of the trial; all must be visible for one to read another's memory."""
    import torch

    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _watch(running: dict[Any, int], trial: TrialDir, ended: threading.Event) -> None:
    """Wait until the other processes end; the first one that fails by itself ends this one."""
    waiting = list(running)
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            ray.get(done)
        except Exception as error:  # noqa: BLE001  # whatever it raised, or that it died
            if ended.is_set():
                return  # they were ended
            said = "".join(traceback.format_exception(error))
            reason = f"the process of its GPU {running[done[0]]} failed: {died_of(said)}"
            try:
                trial.write_error(said)
                trial.write_status(replace(trial.status(), status="failed", error=reason))
            finally:
                os._exit(1)
