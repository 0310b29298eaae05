"""Every architecture x every intervention through Ray, two steps each: how the cells end, how long it takes.

    python benchmarks/smoke_full.py [--storage FOLDER] [--json FILE]

50 minutes on 2 busy CPU cores, and 40 GB in FOLDER (default: a temporary one), which is removed
afterwards. Expect every cell finished or excluded, and every layer of every checkpoint analysed without an error.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from upath import UPath

from sweep.results.tables import read_table

SWEEP = [sys.executable, "-m", "sweep.cli"]
GRID = "smoke-full"


def measure(storage: Path) -> dict[str, Any]:
    """Launch the grid into an empty folder and report the outcome."""
    began = time.perf_counter()
    launched = subprocess.run([*SWEEP, "launch", GRID, "--storage", str(storage)], check=False)
    wall_s = time.perf_counter() - began
    status = subprocess.run(
        [*SWEEP, "status", GRID, "--storage", str(storage), "--json"], check=True, capture_output=True, text=True
    )
    layers = read_table(UPath(storage / GRID), "layers")
    counts = json.loads(status.stdout)["counts"]
    row = {"cells": sum(counts.values())} | {state: counts[state] for state in ("finished", "excluded", "failed")}
    row |= {
        "layers_analysed": int(layers["error"].isna().sum()),
        "layers_with_error": int(layers["error"].notna().sum()),
        "wall_s": round(wall_s),
        "kept_gb": round(sum(file.stat().st_size for file in storage.rglob("*") if file.is_file()) / 1e9, 1),
    }
    machine = f"{os.cpu_count()} cores of {platform.machine()}, load average {os.getloadavg()[2]:.0f} at the end"
    return {
        "command": f"sweep launch {GRID}",
        "exit_code": launched.returncode,
        "rows": [row],
        "remark": f"On {machine}, PyTorch {torch.__version__}.",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, help="an empty folder, removed afterwards")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    storage = arguments.storage or Path(tempfile.mkdtemp(prefix="smoke-full-"))
    storage.mkdir(exist_ok=True)
    if any(storage.iterdir()):
        sys.exit(f"{storage} is not empty, and would be removed")
    try:
        facts = measure(storage)
    finally:
        shutil.rmtree(storage)
    print(json.dumps(facts, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    sys.exit(facts["exit_code"])


if __name__ == "__main__":
    main()
