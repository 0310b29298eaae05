"""Planted sweeps: how often is an intervention that does nothing called different, and one that does something found?

    python benchmarks/power.py [--draws 2000] [--json FILE]

A minute. Each sweep has scores of two layers in two directions. In the last conv's horizontal score half of
the interventions differ from the baseline by `effect`, or none where it is 0; everything else is noise between seeds.
`spread` says of which strength: `equal` is 0.09 everywhere, `uneven` is that in the root mean square, with logarithms
that spread between cells as those of docs/results/interventions.json do beyond what three seeds a cell explain.
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
from scipy.special import polygamma

from sweep.results.contrasts import contrasts, holm

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "interventions.json"
EQUAL = 0.09
LEVEL = 0.05

Scores = np.ndarray
"""[draws, cells, seeds, layers, directions]; cell 0 is the baseline, layer 0 the last conv, direction 0 horizontal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sigma, chance = unevenness(variances())
    rows = []
    for cells, seeds in ((26, 3), (4, 3), (26, 5)):
        for spread in ("equal", "uneven"):
            for effect in (0.0, 0.3):
                rows.append(row(cells, seeds, sigma if spread == "uneven" else 0.0, effect, arguments.draws))
                print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        facts = {
            "command": "python benchmarks/power.py",
            "remark": remark(arguments.draws, sigma, chance),
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def variances() -> np.ndarray:
    """Of the last conv's score over the seeds of each trained cell of `sweep launch interventions`."""
    scores: dict[str, list[float]] = {}
    for trial in json.loads(RESULTS.read_text(encoding="utf-8"))["trials"]:
        if trial["intervention"] != "untrained":
            scores.setdefault(trial["intervention"], []).append(trial["layers"][0]["horizontal"])
    return np.array([np.var(values, ddof=1) for values in scores.values()])


def unevenness(found: np.ndarray) -> tuple[float, float]:
    """Standard deviation of the logarithms of cells' true spreads, and how often equal ones look as uneven.

    Source: Smyth 2004, "Linear models and empirical Bayes methods", section 6.2: of equal variances, those of three
    values have logarithms with a variance of trigamma(1).
    """
    seen = np.log(found).var(ddof=1)
    by_chance = np.log(np.random.default_rng(0).chisquare(2, (20_000, len(found)))).var(axis=1, ddof=1)
    return float(np.sqrt(max(0.0, seen - polygamma(1, 1.0))) / 2), float((by_chance >= seen).mean())


def row(cells: int, seeds: int, sigma: float, effect: float, draws: int) -> dict[str, Any]:
    draw = np.random.default_rng(cells * 1000 + seeds)
    affected = (np.arange(1, cells) % 2 == 0) & (effect > 0)
    deviation = EQUAL * np.exp(sigma * draw.normal(size=(draws, cells)) - sigma**2)  # EQUAL in the root mean square
    scores = draw.normal(size=(draws, cells, seeds, 2, 2)) * deviation[:, :, None, None, None]
    scores[:, 1:, :, 0, 0] += effect * affected[:, None]
    significant = {name: way(scores) < LEVEL for name, way in WAYS.items()}
    measured = {f"error_{name}": f"{found[:, ~affected].any(axis=1).mean():.3f}" for name, found in significant.items()}
    for name, found in significant.items():
        measured[f"power_{name}"] = f"{found[:, affected].mean():.3f}" if effect else ""
    spread = "uneven" if sigma else "equal"
    return {"cells": cells, "seeds": seeds, "spread": spread, "effect": effect} | measured


def pooled(scores: Scores) -> np.ndarray:
    """Corrected probabilities [draws, cells - 1] of the primary endpoints, as the report tells them."""
    table = contrasts(as_scored(scores[:, :, :, 0]))
    p = table.loc[table["primary"], "p"].to_numpy(float)
    return corrected(p.reshape(len(scores), -1))


def welch(scores: Scores) -> np.ndarray:
    last = scores[:, :, :, 0, 0]
    return corrected(stats.ttest_ind(last[:, 1:], last[:, :1], axis=2, equal_var=False).pvalue)


def paired(scores: Scores) -> np.ndarray:
    p = stats.ttest_rel(scores[:, 1:], scores[:, :1], axis=2).pvalue  # [draws, cells - 1, layers, directions]
    return corrected(p.reshape(len(p), -1)).reshape(p.shape)[:, :, 0, 0]


def corrected(p: np.ndarray) -> np.ndarray:
    """Each sweep's probabilities by Holm."""
    return np.stack([holm(pd.Series(of_sweep)).to_numpy() for of_sweep in p])


WAYS: dict[str, Callable[[Scores], np.ndarray]] = {"pooled": pooled, "welch": welch, "paired": paired}


def as_scored(scores: np.ndarray) -> pd.DataFrame:
    """Last convs' scores [draws, cells, seeds, directions] as `sweep.results.statistics.scored` gives them.

    Each sweep is a condition of its own, so that all are computed at once.
    """
    number, cell, seed = (index.ravel() for index in np.indices(scores.shape[:3]))
    names = np.array(["baseline", *(f"intervention {number}" for number in range(1, scores.shape[1]))])
    return pd.DataFrame(
        {
            "data": "scenes", "data_key": "d", "recipe_key": number, "architecture": "net", "step": 100,
            "intervention": names[cell], "seed": seed, "layer": "last", "position": 1,
            "horizontal": scores[..., 0].ravel(), "vertical": scores[..., 1].ravel(),
            "val_accuracy": np.nan, "expected": "unknown", "primary": "horizontal",
        }
    )  # fmt: skip


def remark(draws: int, sigma: float, chance: float) -> str:
    trials = json.loads(RESULTS.read_text(encoding="utf-8"))["trials"]
    rows = pd.DataFrame([_published(trial, layer) for trial in trials for layer in (0, 1)])
    table = contrasts(rows)
    scores = rows[rows["position"] == 1].pivot_table(index="intervention", columns="seed", values="horizontal")
    tested = table[table["primary"]]
    found = int((tested["p_holm"] < LEVEL).sum())
    return (
        f"{draws} sweeps a row. In the published sweep of {len(scores)} interventions, {found} of {len(tested)} "
        f"primary endpoints differ from the baseline's (p < {LEVEL}, Holm); the spread between seeds is "
        f"{tested['std'].iloc[0]:.3f} with {tested['df'].iloc[0]:.0f} degrees of freedom. Its logarithm varies "
        f"between cells by {sigma:.2f}; equal ones look as uneven {chance:.0%} of the time. {_of_seeds(scores)}"
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
