"""Whether trials trained one after another in one process end with the bits of trials in fresh processes.

    python benchmarks/reuse.py [--grid demo] [--set KEY=VALUE ...] [--times 2] [--json FILE]

Trains a grid on a Ray node with one CPU: once with a process for each trial, then in one process, in the grid's order
and in the opposite one, as often as `--times` says. Compares the sha256 of every weights file that is kept. The whole
demo takes about 25 minutes on 2 CPU cores.
"""

import argparse
import json
import os
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from ray.cluster_utils import Cluster
from rich.console import Console
from upath import UPath

from sweep.grid.load import load_grid
from sweep.service.cluster import RayCluster
from sweep.service.launch import launch
from sweep.store.manifest import MODEL, checkpoint_steps
from sweep.store.sweep_dir import SweepDir

MIB = 2**20
Weights = dict[str, str]


def weights(sweep: SweepDir) -> Weights:
    """The sha256 of each kept weights file, by trial and step."""
    return {
        f"{trial.trial_id}/{step}": sha256((trial.checkpoints / str(step) / MODEL).read_bytes()).hexdigest()
        for trial in sweep.trials()
        for step in checkpoint_steps(trial.checkpoints)
    }


def trained(grid: str, settings: list[str], address: str, *, reverse: bool, fresh: bool) -> tuple[Weights, int]:
    """Train a grid's trials; their weights and the number of processes that it took."""
    interventions = load_grid(grid, settings).interventions
    order = f"interventions=[{', '.join(reversed(interventions) if reverse else interventions)}]"
    with tempfile.TemporaryDirectory() as storage:
        cluster = RayCluster(address=address, fresh_processes=fresh)
        sweep, outcome = launch(load_grid(grid, [*settings, order]), UPath(storage), cluster, Console(file=sys.stderr))
        if outcome.exit_code:
            sys.exit("a trial failed")
        return weights(sweep), len({trial.status().pid for trial in sweep.trials()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="demo")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 90 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    rows = []
    try:
        alone, processes = trained(given.grid, given.settings, cluster.address, reverse=False, fresh=True)
        print(f"fresh: {len(alone)} weights files, {processes} processes", flush=True)
        for time in range(given.times):
            for reverse in (False, True):
                found, used = trained(given.grid, given.settings, cluster.address, reverse=reverse, fresh=False)
                differ = sorted(name for name in alone.keys() | found.keys() if alone.get(name) != found.get(name))
                order = "opposite" if reverse else "the grid's"
                rows.append({"run": time + 1, "order": order, "processes": used, "files_that_differ": differ})
                print(rows[-1], flush=True)
    finally:
        cluster.shutdown()
    result = {
        "command": " ".join(["python benchmarks/reuse.py", *sys.argv[1:]]),
        "weights_files": len(alone),
        "fresh_processes": processes,
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(row["files_that_differ"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
