"""Do to a running sweep everything that can happen to one, and check that nothing is lost.

    python benchmarks/chaos.py [--s3] [--faults 56] [--seed 0] [--epochs 24] [--only KIND ...] [--json FILE]

Trains the demo grid, small and with two seeds, on a Ray cluster of one head and two workers on this machine, while
faults strike in random order. Then `sweep resume` runs until everything is complete, and weights, rows and analyses are
compared with those of an undisturbed run: every sha256 must be the same. A trial that a driver has given up counts too:
no fault here is a trial's own. A trial's process is killed at most twice under one driver, since that is what the
driver's retries are for.

Without `--s3`, the storage is a small tmpfs, and it takes about 15 minutes on 2 CPU cores. The tmpfs needs root;
without root the storage faults are skipped, and the output says so. With `--s3`, the storage is an S3 on this machine
that fails on order, and drivers are stopped, clocks are off and nodes are sick too; about 30 minutes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from upath import UPath

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is

from benchmarks.chaotic import faults
from benchmarks.chaotic.stage import SWEEP, Stage
from benchmarks.chaotic.storages import S3, MissError, Tmpfs
from sweep.results.tables import read_table
from sweep.store.files import STORAGE_ERRORS
from sweep.store.manifest import MEASURED, MODEL, checkpoint_steps
from sweep.store.sweep_dir import SweepDir

FAULTS, FAULTS_ON_S3 = 56, 64
Kinds = dict[str, tuple[int, faults.Fault]]


def kinds_for(storage: Tmpfs | S3, only: list[str]) -> Kinds:
    """The kinds of faults that can strike, each with how often it does of all their times."""
    more = faults.on_s3() if isinstance(storage, S3) else faults.on_tmpfs(storage)
    kinds = {kind: fault for kind, fault in (faults.everywhere() | more).items() if not only or kind in only}
    if unknown := set(only) - set(kinds):
        raise SystemExit(f"no such fault: {', '.join(unknown)}; there are {', '.join(faults.everywhere() | more)}")
    return kinds


def numbers(kinds: Kinds, count: int) -> Counter[str]:
    """How often each kind strikes, `count` times in all, but each at least once."""
    share = count / sum(number for number, _ in kinds.values())
    exact = {kind: number * share for kind, (number, _) in kinds.items()}
    whole = Counter({kind: max(1, int(number)) for kind, number in exact.items()})
    by_rest = sorted(exact, key=lambda kind: whole[kind] - exact[kind])
    whole.update(by_rest[: max(0, count - whole.total())])
    return whole


def strike(stage: Stage, kinds: Kinds, count: int) -> list[dict[str, str]]:
    """Strike until `count` faults have hit or the sweep is complete; between two faults the sweep makes progress."""
    order = list(numbers(kinds, count).elements())
    stage.rng.shuffle(order)
    struck: list[dict[str, str]] = []
    seen: dict[str, int] = {}
    began = time.monotonic()
    while order and not stage.complete:
        stage.drive()
        with suppress(MissError):
            stage.wait(partial(stage.moved, seen), "no progress")
        seen = stage.progress()
        try:
            what = kinds[order[-1]][1](stage)
        except (MissError, psutil.NoSuchProcess, ProcessLookupError) as miss:
            order.insert(0, order.pop())
            print(f"missed: {order[0]} ({miss})", flush=True)
            time.sleep(0.5)  # the next kind may find as little, if it is asked at once
            continue
        struck.append({"fault": order.pop(), "what": what})
        print(f"{time.monotonic() - began:5.0f} s {len(struck):3} {struck[-1]['fault']}: {what}", flush=True)
    return struck


def finish(stage: Stage) -> int:
    """Resume until everything is complete; returns the number of resumes it took."""
    before = len(stage.drivers)
    for _ in range(10):
        stage.drive()
        if stage.driver.process.wait(timeout=1800) == 0:
            break
    return len(stage.drivers) - before


class Failures:
    """Looks every two seconds which trials count as failed, if only until they are retried."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._ended = stage, threading.Event()
        self._found: dict[tuple[str, int], str] = {}
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def close(self) -> dict[str, int]:
        """How often each error was found, without names of files; each attempt of a trial counts once."""
        self._ended.set()
        self._thread.join()
        return dict(Counter(re.sub(r"'/\S+'", "a file", error) for error in self._found.values()))

    def _look_on(self) -> None:
        while not self._ended.wait(2.0):
            with suppress(*STORAGE_ERRORS):
                for trial, status in self._stage.statuses():
                    if status.status == "failed":
                        self._found[trial.trial_id, status.attempts] = status.error or ""


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


def compared(after: dict[str, Any], undisturbed: dict[str, Any]) -> dict[str, Any]:
    """What is missing, there twice or different."""
    trials = [trial_id for trial_id in undisturbed if trial_id not in ("epochs", "layers")]
    keys = [(row["trial_id"], row["epoch"]) for row in after["epochs"]]
    return {
        "trials": len(trials),
        "lost_trials": sum(after.get(trial, {}).get("status") != "finished" for trial in trials),
        "duplicate_rows": len(keys) - len(set(keys)),
        "trials_with_other_weights": [t for t in trials if after.get(t) != undisturbed[t]],
        "rows_equal": after["epochs"] == undisturbed["epochs"],
        "analyses_equal": after["layers"] == undisturbed["layers"],
        "differing": [key for name in ("epochs", "layers") for key in differing(after[name], undisturbed[name])],
    }


def differing(after: list[dict[str, Any]], undisturbed: list[dict[str, Any]]) -> list[str]:
    """Which rows are missing, too many or different."""
    known = [{_key(row): row for row in rows} for rows in (after, undisturbed)]
    return [key for key in sorted(known[0].keys() | known[1].keys()) if known[0].get(key) != known[1].get(key)]


def _key(row: dict[str, Any]) -> str:
    return " ".join(str(row[name]) for name in ("trial_id", "step", "layer") if name in row)


def ended_by_themselves(stage: Stage) -> list[str]:
    """The last words of drivers that no fault has ended and that left something to do."""
    ended = [driver for driver in stage.drivers if not driver.struck and driver.code != 0]
    return [f"exit code {driver.code}: {(driver.said().strip().splitlines() or [''])[-1]}" for driver in ended]


def remark(result: dict[str, Any]) -> str:
    differ = {True: "are equal", False: "differ"}
    return (
        f"{result['faults']} faults, {result['launches']} drivers, {result['wall_s']} s. Of {result['trials']} trials "
        f"{result['lost_trials']} were lost, {len(result['trials_given_up'])} were held to have failed for good, and "
        f"{len(result['trials_with_other_weights'])} have other weights than in the undisturbed run; "
        f"{result['duplicate_rows']} rows are there twice; rows {differ[result['rows_equal']]}, analyses "
        f"{differ[result['analyses_equal']]}."
    )


def whole(result: dict[str, Any]) -> bool:
    """Whether nothing is lost, different or unjust."""
    wrong = ("lost_trials", "duplicate_rows", "trials_with_other_weights", "trials_given_up", "unexpected")
    return result["rows_equal"] and result["analyses_equal"] and not any(result[name] for name in wrong)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--s3", action="store_true", help="on an S3, with the faults that it takes")
    parser.add_argument("--faults", type=int, help=f"default: {FAULTS}; with --s3, {FAULTS_ON_S3}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", default="[0,1]", help="of the trained networks")
    parser.add_argument("--interventions", default="[baseline, rotate90, no_pooling, untrained]")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], help="a kind of fault; default: all")
    parser.add_argument("--undisturbed", type=Path, help="where the undisturbed run is kept, for other chaos")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.faults = given.faults or (FAULTS_ON_S3 if given.s3 else FAULTS)
    return given


def main() -> int:
    given = arguments()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    grid = [
        "--set", f"seeds={given.seeds}", "--set", f"interventions={given.interventions}",
        "--set", f"recipe.epochs={given.epochs}",
        "--set", "data.options={train_images: 1280, val_images: 64}", "--set", "resources.save_every_s=1.0",
    ]  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        work = Path(folder)
        storage = S3() if given.s3 else Tmpfs(work / "storage")
        kinds = kinds_for(storage, given.only)
        stage = Stage(work, storage, grid, given.seed)
        undisturbed = given.undisturbed or work / "undisturbed"
        quiet = [*SWEEP, "launch", "demo", *grid, "--storage", str(undisturbed)]
        try:
            subprocess.run([*quiet, "--address", stage.cluster.address], check=True, stdout=subprocess.DEVNULL)
            failures = Failures(stage)
            struck = strike(stage, kinds, given.faults)
            resumes = finish(stage)
            failed = failures.close()
            result = compared(facts(stage.sweep), facts(SweepDir(UPath(undisturbed / "demo"))))
            given_up, by_themselves = stage.given_up(), ended_by_themselves(stage)
        finally:
            stage.close()
            storage.close()
            print(*(driver.said() for driver in stage.drivers[-3:]), sep="\n")
    options = f"{'--s3 ' if given.s3 else ''}--faults {given.faults} --seed {given.seed}"
    result = {
        "command": f"python benchmarks/chaos.py {options}",
        "faults": len(struck),
        "rows": [{"fault": kind, "struck": sum(fault["fault"] == kind for fault in struck)} for kind in kinds],
        "storage": storage.kind,
        "launches": len(stage.drivers),
        "resumes_after_the_last_fault": resumes,
        "drivers_ended_by_themselves": by_themselves,
        "trials_given_up": given_up,
        "unexpected": stage.unexpected,
        "failures_that_were_retried": failed,
        **result,
        "wall_s": round(time.monotonic() - began),
    }
    result["remark"] = remark(result)
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if whole(result) else 1


if __name__ == "__main__":
    sys.exit(main())
