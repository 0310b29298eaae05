"""Run a grid and put its results where the documents read them: docs/results/<NAME>.json and .png.

    python benchmarks/publish.py demo3 demo --set 'seeds=[0,1,2]'
    python benchmarks/publish.py photos photos --set data.root=FOLDER

`make results` runs both and updates the documents. Takes as long as the grid: about 9 and 7 minutes for these on 2 CPU
cores. A sweep that is already complete in runs/published/ is only read; its time is then the one measured when it ran.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
SWEEP = [sys.executable, "-m", "sweep.cli"]


def main(name: str, grid: str, *options: str) -> None:
    storage = ROOT / "runs" / "published" / name
    times = storage / "wall_s.json"
    began = time.perf_counter()
    subprocess.run([*SWEEP, "launch", grid, *options, "--storage", str(storage)], check=True)
    if not times.exists():
        times.write_text(json.dumps(time.perf_counter() - began))
    (sweep,) = (path for path in storage.iterdir() if path.is_dir())
    status = subprocess.run([*SWEEP, "status", str(sweep), "--json"], check=True, capture_output=True, text=True)
    facts = {
        "command": f"sweep launch {grid} {' '.join(options)}".strip(),
        "wall_s": round(json.loads(times.read_text())),
        "machine": f"{os.cpu_count()} cores of {platform.machine()}",
        "torch": torch.__version__,
    }
    results = ROOT / "docs" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(facts | json.loads(status.stdout), indent=1) + "\n")
    shutil.copy(sweep / "results" / "weights.png", results / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
