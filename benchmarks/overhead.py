"""What Ray costs: CPU time of the demo grid, 4 epochs, through Ray against the same trials by plain calls.

    python benchmarks/overhead.py [--json FILE]

About 4 minutes on 2 CPU cores. Each way runs in its own process, and the CPU time of its whole process tree is summed.
Start-up (interpreter, imports, Ray's own processes, one process per trial) is measured with the same number of trials
that take no step, and subtracted. Expect at most 15% more through Ray.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console
from upath import UPath

DEMO = ["recipe.epochs=4"]  # a third of the demo: what Ray costs once a trial weighs more than in the whole
IDLE = ["interventions=[untrained]", "seeds=[0,1,2,3]"]  # as many trials as the demo has, without a step


def through_ray(settings: list[str], storage: str) -> None:
    from sweep.grid.load import load_grid
    from sweep.service.cluster import RayCluster
    from sweep.service.launch import launch

    launch(load_grid("demo", settings), UPath(storage), RayCluster(), Console(quiet=True))


def by_plain_calls(settings: list[str], storage: str) -> None:
    from analysis.layers import analyze_checkpoint
    from sweep.grid.expand import expand
    from sweep.grid.load import load_grid
    from sweep.results.compact import compact
    from sweep.store.kept import kept_checkpoints
    from sweep.store.sweep_dir import SweepDir
    from sweep.training.trial import run_trial

    sweep = SweepDir(UPath(storage) / "demo")
    plans = expand(load_grid("demo", settings)).plans
    sweep.add(plans)
    for plan in plans:
        trial = sweep.trial(plan.trial_id)
        run_trial(trial, None, threads=1)
        for folder in kept_checkpoints(trial.checkpoints, plan.spec.recipe.epochs):
            analyze_checkpoint(folder / "model.safetensors", trial.layers / folder.name)
    compact(sweep)


def cpu_s(way: Callable[[list[str], str], None], settings: list[str]) -> float:
    """CPU seconds of a way's process and all processes below it, sampled until they end."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as storage:
        process = context.Process(target=way, args=(settings, storage))
        process.start()
        used: dict[int, float] = {}
        while process.is_alive():
            for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                try:
                    times = member.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                used[member.pid] = times.user + times.system
            time.sleep(0.1)  # the sampling interval: time after a process's last sample is lost
        process.join()
        if process.exitcode:
            sys.exit(f"{way.__name__} failed")
    return sum(used.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    by_plain_calls(IDLE, tempfile.mkdtemp())  # prepares the data, so that it counts for neither
    seconds = {}
    for way in (by_plain_calls, through_ray):
        start_up, whole = cpu_s(way, IDLE), cpu_s(way, DEMO)
        seconds[way.__name__] = {"start_up_cpu_s": round(start_up, 1), "work_cpu_s": round(whole - start_up, 1)}
        print(way.__name__, seconds[way.__name__])
    overhead = seconds["through_ray"]["work_cpu_s"] / seconds["by_plain_calls"]["work_cpu_s"] - 1
    print(f"Ray's overhead: {overhead:+.1%}")
    if arguments.json:
        facts = {"command": "python benchmarks/overhead.py", "overhead": round(overhead, 4)}
        arguments.json.write_text(json.dumps(facts | seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
