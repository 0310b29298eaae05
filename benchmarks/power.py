"""Planted sweeps: how often is an intervention that does nothing called different, and one that does something found?

    python benchmarks/power.py [--draws 500] [--json FILE]

About four minutes. Each sweep has scores of two layers in two directions. In the last conv's horizontal score half of
the interventions differ from the baseline by `effect`, or none where it is 0; everything else is noise between seeds.
`spread` says of which strength: `equal` is 0.09 everywhere, the pooled one of docs/results/interventions.json; `as
measured` gives each cell the spread of one of that sweep's trained cells, drawn anew for each sweep.
`error` is the share of sweeps in which an intervention that does nothing is called different (Holm, 0.05); `power` the
share of the others that are found. `pooled` is `sweep.results.contrasts`; `welch` uses only the two cells compared;
`paired` is what the project did before: paired t-tests by seed, corrected for all differences of both layers and
directions.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sweep.results.contrasts import contrasts, holm

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "interventions.json"
EQUAL = 0.09
LEVEL = 0.05

Scores = np.ndarray
"""[cells, seeds, layers, directions]; cell 0 is the baseline, layer 0 the last conv, direction 0 horizontal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    spreads = measured_spreads()
    rows = []
    for cells, seeds in ((26, 3), (4, 3), (26, 5)):
        for spread in ("equal", "as measured"):
            for effect in (0.0, 0.3):
                rows.append(row(cells, seeds, spread, effect, spreads, arguments.draws))
                print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        facts = {"command": "python benchmarks/power.py", "remark": remark(arguments.draws), "rows": rows}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def measured_spreads() -> np.ndarray:
    """The standard deviation between seeds of each trained cell of `sweep launch interventions`, last conv."""
    scores: dict[str, list[float]] = {}
    for trial in json.loads(RESULTS.read_text(encoding="utf-8"))["trials"]:
        if trial["intervention"] != "untrained":
            scores.setdefault(trial["intervention"], []).append(trial["layers"][0]["horizontal"])
    return np.array([np.std(values, ddof=1) for values in scores.values()])


def row(cells: int, seeds: int, spread: str, effect: float, spreads: np.ndarray, draws: int) -> dict[str, Any]:
    draw = np.random.default_rng(cells * 1000 + seeds)
    affected = (np.arange(1, cells) % 2 == 0) & (effect > 0)
    errors, found = dict.fromkeys(WAYS, 0), dict.fromkeys(WAYS, 0)
    for _ in range(draws):
        deviation = np.full(cells, EQUAL) if spread == "equal" else draw.choice(spreads, cells)
        scores = draw.normal(size=(cells, seeds, 2, 2)) * deviation[:, None, None, None]
        scores[1:, :, 0, 0] += effect * affected[:, None]
        for name, way in WAYS.items():
            significant = way(scores) < LEVEL
            errors[name] += bool(significant[~affected].any())
            found[name] += int(significant[affected].sum())
    affected_draws = draws * int(affected.sum())
    measured = {f"error_{name}": f"{errors[name] / draws:.3f}" for name in WAYS}
    measured |= {f"power_{name}": f"{found[name] / affected_draws:.3f}" if effect else "" for name in WAYS}
    return {"cells": cells, "seeds": seeds, "spread": spread, "effect": effect} | measured


def pooled(scores: Scores) -> np.ndarray:
    """Corrected probabilities of the interventions' primary endpoints, as the report tells them."""
    table = contrasts(as_scored(scores))
    return table.loc[table["primary"], "p_holm"].to_numpy(float)


def welch(scores: Scores) -> np.ndarray:
    p = stats.ttest_ind(scores[1:, :, 0, 0], scores[:1, :, 0, 0], axis=1, equal_var=False).pvalue
    return holm(pd.Series(p)).to_numpy()


def paired(scores: Scores) -> np.ndarray:
    p = stats.ttest_rel(scores[1:], scores[:1], axis=1).pvalue  # [cells - 1, layers, directions]
    return holm(pd.Series(p.ravel())).to_numpy().reshape(p.shape)[:, 0, 0]


WAYS: dict[str, Callable[[Scores], np.ndarray]] = {"pooled": pooled, "welch": welch, "paired": paired}


def as_scored(scores: Scores) -> pd.DataFrame:
    """Rows as `sweep.results.statistics.scored` gives them."""
    cell, seed, layer = (index.ravel() for index in np.indices(scores.shape[:3]))
    names = np.array(["baseline", *(f"intervention {number}" for number in range(1, len(scores)))])
    return pd.DataFrame(
        {
            "data": "scenes", "data_key": "d", "recipe_key": "r", "architecture": "net", "step": 100,
            "intervention": names[cell], "seed": seed, "layer": np.array(["last", "before"])[layer],
            "position": layer + 1, "horizontal": scores[..., 0].ravel(), "vertical": scores[..., 1].ravel(),
            "val_accuracy": np.nan, "expected": "unknown", "primary": "horizontal",
        }
    )  # fmt: skip


def remark(draws: int) -> str:
    trials = json.loads(RESULTS.read_text(encoding="utf-8"))["trials"]
    rows = pd.DataFrame([_published(trial, layer) for trial in trials for layer in (0, 1)])
    table = contrasts(rows)
    scores = rows[rows["position"] == 1].pivot_table(index="intervention", columns="seed", values="horizontal")
    tested = table[table["primary"]]
    found = int((tested["p_holm"] < LEVEL).sum())
    return (
        f"{draws} sweeps a row. In the published sweep of {len(scores)} interventions, {found} of {len(tested)} "
        f"primary endpoints differ from the baseline's (p < {LEVEL}, Holm); the spread between seeds is "
        f"{tested['std'].iloc[0]:.3f} with {tested['df'].iloc[0]:.0f} degrees of freedom. {_of_seeds(scores)}"
    )


def _of_seeds(scores: pd.DataFrame) -> str:
    """What a trial's seed has to do with its score: two-way analysis of variance, correlation with the baseline."""
    values = scores.to_numpy()
    cells, seeds = values.shape
    of_seeds = values.mean(axis=0) - values.mean()
    rest = values - values.mean(axis=1, keepdims=True) - of_seeds
    df = (seeds - 1, (cells - 1) * (seeds - 1))
    f = cells * np.square(of_seeds).sum() / df[0] / (np.square(rest).sum() / df[1])
    others = scores.drop(index="baseline").T
    correlation = others.corrwith(scores.loc["baseline"]).mean()
    return f"The seed's effect on the score: F{df} = {f:.2f}; correlation with the baseline's: {correlation:.2f}."


def _published(trial: dict[str, Any], layer: int) -> dict[str, Any]:
    scores = {name: trial["layers"][layer][name] for name in ("layer", "horizontal", "vertical", "expected")}
    facts = {name: trial[name] for name in ("architecture", "intervention", "seed", "val_accuracy")}
    common = {"data": "scenes", "data_key": "d", "recipe_key": "r", "position": layer + 1, "primary": None}
    return facts | scores | common | {"step": 0 if trial["intervention"] == "untrained" else 1}


if __name__ == "__main__":
    main()
