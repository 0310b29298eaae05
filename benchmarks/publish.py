"""Run a grid and put its results where the documents read them: docs/results/<NAME>.json, and .png if one shows it.

    python benchmarks/publish.py demo3 demo --set 'seeds=[0,1,2]'
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/publish.py demo8-avx2 demo --set 'seeds=[0,1,2,3,4,5,6,7]'
    python benchmarks/publish.py photos photos --set 'seeds=[0,1,2]' --set data.root=FOLDER
    python benchmarks/publish.py flips flips --set data.root=FOLDER --then --set data.options.flip=none

What follows a `--then` is launched into the same sweep afterwards, with the options before the first one.
`NAME --as-it-is` launches nothing and tells of the trials that have finished so far.
`make results` runs the first and the third and updates the documents; docs/experiments.md has the commands of its
tables. Takes as long as the grid. A sweep that is already complete in runs/published/ is only read; its time is then
the one measured when it ran, or not told if it ran in several parts.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
THEN, AS_IT_IS = "--then", "--as-it-is"
SWEEP = [sys.executable, "-m", "sweep.cli"]


def launched(options: Sequence[str]) -> list[list[str]]:
    """The options of each launch: all have those before the first `--then`."""
    parts: list[list[str]] = [[]]
    for option in options:
        if option == THEN:
            parts.append([])
        else:
            parts[-1].append(option)
    first, *others = parts
    return [first, *(first + other for other in others)]


def kernels() -> str:
    """Which instructions PyTorch's kernels use, and oneDNN's are held to, if they are: that makes another machine."""
    most = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN's kernels up to {most}" if most else "")


def main(name: str, grid: str, *options: str) -> None:
    storage = ROOT / "runs" / "published" / name
    times = storage / "wall_s.json"
    fresh, began = not storage.exists(), time.perf_counter()
    launches = [] if grid == AS_IT_IS else launched(options)
    for launch in launches:
        subprocess.run([*SWEEP, "launch", grid, *launch, "--storage", str(storage)], check=True)
    if launches and fresh:  # what is only completed takes less
        times.write_text(json.dumps(time.perf_counter() - began))
    sweeps = [path for path in storage.glob("*") if path.is_dir()]
    if len(sweeps) != 1:
        raise SystemExit(f"{storage} holds {len(sweeps)} sweeps; publish one grid under one name")
    (sweep,) = sweeps
    status = subprocess.run([*SWEEP, "status", str(sweep), "--json"], check=True, capture_output=True, text=True)
    facts = {
        "command": "; ".join(f"sweep launch {grid} {' '.join(launch)}".strip() for launch in launches) or AS_IT_IS,
        "wall_s": round(json.loads(times.read_text())) if times.exists() else None,
        "machine": f"{os.cpu_count()} cores of {platform.machine()} with {kernels()}",
        "torch": torch.__version__,
    }
    results = ROOT / "docs" / "results"
    results.mkdir(parents=True, exist_ok=True)
    found = json.loads(status.stdout)
    found["trials"] = [trial for trial in found["trials"] if trial["status"] == "finished"]
    (results / f"{name}.json").write_text(json.dumps(facts | found, indent=1) + "\n")
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if any(f"results/{name}.png" in file.read_text(encoding="utf-8") for file in documents):
        shutil.copy(sweep / "results" / "weights.png", results / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
