"""What safety costs: checkpoints every 30 s while training, and a look at a sweep of 10,000 finished trials.

    python benchmarks/resilience.py [--json FILE]

About 3 minutes on 2 CPU cores. Expect at most 3% of the training time for checkpoints, and under 5 s until `sweep
resume` knows that there is nothing to do (Python's start included; without tables it reads every trial's files).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from upath import UPath

from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.compact import compact_all
from sweep.spec import Plan
from sweep.store.checkpoint import write_checkpoint
from sweep.store.manifest import Progress
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from sweep.training.keeper import Keeper, Savable
from sweep.training.train import StoppedError, train

INTERVAL_S = 30.0
TRAIN_S = 65.0
TRIALS = 10_000


def checkpoint_cost(folder: Path) -> dict[str, float]:
    """Train the demo's baseline with a checkpoint at least every 30 s, timing each; their share of the time.

    The demo's epochs are shorter than that and each ends with a checkpoint, so that more are written.
    """
    plan = expand(load_grid("demo", ["interventions=[baseline]", "recipe.epochs=60"])).plans[0]
    data = prepare(plan.spec.data, None)
    torch.set_num_threads(1)
    taken: list[float] = []
    save = Keeper._save

    def timed(keeper: Keeper, run: Savable) -> UPath:
        began = time.perf_counter()
        folder = save(keeper, run)
        taken.append(time.perf_counter() - began)
        return folder

    Keeper._save = timed  # type: ignore[method-assign,assignment]
    began = time.perf_counter()
    try:
        train(
            plan.spec, data, UPath(folder / "trial"), stop=lambda _: time.perf_counter() - began > TRAIN_S,
            save_every_s=INTERVAL_S,
        )  # fmt: skip
    except StoppedError:
        wall_s = time.perf_counter() - began
    finally:
        Keeper._save = save  # type: ignore[method-assign]
    each_s = median(taken)
    return {
        "train_wall_s": round(wall_s, 1),
        "checkpoints": len(taken),
        "checkpoint_s": round(each_s, 4),
        "share_measured": round(sum(taken) / wall_s, 5),
        "share_of_one_every_30_s": round(each_s / INTERVAL_S, 5),
    }


def finished_sweep(storage: Path) -> SweepDir:
    """A sweep of 10,000 finished and analysed trials: with every file that a real one has, but tiny weights."""
    grid = load_grid("demo", [f"seeds={list(range(TRIALS // 4))}"])
    sweep = SweepDir(UPath(storage / "demo"))
    plans = expand(grid).plans
    model = {"features.3b.conv.weight": torch.zeros(2, 2, 3, 3)}
    source = storage / "one"
    _fill(SweepDir(UPath(source)), plans[0], model)
    (pattern,) = (source / "trials").iterdir()
    for plan in plans:
        target = Path(sweep.trial(plan.trial_id).path.path)
        shutil.copytree(pattern, target)
        sweep.trial(plan.trial_id).write_plan(plan)
    shutil.rmtree(source)
    sweep.record_launch(grid.model_dump(mode="json"))
    return sweep


def _fill(sweep: SweepDir, plan: Plan, model: dict[str, torch.Tensor]) -> None:
    trial = sweep.trial(plan.trial_id)
    row: dict[str, float | int | None] = {"epoch": 0, "step": 0, "val_accuracy": 0.5, "wall_s": 1.0}
    progress = Progress(step=0, epoch=0, images=0, loss_sum=0.0, correct=0, wall_s=1.0, rows=[row])
    write_checkpoint(trial.checkpoints / "0", progress, model, {}, {"final_convs": "[]"})
    trial.write_epochs([row])
    trial.write_status(replace(Status(), status="finished", attempts=1, val_accuracy=0.5))
    (trial.layers / "0").mkdir(parents=True)
    (trial.layers / "0" / "layers.json").write_text("[]")


def resume_cost(folder: Path) -> dict[str, float]:
    """Seconds of `sweep resume` over a finished sweep, with and without its tables, and of `sweep status`."""
    sweep = finished_sweep(folder)
    began = time.perf_counter()
    compact_all(sweep)
    from_files_s = time.perf_counter() - began
    times = {"trials": float(TRIALS), "tables_made_from_files_s": round(from_files_s, 2)}
    for name, arguments in (("resume_s", ["resume"]), ("status_json_s", ["status", "--json"])):
        began = time.perf_counter()
        command = [sys.executable, "-m", "sweep.cli", *arguments, str(sweep.path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        times[name] = round(time.perf_counter() - began, 2)
        said = "nothing to do" if name == "resume_s" else f'"finished": {TRIALS}'
        if said not in done.stdout:
            sys.exit(f"{name}: {done.stdout[:500]}")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    facts: dict[str, object] = {"command": "python benchmarks/resilience.py"}
    rows = []
    for measure in (resume_cost, checkpoint_cost):
        with tempfile.TemporaryDirectory() as folder:
            for what, value in measure(Path(folder)).items():
                rows.append({"of": measure.__name__.replace("_", " "), "what": what, "measured": value})
                print(*rows[-1].values(), flush=True)
    facts["rows"] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
