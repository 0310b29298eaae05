"""What the networks of a published sweep lose without their bands: docs/results/<NAME>-ablations.json.

    python benchmarks/publish.py demo8 demo --set 'seeds=[0,1,2,3,4,5,6,7]'
    python benchmarks/ablations.py demo8

Runs `sweep ablate` on the sweep that benchmarks/publish.py left in runs/published/<NAME>. The difference told below the
table is the primary endpoint of docs/experiments.md: how much more column means cost than row means, with a t interval
over the seeds.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
from upath import UPath

from sweep.results.ablated import CHANGES, over_changes
from sweep.results.contrasts import half_width
from sweep.results.statistics import finished
from sweep.results.tables import read_table
from sweep.results.words import decimal, mean_and_spread, short_layer
from sweep.spec import USUAL_FLIP

ROOT = Path(__file__).parents[1]


def main(name: str) -> None:
    (sweep,) = (path for path in (ROOT / "runs" / "published" / name).iterdir() if path.is_dir())
    subprocess.run([sys.executable, "-m", "sweep.cli", "ablate", str(sweep)], check=True)
    trials, layers, ablations = (read_table(UPath(sweep), table) for table in ("trials", "layers", "ablations"))
    flips = trials.drop_duplicates("data_key").set_index("data_key")["flip"].fillna(USUAL_FLIP)
    rows = [
        {
            "intervention": f"`{row['intervention']}`",
            "flip": flips[row["data_key"]],
            "layer": short_layer(row["layer"]),
            "seeds": row["n"],
            **{said: mean_and_spread(row[f"{change}_mean"], row[f"{change}_std"]) for change, said in CHANGES.items()},
        }
        for row in over_changes(trials, layers, ablations).to_dict("records")
    ]
    facts = {
        "command": f"python benchmarks/ablations.py {name}",
        "rows": rows,
        "remark": f"Recalibrated accuracy on {ablations['images'].max()} validation images, mean ± standard deviation "
        f"over seeds. {primary(trials, layers, ablations)}",
    }
    (ROOT / "docs" / "results" / f"{name}-ablations.json").write_text(json.dumps(facts, indent=1) + "\n")


def primary(trials: pd.DataFrame, layers: pd.DataFrame, ablations: pd.DataFrame) -> str:
    """How much more column means cost the last conv than row means, in each cell of several seeds."""
    last = layers.loc[layers["position"] == 1, ["trial_id", "layer"]].drop_duplicates()
    facts = finished(trials)[["trial_id", "step", "intervention", "flip"]].fillna({"flip": USUAL_FLIP})
    rows = ablations.merge(last, on=["trial_id", "layer"]).merge(facts, on=["trial_id", "step"])
    table = rows.pivot_table(
        index=["intervention", "flip", "trial_id"], columns="change", values="recalibrated_accuracy"
    )
    told = []
    for cell, group in (table["row_means"] - table["column_means"]).groupby(["intervention", "flip"], sort=False):
        costs = [float(cost) for cost in group]
        if len(costs) > 1:
            half = float(half_width(stdev(costs) / len(costs) ** 0.5, len(costs) - 1))
            told.append(f"`{cell[0]}` ({cell[1]}) {decimal(mean(costs))} ± {decimal(half)}")
    return f"How much more column means cost than row means, last conv, with its 95% interval: {', '.join(told)}."


if __name__ == "__main__":
    main(*sys.argv[1:])
