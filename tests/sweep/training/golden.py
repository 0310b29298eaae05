"""Make the stored loss curve anew: python -m tests.sweep.training.golden"""

import json
import tempfile
from pathlib import Path

from upath import UPath

from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.training.train import train
from tests.sweep.conftest import TINY


def losses() -> list[float]:
    """Training losses of the first epochs of a tiny baseline trial."""
    plan = expand(load_grid("demo", TINY)).plans[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = train(plan.spec, prepare(plan.spec.data, None), UPath(folder))
    return [float(row["train_loss"] or 0) for row in rows[1:]]


if __name__ == "__main__":
    file = Path(__file__).with_name("golden_losses.json")
    file.write_text(json.dumps(losses()) + "\n")
    print(f"wrote {file}")
