"""A sweep as the dashboard meets it, written without training: every state, two seeds, a surprise."""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sweep.results.tables import COLUMNS, TableName

TRIALS = [
    # intervention, seed, status, horizontal, vertical, verdict, expected
    ("baseline", 0, "finished", 0.91, -0.12, "horizontal", "horizontal"),
    ("baseline", 1, "finished", 0.85, -0.10, "horizontal", "horizontal"),
    ("rotate90", 0, "finished", -0.10, 0.90, "vertical", "vertical"),
    ("no_pooling", 0, "running", 0.88, -0.11, "horizontal", "none"),
    ("x_pool", 0, "failed", None, None, None, None),
    ("untrained", 0, "pending", None, None, None, None),
    ("coord_conv", 0, "excluded", None, None, None, None),
]
STEPS = {0: 0, 10: 1, 20: 2}


def trial_id(intervention: str, seed: int) -> str:
    return f"simplified_mini-{intervention}-s{seed}-0123456789ab"


def write_sweep(folder: Path) -> None:
    """Write `sweep.yaml`, tables, reduced weights and one traceback into a folder."""
    (folder / "results").mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"schema": 1, "launches": [{"grid": {"name": folder.name}}]}))
    _write_driver(folder)
    trials, epochs, layers = [], [], []
    for intervention, seed, status, horizontal, vertical, verdict, expected in TRIALS:
        own = {"trial_id": trial_id(intervention, seed)}
        trials.append(own | _facts(intervention, seed, status))
        if horizontal is None or vertical is None:
            continue
        for step, epoch in STEPS.items():
            share = epoch / 2
            epochs.append(own | _epoch(step, epoch))
            scores = {"horizontal": share * horizontal, "vertical": share * vertical}
            said = verdict if epoch == 2 else "none"
            layers += [own | _layer(step, epoch, position, scores, said, expected) for position in (1, 2)]
            for name in ("features.3b.conv", "features.3a.conv"):
                _write_reduced(folder / "trials" / own["trial_id"] / "layers" / str(step) / f"{name}.npz")
    error = folder / "trials" / trial_id("x_pool", 0) / "error.txt"
    error.parent.mkdir(parents=True)
    error.write_text("Traceback (most recent call last):\nDivergedError: the loss was not a finite number at step 7")
    error.with_name("log.txt").write_text("2026-01-01T00:00:00Z attempt 1 starts on node-7, process 7\n")
    for table, rows in (("trials", trials), ("epochs", epochs), ("layers", layers), ("neurons", [])):
        _write_table(folder, table, rows)


def _write_driver(folder: Path) -> None:
    """A driver on another host gave a sign a moment ago, so what runs does run."""
    now = time.time()
    driver = {"host": "node-1", "pid": 1, "token": "t", "started_at": now, "heartbeat_at": now}
    (folder / "driver").mkdir()
    (folder / "driver" / "1.json").write_text(json.dumps(driver))


def _write_table(folder: Path, name: TableName, rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows, columns=list(COLUMNS[name])).astype(COLUMNS[name])
    frame.to_parquet(folder / "results" / f"{name}.parquet", index=False)


def _facts(intervention: str, seed: int, status: str) -> dict[str, Any]:
    return {
        "architecture": "simplified_mini",
        "intervention": intervention,
        "data": "scenes",
        "seed": seed,
        "status": status,
        "reason": "coordinates need two convolutions" if status == "excluded" else None,
        "attempts": 1,
        "error": "DivergedError: the loss was not a finite number at step 7" if status == "failed" else None,
        "host": "node-3",
        "epoch": 2,
        "epochs": 2,
        "step": 20,
        "steps": 20,
        "val_accuracy": 0.97,
        "wall_s": 40.0,
        "parameters": 104183,
    }


def _epoch(step: int, epoch: int) -> dict[str, Any]:
    loss = 3.3 / (epoch + 1)
    trained = {"train_loss": loss, "train_accuracy": 0.3 * epoch} if epoch else {}
    return {
        "epoch": epoch,
        "step": step,
        "val_loss": loss,
        "val_accuracy": 0.4 * epoch,
        "wall_s": 20.0 * epoch,
    } | trained


def _layer(
    step: int, epoch: int, position: int, scores: dict[str, float], verdict: str | None, expected: str | None
) -> dict[str, Any]:
    intervals = {f"{name}_low": value - 0.05 for name, value in scores.items()}
    intervals |= {f"{name}_high": value + 0.05 for name, value in scores.items()}
    layer = "features.3b.conv" if position == 1 else "features.3a.conv"
    facts = {"step": step, "epoch": epoch, "layer": layer, "position": position, "neurons": 48}
    null = {"null_horizontal_mean": 0.0, "null_horizontal_high": 0.03, "null_turned_high": 0.4, "reliability": 0.8}
    return facts | scores | intervals | null | {"verdict": verdict, "expected": expected}


def _write_reduced(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.linspace(0, 1, 5)[None, :, None, None]
    reduced = np.concatenate([rows, 0.5 + 0 * rows, 1 - rows], axis=3).repeat(5, axis=2).repeat(48, axis=0)
    buffer = io.BytesIO()
    score = np.linspace(0.5, 1, 48, dtype=np.float32)
    order = np.arange(48, dtype=np.int32)
    np.savez(buffer, reduced=reduced.astype(np.float16), order=order, horizontal=score, vertical=-score / 5)
    path.write_bytes(buffer.getvalue())
