"""From results tables to what the pages show. Pure functions of frames; no drawing."""

import pandas as pd

from sweep.results import final_layers

STATES = ("finished", "running", "pending", "failed", "excluded")
SYMBOLS = {"horizontal": "☰", "vertical": "☷", "none": "○", "failed": "✕", "excluded": "-", "waiting": "…"}
THRESHOLD = 2 / 3


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """How many trials are in each state."""
    found = trials["status"].value_counts()
    return {state: int(found.get(state, 0)) for state in STATES}


def last_convs(trials: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: its facts and, where analysed, its last conv at the newest checkpoint (columns of `layers`)."""
    last = layers[(layers["position"] == 1) & layers["error"].isna()]
    columns = ["trial_id", "layer", "horizontal", "vertical", "verdict", "expected"]
    newest = final_layers(last)[[*columns, "step"]].rename(columns={"step": "analysed_step"})
    return trials.merge(newest, on="trial_id", how="left")


def cells(last: pd.DataFrame) -> pd.DataFrame:
    """The grid: a row for each data set, architecture and intervention, over its seeds.

    `outcome` is the verdict most seeds share, or failed, excluded, waiting; `score` the mean of the score that the
    verdict is about, `spread` its standard deviation over seeds (missing with one seed); `label` is what the cell says.
    """
    groups = last.groupby(["data", "architecture", "intervention"], sort=False)
    return pd.DataFrame([dict(zip(groups.keys, key, strict=True)) | _cell(group) for key, group in groups])


def trial_table(last: pd.DataFrame) -> pd.DataFrame:
    """The trials as a reader wants them: the worrying ones first, columns in words."""
    urgency = {"failed": 0, "running": 1, "pending": 2, "finished": 3, "excluded": 4}
    ordered = last.sort_values(
        ["status", "architecture", "intervention", "seed"], key=lambda c: c.map(urgency) if c.name == "status" else c
    )
    names = {
        "architecture": "Architecture",
        "intervention": "Intervention",
        "seed": "Seed",
        "status": "Status",
        "val_accuracy": "Accuracy",
        "horizontal": "Horizontal",
        "vertical": "Vertical",
        "verdict": "Verdict",
        "expected": "Expected",
        "attempts": "Attempts",
        "error": "Error",
        "trial_id": "Trial",
    }
    return ordered[list(names)].rename(columns=names).reset_index(drop=True)


def trajectory(layers: pd.DataFrame, trial_id: str) -> pd.DataFrame:
    """Scores of a trial's layers over its checkpoints, long: layer, epoch, direction, score, low, high."""
    own = layers[(layers["trial_id"] == trial_id) & layers["error"].isna()]
    parts = [
        own[["layer", "epoch", "step"]].assign(
            direction=direction, score=own[direction], low=own[f"{direction}_low"], high=own[f"{direction}_high"]
        )
        for direction in ("horizontal", "vertical")
    ]
    return pd.concat(parts, ignore_index=True)


def curves(epochs: pd.DataFrame, trial_id: str, quantity: str) -> pd.DataFrame:
    """A trial's training and validation curve of `loss` or `accuracy`, long: epoch, images, value."""
    own = epochs[epochs["trial_id"] == trial_id]
    parts = [
        own[["epoch"]].assign(images=images, value=own[f"{prefix}_{quantity}"])
        for images, prefix in (("training", "train"), ("validation", "val"))
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def _cell(group: pd.DataFrame) -> dict[str, object]:
    analysed = group.dropna(subset="verdict")
    states = counts(group)
    outcome = _outcome(group, analysed)
    facts: dict[str, object] = {
        "outcome": outcome,
        "seeds": len(group),
        "state": ", ".join(f"{number} {state}" for state, number in states.items() if number),
        "expected": next(iter(group["expected"].dropna()), "unknown"),
        "reason": next(iter(group["reason"].dropna()), None) or next(iter(group["error"].dropna()), None),
        "score": None,
        "spread": None,
        "trial_id": (analysed if len(analysed) else group)["trial_id"].iloc[0],
    }
    if outcome in ("horizontal", "vertical", "none"):
        scores = analysed["vertical" if outcome == "vertical" else "horizontal"].astype(float)
        facts["score"] = float(scores.mean())
        facts["spread"] = float(scores.std(ddof=1)) if len(scores) > 1 else None
    facts["surprising"] = (
        outcome in SYMBOLS and facts["expected"] not in (outcome, "unknown") and facts["score"] is not None
    )
    facts["label"] = _label(outcome, facts["score"], facts["spread"], bool(facts["surprising"]), states["failed"])
    return facts


def _outcome(group: pd.DataFrame, analysed: pd.DataFrame) -> str:
    if (group["status"] == "excluded").all():
        return "excluded"
    if len(analysed):
        return str(analysed["verdict"].mode().iloc[0])
    return "failed" if (group["status"] == "failed").any() else "waiting"


def _label(outcome: str, score: object, spread: object, surprising: bool, failed: int) -> str:
    number = f" {score:.2f}" if isinstance(score, float) else f" {outcome}"
    deviation = f" ± {spread:.2f}" if isinstance(spread, float) else ""
    marks = ("  ≠ expected" if surprising else "") + (f"  ✕{failed}" if failed and outcome != "failed" else "")
    return SYMBOLS[outcome] + number + deviation + marks
