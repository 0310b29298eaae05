"""The grid of a sweep: one cell for each data set, architecture and intervention, over its seeds. No drawing."""

import pandas as pd

STATES = ("finished", "running", "pending", "failed", "excluded")
VERDICTS = ("horizontal", "vertical", "none")
SYMBOLS = {"horizontal": "▤", "vertical": "▥", "none": "□", "failed": "✕", "excluded": "–", "waiting": "…"}
"""What a cell or trial comes to; a square is filled as the weights are."""


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """How many trials are in each state."""
    found = trials["status"].value_counts()
    return {state: int(found.get(state, 0)) for state in STATES}


def cells(last: pd.DataFrame) -> pd.DataFrame:
    """The grid, from one row a trial (`shape.last_convs`), in the order in which the sweep names its cells.

    `outcome` is the verdict that most seeds share, or failed, excluded, waiting. `score` is the mean over seeds of the
    score that decides (the larger one where the verdict is none), `spread` its standard deviation (missing with one
    seed). `label` and `note` are what the cell says, `remark` is a reason or an error.
    """
    groups = last.groupby(["data", "architecture", "intervention"], sort=False)
    return pd.DataFrame([dict(zip(groups.keys, key, strict=True)) | _cell(group) for key, group in groups])


def _cell(group: pd.DataFrame) -> dict[str, object]:
    analysed = group.dropna(subset="verdict")
    outcome = _outcome(group, analysed)
    score, spread = _score(outcome, analysed)
    expected = _first(group["expected"]) or "unknown"
    surprising = outcome in VERDICTS and expected not in (outcome, "unknown")
    states = counts(group)
    return {
        "outcome": outcome,
        "expected": expected,
        "surprising": surprising,
        "score": score,
        "spread": spread,
        "trials": ", ".join(f"{number} {state}" for state, number in states.items() if number),
        "remark": _first(group["reason"]) or _first(group["error"]) or _first(group["analysis_error"]),
        "label": _label(outcome, score, spread),
        "note": _note(outcome, expected, states, _agreement(outcome, analysed)),
        "trial_id": (analysed if len(analysed) else group)["trial_id"].iloc[0],
    }


def _outcome(group: pd.DataFrame, analysed: pd.DataFrame) -> str:
    if (group["status"] == "excluded").all():
        return "excluded"
    if len(analysed):
        return str(analysed["verdict"].mode().iloc[0])
    broken = (group["status"] == "failed").any() or group["analysis_error"].notna().any()
    return "failed" if broken else "waiting"


def _score(outcome: str, analysed: pd.DataFrame) -> tuple[float | None, float | None]:
    """Mean and standard deviation over seeds of the score that decides."""
    if outcome not in VERDICTS:
        return None, None
    means = analysed[["horizontal", "vertical"]].astype(float).mean()
    scores = analysed[str(means.idxmax()) if outcome == "none" else outcome].astype(float)
    return float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else None


def _agreement(outcome: str, analysed: pd.DataFrame) -> str:
    """How many seeds share the verdict, where not all do."""
    same = int((analysed["verdict"] == outcome).sum())
    return f"{same} of {len(analysed)} seeds" if 0 < same < len(analysed) else ""


def _label(outcome: str, score: float | None, spread: float | None) -> str:
    number = outcome if score is None else f"{score:.2f}"
    deviation = "" if spread is None else f" ± {spread:.2f}"
    return f"{SYMBOLS[outcome]} {number}{deviation}"


def _note(outcome: str, expected: str, states: dict[str, int], agreement: str) -> str:
    if outcome == "excluded":
        return ""
    unfinished = [f"{states[state]} {state}" for state in ("failed", "running", "pending") if states[state]]
    if outcome == "failed":
        return " · ".join(unfinished) if states["failed"] else "analysis failed"
    if outcome == "waiting":
        return " · ".join(unfinished) or "not analysed yet"
    expectation = {"unknown": "", outcome: "as expected"}.get(expected, f"≠ expected {expected}")
    return " · ".join(part for part in (expectation, agreement, *unfinished) if part)


def _first(values: pd.Series) -> str | None:
    """The first value that is not missing."""
    found = values.dropna()
    return str(found.iloc[0]) if len(found) else None
