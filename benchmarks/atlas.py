"""An atlas at scale: timm's networks with their constructors' random weights, through what `sweep atlas` calls.

    python benchmarks/atlas.py [--most 1500] [--every 1] [--minutes 600] [--json FILE]

About 10 s of CPU a network, so 2 hours for all 1,371 on 2 idle CPU cores; with `--every 10`, every tenth of them by
name. After `--minutes`, it stops as by Ctrl-C and tells what is complete. Expect the driver to stay as large as a few
imports, and each actor as they and the largest network, however many networks there are. Expect no layer to be called
banded: random weights have no bands. What fails is listed by kind.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from rich.console import Console
from upath import UPath

from sweep.results.atlas import failures, read_atlas
from sweep.results.words import count
from sweep.service.atlas import Charter, make_atlas
from sweep.store.atlas_dir import AtlasDir

_LOOK_S = 0.5
_MIB = 2**20


class Usage(threading.Thread):
    """CPU seconds of this process and all below it, and the largest resident memory of an actor."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.cpu: dict[int, float] = {}
        self.actor_mib = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_LOOK_S):
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with suppress(psutil.Error):
                    self._look(process)

    def _look(self, process: psutil.Process) -> None:
        times = process.cpu_times()
        self.cpu[process.pid] = times.user + times.system
        if f"ray::{Charter.__name__}" in " ".join(process.cmdline()):
            self.actor_mib = max(self.actor_mib, process.memory_info().rss / _MIB)

    def end(self) -> float:
        self._over.set()
        self.join()
        return sum(self.cpu.values())


def names() -> list[str]:
    """timm's architectures, listed by a process of its own: this one is the driver, and is measured."""
    command = [sys.executable, "-W", "ignore", "-c", "import timm; print(*timm.list_models())"]
    return subprocess.check_output(command, text=True).split()


def made(atlas: AtlasDir, sources: Sequence[str], minutes: float) -> bool:
    """Make an atlas in the time that there is; whether it is complete."""
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        make_atlas(atlas, sources, None, None, None, Console(stderr=True))
    except KeyboardInterrupt:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return True


def summary(table: pd.DataFrame, wall_s: float, usage: Usage) -> dict[str, Any]:
    scored = table[table["verdict"].notna()]
    return {
        "networks": int(table["source"].nunique()),
        "scored": int(scored["source"].nunique()),
        "layers": len(scored),
        "horizontal": int((scored["verdict"] == "horizontal").sum()),
        "vertical": int((scored["verdict"] == "vertical").sum()),
        "wall_s": round(wall_s),
        "cpu_s": round(usage.end()),
        "driver_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "actor_mib": round(usage.actor_mib),
        "largest_mib": round(int(table["parameters"].max()) * 4 / _MIB),
    }


def remark(table: pd.DataFrame, asked: int, complete: bool) -> str:
    scored = table[table["verdict"].notna()]
    banded = (scored["verdict"] != "none").mean()
    highest = scored[["horizontal", "vertical"]].to_numpy(float).max()
    counts = Counter(map(str, table.drop_duplicates("source")["pooling"].fillna("unknown")))
    pooling = [f"{name} {number}" for name, number in counts.most_common()]
    said = [
        f"{count(asked, 'network')} asked for, {'all looked at' if complete else 'stopped by the time limit'}; "
        f"one actor for each of {os.cpu_count()} cores.",
        f"{banded:.1%} of the layers are called banded; the highest score is {highest:.2f}.",
        f"Pooling: {', '.join(pooling)}.",
        f"Without scores: {'; '.join(f'{number} ({error[:160]})' for number, error, _ in failures(table)) or 'none'}.",
    ]
    return " ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1500)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sources = [f"random:timm:{name}" for name in names()[:: arguments.every][: arguments.most]]
    with tempfile.TemporaryDirectory() as folder:
        atlas = AtlasDir(UPath(folder) / "atlas")
        usage = Usage()
        usage.start()
        began = time.perf_counter()
        complete = made(atlas, sources, arguments.minutes)
        table = read_atlas(atlas)
    row = summary(table, time.perf_counter() - began, usage)
    facts = {"command": " ".join(["python", *sys.argv]), "rows": [row], "remark": remark(table, len(sources), complete)}
    print(json.dumps(facts, indent=1))
    for number, error, where in failures(table):
        print(number, error, *where[:5])
    banded = table[table["verdict"].isin(["horizontal", "vertical"])]
    print(banded[["source", "layer", "kernel", "neurons", "channels", "horizontal", "vertical"]].to_string())
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
