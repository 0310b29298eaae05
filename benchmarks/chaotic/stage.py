"""Where the faults strike: a Ray cluster of a head without CPUs and two workers, and the drivers of one sweep on it."""

import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from benchmarks.chaotic.storages import MIB, MissError, Storage
from sweep.store.files import files_below
from sweep.store.lease import holder
from sweep.store.manifest import MANIFEST, TRAINING, by_step
from sweep.store.trial_dir import Status, TrialDir

SWEEP = [sys.executable, "-m", "sweep.cli"]
WAIT_S = 60.0
_MOST_KILLS = 2  # of one trial under one driver: more than `--max-failures` would be the trial's failure
_GIVEN_UP = re.compile(r"^trial \d+/\d+ (\S+): (?!finished|excluded)(.+)", re.MULTILINE)


@dataclass
class Driver:
    """A driver's process, what it prints, and whether it ended because of a fault."""

    process: subprocess.Popen[bytes]
    log: Path
    struck: bool = False

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def said(self, since: int = 0) -> str:
        """What it has printed, without its first characters."""
        return self.log.read_text(errors="replace")[since:]


class Stage:
    """The cluster, the sweep's drivers so far, and what is known of its trials."""

    def __init__(self, work: Path, storage: Storage, arguments: list[str], seed: int) -> None:
        self.rng = random.Random(seed)
        self.storage, self.sweep = storage, storage.sweep
        self.kills = work / "kills"
        self.kills.mkdir()
        os.environ["CHAOS_KILLS"] = str(self.kills)
        everywhere = str(Path(__file__).with_name("everywhere"))
        os.environ["PYTHONPATH"] = os.pathsep.join([everywhere, os.environ.get("PYTHONPATH", "")])
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 90 * MIB}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers = [self.add_node() for _ in range(2)]
        self.drivers: list[Driver] = []
        self.unexpected: list[str] = []
        """What a fault has found that should not be."""
        self._work, self._arguments = work, arguments
        self._killed: Counter[str] = Counter()

    @property
    def driver(self) -> Driver:
        """The newest one."""
        return self.drivers[-1]

    @property
    def complete(self) -> bool:
        """Whether the driver has ended with everything finished."""
        return bool(self.drivers) and self.driver.code == 0

    def drive(self) -> None:
        """Make sure that a driver runs, unless everything is complete."""
        if not self.drivers or (not self.driver.runs and not self.complete):
            self.start_driver()

    def start_driver(self, **environment: str) -> Driver:
        command = ["resume", "demo"] if self.drivers else ["launch", "demo", *self._arguments]
        command += ["--storage", self.storage.url, "--address", self.cluster.address]
        log = self._work / f"driver-{len(self.drivers)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*SWEEP, *command], stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment
            )
        self.drivers.append(Driver(process, log))
        self._killed.clear()
        return self.driver

    def running_driver(self) -> Driver:
        """The driver, if it is at work.

        Raises:
            MissError: it isn't.
        """
        if not self.drivers or not self.driver.runs or (held := holder(self.sweep.path)) is None:
            raise MissError("no driver is at work")
        if held.pid != self.driver.process.pid:
            raise MissError("the driver has not begun")
        return self.driver

    def kill_driver(self) -> str:
        driver = self.running_driver()
        driver.struck = True
        driver.process.kill()
        driver.process.wait()
        return f"process {driver.process.pid}"

    def add_node(self, **environment: str) -> Any:
        """A worker node with one CPU, whose processes have this in their environment."""
        return self.cluster.add_node(num_cpus=1, object_store_memory=90 * MIB, env_vars=environment or None)

    def take_node(self) -> Any:
        """One of the two worker nodes, which is no longer counted as one."""
        return self.workers.pop(self.rng.randrange(len(self.workers)))

    def replace_node(self, node: Any, **environment: str) -> Any:
        """Kill a node and start another."""
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.append(self.add_node(**environment))
        return self.workers[-1]

    def progress(self) -> dict[str, int]:
        """How far each trial is; changes when one makes progress."""
        newest: dict[str, int] = {}
        for name in files_below(self.sweep.path / "trials"):
            trial_id, *below = name.split("/")
            if len(below) == 3 and below[0] == "checkpoints" and below[2] == MANIFEST:
                newest[trial_id] = max(newest.get(trial_id, -1), int(below[1]))
        return newest

    def moved(self, since: dict[str, int]) -> bool:
        """Whether a trial has made progress."""
        return self.progress() != since

    def statuses(self) -> list[tuple[TrialDir, Status]]:
        return [(trial, trial.status()) for trial in self.sweep.trials()]

    def unfinished(self) -> int:
        """How many trials are not finished."""
        return sum(status.status != "finished" for _, status in self.statuses())

    def running(self) -> tuple[TrialDir, Status]:
        """One of the trials that run.

        Raises:
            MissError: none does.
        """
        alive = [(t, s) for t, s in self.statuses() if s.status == "running" and s.pid and psutil.pid_exists(s.pid)]
        if not alive:
            raise MissError("no trial runs")
        return self.rng.choice(alive)

    def to_kill(self) -> tuple[TrialDir, int]:
        """A running trial that may be killed once more, and its process.

        Raises:
            MissError: there is none.
        """
        trial, status = self.running()
        if trial.trial_id in self.spared:
            raise MissError(f"{trial.trial_id} was killed {_MOST_KILLS} times")
        assert status.pid is not None
        return trial, status.pid

    def killed(self, trial_id: str) -> None:
        """A trial's process was killed."""
        self._killed[trial_id] += 1

    @property
    def spared(self) -> list[str]:
        """Trials that were killed so often under this driver that once more could be held against them."""
        return [trial_id for trial_id, times in self._killed.items() if times >= _MOST_KILLS]

    def below_raylets(self) -> list[psutil.Process]:
        nodes = [self.cluster.head_node, *self.workers]
        raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        return [child for raylet in raylets for child in raylet.children(recursive=True)]

    def wait(self, until: Callable[[], object], what: str, seconds: float = WAIT_S) -> None:
        """Wait for something.

        Raises:
            MissError: it didn't happen.
        """
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end or self.complete:
                raise MissError(f"{what} after {seconds:.0f} s")
            time.sleep(0.1)  # the pace of looking

    def given_up(self) -> dict[str, str]:
        """The trials that a driver held to have failed for good, with their errors."""
        return {trial: error for driver in self.drivers for trial, error in _GIVEN_UP.findall(driver.said())}

    def close(self) -> None:
        for driver in self.drivers:
            if driver.runs:
                driver.process.kill()
                driver.process.wait()
        self.cluster.shutdown()


def resumable_steps(trial: TrialDir) -> list[int]:
    """Steps of a trial's checkpoints that training can resume from, newest first; that of step 0 is left out."""
    files = by_step(files_below(trial.checkpoints))
    return [step for step, names in files.items() if step > 0 and {MANIFEST, TRAINING} <= names]
