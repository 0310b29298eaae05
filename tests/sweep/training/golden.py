"""Make the stored course of a training again: python -m tests.sweep.training.golden

With `--every-change` it prints the course and that of each changed recipe, and stores nothing.
"""

import json
import sys
import tempfile
from pathlib import Path

from upath import UPath

from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.store.checkpoint import read_checkpoint
from sweep.training.train import train
from tests.sweep.conftest import TINY

FILE = Path(__file__).with_name("golden_course.json")

# Decay so strong that nine steps tell it from none.
RECIPE = ("recipe.weight_decay_body=0.1", "recipe.weight_decay_head=0.1")
CHANGES = {
    "no weight decay": ("recipe.weight_decay_body=0", "recipe.weight_decay_head=0"),
    "no weight decay of the body": ("recipe.weight_decay_body=0",),
    "no weight decay of the head": ("recipe.weight_decay_head=0",),
    "learning rate + 20 %": ("recipe.lr=0.12",),
    "constant learning rate": ("recipe.lr_schedule=constant",),
    "momentum 0.8": ("recipe.momentum=0.8",),
    "no Nesterov": ("recipe.nesterov=false",),
}

# The largest relative difference that is none. Between processors (ONEDNN_MAX_CPU_ISA SSE41 to AVX512_CORE with
# ATEN_CPU_CAPABILITY default to avx512) it is 0.0001 %, the least change above makes 0.25 % of a loss.
TOLERANCE = 5e-4


def course(*changes: str) -> list[float]:
    """Losses of three epochs of a tiny baseline trial, and the norms of two weights at its end."""
    plan = expand(load_grid("demo", [*TINY, *RECIPE, *changes])).plans[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = train(plan.spec, prepare(plan.spec.data, None), UPath(folder))
        weights = read_checkpoint(UPath(folder) / "checkpoints" / str(rows[-1]["step"])).model
    losses = [float(row[loss] or 0) for loss in ("train_loss", "val_loss") for row in rows[1:]]
    names = (f"{plan.layers[0]}.weight", "head.classifier.weight")
    return losses + [weights[name].double().norm().item() for name in names]


def departure(found: list[float], stored: list[float]) -> float:
    """The largest relative difference of two courses."""
    return max(abs(mine - theirs) / abs(theirs) for mine, theirs in zip(found, stored, strict=True))


if __name__ == "__main__":
    if "--every-change" in sys.argv:
        print(json.dumps({"as it is": course()} | {name: course(*changes) for name, changes in CHANGES.items()}))
    else:
        FILE.write_text(json.dumps(course()) + "\n")
        print(f"wrote {FILE}")
