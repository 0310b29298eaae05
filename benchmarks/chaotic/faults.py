"""The faults that strike a sweep, and how often each does."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

from analysis.write import read_bytes, write_bytes
from benchmarks.chaotic.faulty_s3 import LOST, Order
from benchmarks.chaotic.stage import Stage, resumable_steps
from benchmarks.chaotic.storages import S3, MissError, Tmpfs
from sweep.store.files import remove_file
from sweep.store.lease import STALE_S, holder
from sweep.store.manifest import MANIFEST, MODEL, PROGRESS, TRAINING

Fault = Callable[[Stage], str]
"""Strikes and says what it struck.

Raises:
    MissError: there was nothing to strike.
"""
FILES = [MODEL, PROGRESS, TRAINING, MANIFEST]
CLOCK_OFF_S = 70.0
SHORT_STOP_S, LONGEST_WAIT_S = 20.0, 150.0


def kill_trial(stage: Stage) -> str:
    trial, pid = stage.to_kill()
    os.kill(pid, signal.SIGKILL)
    stage.killed(trial.trial_id)
    return f"{trial.trial_id} in process {pid}"


def kill_at_write(stage: Stage) -> str:
    name = stage.rng.choice(FILES)
    when = stage.rng.choice(["before", "half", "after"] if isinstance(stage.storage, Tmpfs) else ["before", "after"])
    order = stage.kills / f"{time.monotonic_ns()}.armed"
    order.with_suffix(".new").write_text(json.dumps({"file": name, "when": when, "spared": stage.spared}))
    order.with_suffix(".new").rename(order)
    victim = order.with_suffix(".trial")
    try:
        stage.wait(lambda: victim.exists() and victim.read_text(), "no checkpoint was written")
    finally:
        order.unlink(missing_ok=True)
    stage.killed(victim.read_text())
    return f"{when} {name} of {victim.read_text()}"


def terminate_trial(stage: Stage) -> str:
    trial, status = stage.running()
    assert status.pid is not None
    os.kill(status.pid, signal.SIGTERM)
    return f"{trial.trial_id} in process {status.pid}"


def kill_node(stage: Stage) -> str:
    node = stage.take_node()
    stage.replace_node(node)
    return str(node.node_id[:12])


def drain_node(stage: Stage) -> str:
    import ray
    from ray.core.generated import autoscaler_pb2

    node = stage.take_node()
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client = ray._raylet.GcsClient(address=stage.cluster.address)
    client.drain_node(node.node_id, reason, "spot", int(time.time() * 1000) + 15_000)
    time.sleep(8)  # seconds that a spot notice leaves those who listen
    stage.replace_node(node)
    return str(node.node_id[:12])


def kill_driver(stage: Stage) -> str:
    return stage.kill_driver()


def kill_analyst(stage: Stage) -> str:
    found = [process for process in stage.below_raylets() if process.name().startswith("ray::Analyst")]
    if not found:
        raise MissError("no actor")
    found[0].kill()
    return f"process {found[0].pid}"


def damage_checkpoint(stage: Stage) -> str:
    """Kill the driver and a trial, and damage a file of the trial's newest checkpoint."""
    trial, pid = stage.to_kill()
    if not resumable_steps(trial):
        raise MissError("no checkpoint yet")
    stage.kill_driver()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)  # until the kernel has taken its open files away
    step, *_ = resumable_steps(trial)
    name = stage.rng.choice(FILES)
    file = trial.checkpoints / str(step) / name
    data = bytearray(read_bytes(file))
    where = stage.rng.randrange(len(data) - 1)
    how = stage.rng.choice(["cut", "flipped", "removed"])
    if how == "cut":
        write_bytes(file, bytes(data[:where]))
    elif how == "flipped":
        data[where] ^= 1 << stage.rng.randrange(8)
        write_bytes(file, bytes(data))
    else:
        remove_file(file)
    return f"{name} of step {step} of {trial.trial_id} {how}"


def stop_driver_shortly(stage: Stage) -> str:
    """Stop the driver for less time than its lease lasts: it goes on."""
    driver = stage.running_driver()
    _stopped(driver.process.pid, lambda: time.sleep(SHORT_STOP_S))
    time.sleep(2)  # for a driver that takes its lease for lost to end
    if not driver.runs and driver.code != 0:
        stage.unexpected.append(f"a driver stopped for {SHORT_STOP_S:.0f} s did not go on: {driver.said()[-500:]}")
    return f"process {driver.process.pid} for {SHORT_STOP_S:.0f} s"


def stop_driver_and_resume(stage: Stage) -> str:
    """Stop the driver until its lease is over, and let another take over: once it can, the old one ends."""
    old = stage.running_driver()
    old.struck = True
    began = time.monotonic()

    def take_over() -> None:
        stage.wait(lambda: holder(stage.sweep.path) is None, "the lease lasts", 2 * STALE_S)
        new = stage.start_driver()
        stage.wait(lambda: (held := holder(stage.sweep.path)) and held.pid == new.process.pid, "nobody took over")

    _stopped(old.process.pid, take_over)
    stopped_s = time.monotonic() - began
    stage.wait(lambda: not old.runs, "the old driver does not end", LONGEST_WAIT_S)
    if "another driver has taken over" not in old.said():
        stage.unexpected.append(f"the driver that was replaced ended otherwise: {old.said()[-500:]}")
    return f"process {old.process.pid} for {stopped_s:.0f} s; it ended with exit code {old.code}"


def _stopped(pid: int, meanwhile: Callable[[], None]) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        meanwhile()
    finally:
        os.kill(pid, signal.SIGCONT)


def driver_with_a_wrong_clock(stage: Stage) -> str:
    stage.kill_driver()
    off_s = stage.rng.choice([-CLOCK_OFF_S, CLOCK_OFF_S])
    stage.start_driver(CHAOS_CLOCK_S=str(off_s))
    return f"{off_s:+.0f} s"


def node_with_a_wrong_clock(stage: Stage) -> str:
    """Replace a node by one whose clock is off, until another fault replaces that one."""
    stage.running_driver()
    off_s = stage.rng.choice([-CLOCK_OFF_S, CLOCK_OFF_S])
    stage.replace_node(stage.take_node(), CHAOS_CLOCK_S=str(off_s))

    def is_off(status: Any) -> bool:
        return abs((status.started_at or 0.0) - time.time() - off_s) < CLOCK_OFF_S / 2

    stage.wait(
        lambda: any(status.status == "running" and is_off(status) for _, status in stage.statuses()),
        "no trial began on the node",
    )
    return f"{off_s:+.0f} s"


def sick_node(stage: Stage) -> str:
    """Replace a node by one on which every trial fails, until the driver avoids it; then replace it by a sound one."""
    driver = stage.running_driver()
    if stage.unfinished() < 4:
        raise MissError("too few trials are left")
    before, began = len(driver.said()), time.monotonic()
    node = stage.replace_node(stage.take_node(), CHAOS_SICK="1")
    told = re.compile(rf"(\d+) attempts in a row have failed on node {node.node_id[:8]}: it is avoided")
    try:
        stage.wait(lambda: told.search(driver.said(before)), "the node is not avoided", LONGEST_WAIT_S)
        avoided_s = time.monotonic() - began
        said = told.search(driver.said(before))
        assert said is not None
        time.sleep(5)  # of avoiding it
    finally:
        stage.workers.remove(node)
        stage.replace_node(node)
    return f"{node.node_id[:12]} avoided after {avoided_s:.0f} s and {said[1]} failures"


def failing(order: Order, seconds: float) -> Fault:
    """The S3 fails for so long."""

    def fail(stage: Stage) -> str:
        assert isinstance(stage.storage, S3)
        driver = stage.running_driver()
        before = len(driver.said())
        what = stage.storage.fail(order, seconds)
        paused = driver.said(before).count("the storage is unavailable")
        if paused > 1:
            stage.unexpected.append(f"an outage was told {paused} times: {driver.said(before)[-2000:]}")
        return f"{what}; paused: {'yes' if paused else 'no'}"

    return fail


def everywhere() -> dict[str, tuple[int, Fault]]:
    return {
        "kill a trial's process": (10, kill_trial),
        "kill a trial that writes a checkpoint": (12, kill_at_write),
        "terminate a trial's process": (4, terminate_trial),
        "kill a node": (4, kill_node),
        "drain a node, then kill it": (2, drain_node),
        "kill the driver": (6, kill_driver),
        "kill an analysis actor": (4, kill_analyst),
        "damage the newest checkpoint": (8, damage_checkpoint),
    }


def on_tmpfs(storage: Tmpfs) -> dict[str, tuple[int, Fault]]:
    if not storage.mounted:
        return {}
    return {"storage full": (3, lambda _: storage.full()), "storage away": (3, lambda _: storage.away())}


def on_s3() -> dict[str, tuple[int, Fault]]:
    return {
        "503 for two minutes": (1, failing("unavailable", 120)),
        "503 for 15 s": (3, failing("unavailable", 15)),
        "credentials expired for 20 s": (3, failing("expired", 20)),
        f"{LOST:.0%} of PUT answers lost for 30 s": (4, failing("lose answers", 30)),
        "stop the driver for 20 s": (3, stop_driver_shortly),
        "stop the driver until another takes over": (2, stop_driver_and_resume),
        "a driver's clock is 70 s off": (2, driver_with_a_wrong_clock),
        "a node's clock is 70 s off": (3, node_with_a_wrong_clock),
        "a node on which every trial fails": (2, sick_node),
    }
