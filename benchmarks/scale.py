"""How near a launch of short trials comes to the ideal, and what its driver takes, beside Ray Tune alone.

    python benchmarks/scale.py [--trials 5000] [--cpus 64] [--json FILE]

The trials are logical: each sleeps for a second and writes the files of a trial. All else is real: the driver, the
workers' processes, the tables, the store. The nodes are processes of this machine that claim more CPUs than it has, and
that its few cores must start all workers is not part of the question: the clock runs from the moment when the last
worker has begun its first trial. About 10 minutes on 2 cores, half of it Tune's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from sweep.results.tables import read_table
from sweep.store.sweep_dir import SweepDir

MIB = 2**20
LOGICAL = """
import sys, time, types
from dataclasses import replace

def trial_course(trial, root, threads, stop, save_every_s, ranks, tell, tell_rows):
    from sweep.store.trial_dir import Status, this_process
    now = time.time()
    status = Status(status="running", attempts=trial.status().attempts + 1, started_at=now, heartbeat_at=now,
                    cpus=1, gpus=0.0, **this_process())
    trial.write_status(status)
    tell(status)
    row = dict(epoch=3, step=3, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5, learning_rate=0.1,
               wall_s=1.0)
    time.sleep(max(0.0, now + {seconds} - time.time()))
    trial.write_epochs([row])
    yield row, None
    status = replace(status, status="finished", epoch=3, step=3, val_accuracy=0.5, wall_s=1.0, heartbeat_at=time.time())
    trial.write_status(status)
    tell(status)

class StoppedError(Exception): pass
class SupersededError(Exception): pass

made = types.ModuleType("sweep.training.trial")
made.trial_course, made.SupersededError, made.summary, made.is_certain = trial_course, SupersededError, str, bool
train, ranks = types.ModuleType("sweep.training.train"), types.ModuleType("sweep.training.ranks")
train.StoppedError, ranks.ALONE = StoppedError, None
if any("default_worker.py" in word for word in sys.orig_argv):
    sys.modules |= {"sweep.training.trial": made, "sweep.training.train": train, "sweep.training.ranks": ranks}
"""
DRIVE = """
import sys
from rich.console import Console
from upath import UPath
from sweep.service.cluster import RayCluster
from sweep.service.launch import resume
from sweep.store.sweep_dir import SweepDir
outcome = resume(SweepDir(UPath(sys.argv[1])), Console(), RayCluster(address=sys.argv[2]))
sys.exit(outcome.exit_code)
"""
TUNE = """
import sys, time, tempfile
import ray
from ray import tune

class Sleep(tune.Trainable):
    def setup(self, config): pass
    def reset_config(self, config): return True
    def step(self):
        began = time.time()
        time.sleep({seconds})
        return dict(done=True, began=began)

ray.init(address=sys.argv[1], log_to_driver=False)
tuner = tune.Tuner(
    tune.with_resources(Sleep, {{"CPU": 1}}), param_space={{"seed": tune.grid_search(list(range(int(sys.argv[2]))))}},
    tune_config=tune.TuneConfig(reuse_actors=True),
    run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)),
)
for result in tuner.fit():
    print("began", result.metrics["began"], result.metrics["pid"])
"""


def planned(folder: Path, trials: int) -> SweepDir:
    """A sweep of many trials that differ in their seeds."""
    from dataclasses import replace

    from upath import UPath

    from sweep.grid.expand import expand
    from sweep.grid.load import load_grid

    grid = load_grid("smoke", ["name=scale", "interventions=[baseline]", "seeds=[0]", "recipe.epochs=8"])
    (plan,) = expand(grid).plans
    sweep = SweepDir(UPath(folder / "scale"))
    sweep.add([replace(plan, spec=plan.spec.model_copy(update={"init_seed": seed})) for seed in range(trials)])
    sweep.record_launch(grid.model_dump(mode="json"))
    return sweep


class Watch:
    """Samples the resident memory and CPU time of a process until it ends."""

    def __init__(self, process: psutil.Process) -> None:
        self.peak_mib = self.cpu_s = 0.0
        self._process = process
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            try:
                self.peak_mib = max(self.peak_mib, self._process.memory_info().rss / MIB)
                times = self._process.cpu_times()
            except psutil.NoSuchProcess:
                return
            self.cpu_s = times.user + times.system
            time.sleep(0.2)


def driven(command: list[str], address: str) -> tuple[str, Watch]:
    """Run a driver to its end; what it printed, and what it took."""
    with subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(psutil.Process(process.pid))
        printed = process.communicate()[0]
    if process.returncode:
        sys.exit(printed[-3000:])
    return printed, watch


def efficiency(begins: list[tuple[float, int]], end: float, cpus: int, seconds: float) -> dict[str, float]:
    """The share of the ideal from when the last worker began its first trial until the end, and over all.

    `begins` are the trials' with their processes.
    """
    first: dict[int, float] = {}
    for began, process in sorted(begins):
        first.setdefault(process, began)
    full = max(first.values())
    after = sum(began >= full for began, _ in begins)
    running = sum(full - seconds < began < full for began, _ in begins)  # half of each is still to be done, on average
    whole_s = end - min(first.values())
    return {
        "share_of_ideal": round((after + running / 2) * seconds / cpus / (end - full), 3),
        "seconds": round(end - full, 1),
        "share_of_ideal_with_start": round(len(begins) * seconds / cpus / whole_s, 3),
        "processes": len(first),
    }


def row_of(name: str, facts: dict[str, float]) -> dict[str, str]:
    """What was measured of a scheduler, for readers."""
    return {
        "scheduler": name.capitalize(),
        "share of the ideal": f"{facts['share_of_ideal']:.2f}",
        "with the start of the workers": f"{facts['share_of_ideal_with_start']:.2f}",
        "processes": str(facts["processes"]),
        "driver, MiB": str(facts["driver_peak_mib"]),
        "driver, ms of CPU a trial": f"{facts['driver_cpu_ms_per_trial']:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--cpus", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a trial sleeps")
    parser.add_argument("--without-tune", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }
    facts: dict[str, Any] = {"command": f"python benchmarks/scale.py --trials {given.trials} --cpus {given.cpus}"}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(LOGICAL.replace("{seconds}", str(given.seconds)))
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 90 * MIB},
        )
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=given.cpus // 2, object_store_memory=90 * MIB)
            sweep = planned(Path(folder), given.trials)
            _, watch = driven([DRIVE, str(sweep.path), cluster.address], cluster.address)
            trials = read_table(sweep.path, "trials")
            statuses = [trial.status() for trial in sweep.trials()]
            assert (trials["status"] == "finished").all()
            assert {status.status for status in statuses} == {"finished"}
            begins = [(status.started_at or 0.0, status.pid or 0) for status in statuses]
            end = max(status.heartbeat_at or 0.0 for status in statuses)
            facts["sweep"] = efficiency(begins, end, given.cpus, given.seconds) | {
                "driver_peak_mib": round(watch.peak_mib),
                "driver_cpu_ms_per_trial": round(1000 * watch.cpu_s / given.trials, 1),
            }
            print(json.dumps(facts["sweep"]), flush=True)
            if not given.without_tune:
                tune = TUNE.format(seconds=given.seconds)
                printed, watch = driven([tune, cluster.address, str(given.trials)], cluster.address)
                lines = [line.split() for line in printed.splitlines() if line.startswith("began")]
                begins = [(float(began), int(process)) for _, began, process in lines]
                facts["tune"] = efficiency(begins, max(begins)[0] + given.seconds, given.cpus, given.seconds) | {
                    "driver_peak_mib": round(watch.peak_mib),
                    "driver_cpu_ms_per_trial": round(1000 * watch.cpu_s / given.trials, 1),
                }
                print(json.dumps(facts["tune"]), flush=True)
        finally:
            cluster.shutdown()
    facts["rows"] = [row_of(name, facts[name]) for name in ("sweep", "tune") if name in facts]
    print(json.dumps(facts, indent=1))
    if given.json:
        given.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
