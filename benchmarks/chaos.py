"""Do to a running sweep everything that can happen to one, and check that nothing is lost.

    python benchmarks/chaos.py [--faults 56] [--seed 0] [--epochs 24] [--only KIND ...] [--json FILE]

About 15 minutes on 2 CPU cores. Trains the demo grid, small and with two seeds, on a Ray cluster of one head and two
workers on this machine, while faults of ten kinds strike in random order. Then `sweep resume` runs until everything is
complete, and weights, rows and analyses are compared with those of an undisturbed run: every sha256 must be the same.
The storage is a small tmpfs, which needs root; without root the storage faults are skipped, and the output says so.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster
from upath import UPath

from sweep.results.tables import read_table
from sweep.store.manifest import MANIFEST, MEASURED, MODEL, PROGRESS, TRAINING, checkpoint_steps, has_training_state
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir

SWEEP = [sys.executable, "-m", "sweep.cli"]
MIB = 2**20
STORAGE_MIB = 256
OUTAGE_S = 4.0
WAIT_S = 60.0

# Loaded by every process of the cluster: a trial that writes a checkpoint's file checks whether it has to die there.
KILLER = """
import importlib.abc, importlib.util, json, os, pathlib, signal, sys
KILLS = pathlib.Path(os.environ["CHAOS_KILLS"])

def armed(write):
    def write_bytes(path, data):
        for order in KILLS.glob("*.armed"):
            try:
                target = json.loads(order.read_text())
                if path.name != target["file"] or "checkpoints" not in path.parts:
                    continue
                order.rename(order.with_suffix(".struck"))
            except OSError:
                continue  # another process was quicker
            if target["when"] == "half":
                (pathlib.Path(path.parent.path) / f".{path.name}.chaos.part").write_bytes(data[: len(data) // 2])
            if target["when"] == "after":
                write(path, data)
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)
    return write_bytes

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "analysis.write":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.write_bytes = armed(module.write_bytes)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


class Storage:
    """The sweep's own folder: a small tmpfs, where that is allowed, which can be filled and cut off."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORAGE_MIB}m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def full(self) -> str:
        filler = self.folder / "filler"
        with filler.open("wb") as file:
            for _ in range(50):  # trials write between a look at the free space and its taking
                try:
                    os.posix_fallocate(file.fileno(), filler.stat().st_size, shutil.disk_usage(self.folder).free)
                    break
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        free = filler.stat().st_size
        time.sleep(OUTAGE_S)
        filler.unlink()
        return f"{free // MIB} MiB taken for {OUTAGE_S:.0f} s"

    def away(self) -> str:
        self._remount("ro")
        time.sleep(OUTAGE_S)
        self._remount("rw")
        return f"read-only for {OUTAGE_S:.0f} s"

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def _remount(self, mode: str) -> None:
        for _ in range(100):  # refused while a file is open for writing
            remount = ["mount", "-o", f"remount,{mode}", str(self.folder)]
            if subprocess.run(remount, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise MissError(f"the storage could not be made {mode}")


class MissError(Exception):
    """There was nothing for the fault to strike."""


class Chaos:
    """The cluster, the driver on it, and the faults."""

    def __init__(self, work: Path, arguments: list[str], seed: int) -> None:
        self.rng = random.Random(seed)
        self.kills = work / "kills"
        self.kills.mkdir()
        (work / "sitecustomize.py").write_text(KILLER)
        os.environ["CHAOS_KILLS"] = str(self.kills)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(work), os.environ.get("PYTHONPATH", "")])
        self.storage = Storage(work / "storage")
        self.sweep = SweepDir(UPath(self.storage.folder / "demo"))
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 90 * MIB},
        )
        self.workers = [self._add_node() for _ in range(2)]
        self.arguments = arguments
        self.log = (work / "driver.log").open("w")
        self.driver: subprocess.Popen[str] | None = None
        self.launches = 0

    def drive(self) -> None:
        """Make sure that a driver runs, unless everything is complete."""
        if self.driver is not None and self.driver.poll() is None:
            return
        command = ["launch", "demo", *self.arguments] if self.launches == 0 else ["resume", "demo"]
        self.launches += 1
        options = ["--storage", str(self.storage.folder), "--address", self.cluster.address]
        self.driver = subprocess.Popen([*SWEEP, *command, *options], stdout=self.log, stderr=self.log, text=True)

    def complete(self) -> bool:
        """Whether the driver has ended with everything finished."""
        return self.driver is not None and self.driver.poll() == 0

    def progress(self) -> tuple[int, ...]:
        """How far the trials are; changes when one makes progress."""
        return tuple(max(checkpoint_steps(trial.checkpoints), default=-1) for trial in self.sweep.trials())

    def kill_worker(self) -> str:
        trial, pid = self._running()
        os.kill(pid, signal.SIGKILL)
        return f"{trial.trial_id} in process {pid}"

    def terminate_worker(self) -> str:
        trial, pid = self._running()
        os.kill(pid, signal.SIGTERM)
        return f"{trial.trial_id} in process {pid}"

    def kill_node(self) -> str:
        node = self.workers.pop(self.rng.randrange(len(self.workers)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.append(self._add_node())
        return node.node_id[:12]

    def drain_node(self) -> str:
        import ray
        from ray.core.generated import autoscaler_pb2

        node = self.workers.pop(self.rng.randrange(len(self.workers)))
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        client = ray._raylet.GcsClient(address=self.cluster.address)
        client.drain_node(node.node_id, reason, "spot", int(time.time() * 1000) + 15_000)
        self.workers.append(self._add_node())
        time.sleep(8)  # seconds that a spot notice leaves those who listen
        self.cluster.remove_node(node, allow_graceful=False)
        return node.node_id[:12]

    def kill_driver(self) -> str:
        if self.driver is None or self.driver.poll() is not None:
            raise MissError("no driver")
        self.driver.kill()
        self.driver.wait()
        return f"process {self.driver.pid}"

    def kill_analyst(self) -> str:
        found = [process for process in self._below_raylets() if process.name().startswith("ray::Analyst")]
        if not found:
            raise MissError("no actor")
        found[0].kill()
        return f"process {found[0].pid}"

    def kill_at_write(self) -> str:
        name = self.rng.choice([MODEL, PROGRESS, TRAINING, MANIFEST])
        when = self.rng.choice(["before", "half", "after"])
        order = self.kills / f"{time.monotonic_ns()}.armed"
        order.write_text(json.dumps({"file": name, "when": when}))
        struck = order.with_suffix(".struck")
        until = time.monotonic() + WAIT_S
        while not struck.exists():
            if time.monotonic() > until or self.complete():
                order.unlink(missing_ok=True)
                raise MissError("no checkpoint was written")
            time.sleep(0.05)
        return f"{when} {name}"

    def harm_checkpoint(self) -> str:
        """Kill the driver and damage a file of the newest checkpoint of a trial that is not finished."""
        self.kill_driver()
        trial, pid = self._running()
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        steps = [step for step in checkpoint_steps(trial.checkpoints) if step > 0]
        steps = [step for step in steps if has_training_state(trial.checkpoints / str(step))]
        if not steps:
            raise MissError("no checkpoint yet")
        name = self.rng.choice([MODEL, PROGRESS, TRAINING, MANIFEST])
        file = Path((trial.checkpoints / str(steps[0]) / name).path)
        data = bytearray(file.read_bytes())
        where = self.rng.randrange(len(data) - 1)
        how = self.rng.choice(["cut", "flipped", "removed"])
        if how == "cut":
            file.write_bytes(data[:where])
        elif how == "flipped":
            data[where] ^= 1 << self.rng.randrange(8)
            file.write_bytes(data)
        else:
            file.unlink()
        return f"{name} of step {steps[0]} of {trial.trial_id} {how}"

    def close(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self.cluster.shutdown()
        self.storage.close()

    def _add_node(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=90 * MIB)

    def _running(self) -> tuple[TrialDir, int]:
        running = [(trial, trial.status()) for trial in self.sweep.trials()]
        alive = [(t, s.pid) for t, s in running if s.status == "running" and s.pid and psutil.pid_exists(s.pid)]
        if not alive:
            raise MissError("no trial runs")
        return self.rng.choice(alive)

    def _below_raylets(self) -> list[psutil.Process]:
        nodes = [self.cluster.head_node, *self.workers]
        raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        return [child for raylet in raylets for child in raylet.children(recursive=True)]


def faults(chaos: Chaos) -> dict[str, tuple[int, Callable[[], str]]]:
    """How often each kind strikes, of 56, and what it does."""
    kinds: dict[str, tuple[int, Callable[[], str]]] = {
        "kill a trial's process": (10, chaos.kill_worker),
        "kill a trial that writes a checkpoint": (12, chaos.kill_at_write),
        "terminate a trial's process": (4, chaos.terminate_worker),
        "kill a node": (4, chaos.kill_node),
        "drain a node, then kill it": (2, chaos.drain_node),
        "kill the driver": (6, chaos.kill_driver),
        "kill an analysis actor": (4, chaos.kill_analyst),
        "damage the newest checkpoint": (8, chaos.harm_checkpoint),
    }
    if chaos.storage.mounted:
        kinds |= {"storage full": (3, chaos.storage.full), "storage away": (3, chaos.storage.away)}
    return kinds


def strike(chaos: Chaos, count: int, only: list[str]) -> list[dict[str, str]]:
    """Strike until `count` faults have hit or the sweep is complete; between two faults the sweep makes progress."""
    kinds = {kind: fault for kind, fault in faults(chaos).items() if not only or kind in only}
    share = count / sum(number for number, _ in kinds.values())
    order = [kind for kind, (number, _) in kinds.items() for _ in range(max(1, round(number * share)))]
    chaos.rng.shuffle(order)
    struck: list[dict[str, str]] = []
    seen: tuple[int, ...] = ()
    while order and not chaos.complete():
        chaos.drive()
        until = time.monotonic() + WAIT_S
        while chaos.progress() == seen and time.monotonic() < until and not chaos.complete():
            time.sleep(0.2)
        seen = chaos.progress()
        try:
            what = kinds[order[-1]][1]()
        except (MissError, psutil.NoSuchProcess, ProcessLookupError) as miss:
            order.insert(0, order.pop())
            print(f"missed: {order[0]} ({miss})", flush=True)
            time.sleep(0.5)
            continue
        struck.append({"fault": order.pop(), "what": what})
        print(f"{len(struck):3} {struck[-1]['fault']}: {what}", flush=True)
    return struck


def finish(chaos: Chaos) -> int:
    """Resume until everything is complete; returns the number of resumes it took."""
    before = chaos.launches
    for _ in range(10):
        chaos.drive()
        assert chaos.driver is not None
        if chaos.driver.wait(timeout=900) == 0:
            break
    return chaos.launches - before


def facts(sweep: SweepDir) -> dict[str, Any]:
    """Everything about a sweep that must not depend on what happened to it."""
    found: dict[str, Any] = {}
    for trial in sweep.trials():
        weights = {
            step: sha256((trial.checkpoints / str(step) / MODEL).read_bytes()).hexdigest()
            for step in checkpoint_steps(trial.checkpoints)
        }
        found[trial.trial_id] = {"status": trial.status().status, "weights": weights}
    untimed = {"epochs": [*MEASURED], "layers": ["analysis_wall_s"]}
    for name, times in untimed.items():
        table = read_table(sweep.path, name).drop(columns=times)  # type: ignore[arg-type]  # names of tables
        found[name] = table.astype(object).where(table.notna(), None).to_dict("records")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=56)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", default="[0,1]", help="of the trained networks")
    parser.add_argument("--interventions", default="[baseline, rotate90, no_pooling, untrained]")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], help="a kind of fault; default: all ten")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    arguments = [
        "--set", f"seeds={given.seeds}", "--set", f"interventions={given.interventions}",
        "--set", f"recipe.epochs={given.epochs}",
        "--set", "data.options={train_images: 1280, val_images: 64}", "--set", "resources.save_every_s=1.0",
    ]  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        work = Path(folder)
        chaos = Chaos(work, arguments, given.seed)
        quiet = [*SWEEP, "launch", "demo", *arguments, "--storage", str(work / "undisturbed")]
        try:
            subprocess.run([*quiet, "--address", chaos.cluster.address], check=True, stdout=subprocess.DEVNULL)
            struck = strike(chaos, given.faults, given.only)
            resumes = finish(chaos)
            after, undisturbed = facts(chaos.sweep), facts(SweepDir(UPath(work / "undisturbed" / "demo")))
        finally:
            chaos.close()
            print((work / "driver.log").read_text()[-3000:])
    trials = [trial_id for trial_id in undisturbed if trial_id not in ("epochs", "layers")]
    keys = [(row["trial_id"], row["epoch"]) for row in after["epochs"]]
    result = {
        "command": f"python benchmarks/chaos.py --faults {given.faults} --seed {given.seed}",
        "faults": len(struck),
        "rows": [{"fault": kind, "struck": number} for kind, number in Counter(f["fault"] for f in struck).items()],
        "storage_faults": chaos.storage.mounted,
        "launches": chaos.launches,
        "resumes_after_the_last_fault": resumes,
        "trials": len(trials),
        "lost_trials": sum(after.get(trial, {}).get("status") != "finished" for trial in trials),
        "duplicate_rows": len(keys) - len(set(keys)),
        "trials_with_other_weights": [t for t in trials if after.get(t) != undisturbed[t]],
        "rows_equal": after["epochs"] == undisturbed["epochs"],
        "analyses_equal": after["layers"] == undisturbed["layers"],
        "wall_s": round(time.monotonic() - began),
    }
    said = (
        "{faults} faults, {launches} drivers, {wall_s} s. Of {trials} trials {lost_trials} were lost and {other} have "
        "other weights than in the undisturbed run; {duplicate_rows} rows are there twice; rows {rows}, analyses "
        "{analyses}."
    )
    differ = {True: "are equal", False: "differ"}
    result["remark"] = said.format(
        **result
        | {
            "other": len(result["trials_with_other_weights"]),
            "rows": differ[result["rows_equal"]],
            "analyses": differ[result["analyses_equal"]],
        }
    )
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    whole = result["rows_equal"] and result["analyses_equal"] and not result["duplicate_rows"]
    return 0 if whole and not result["lost_trials"] and not result["trials_with_other_weights"] else 1


if __name__ == "__main__":
    sys.exit(main())
