"""From results tables to what the pages show. Pure functions of frames; no drawing."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from sweep.results.statistics import CONDITION, DIRECTIONS, condition_titles, shared_verdicts, told_direction

STATES = ("finished", "running", "pending", "failed", "excluded")
SYMBOLS = {"horizontal": "☰", "vertical": "☷", "none": "○", "failed": "✕", "excluded": "-"}
SYMBOLS |= {"running": "…", "waiting": "…"}
STALE_S = 600.0  # a trial gives a sign at each epoch's end


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """How many trials are in each state."""
    found = trials["status"].value_counts()
    return {state: int(found.get(state, 0)) for state in STATES}


def last_convs(trials: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: its facts and, where analysed, its last conv at the newest checkpoint (columns of `layers`)."""
    last = layers[(layers["position"] == 1) & layers["error"].isna()]
    columns = ["trial_id", "layer", "horizontal", "vertical", "verdict", "expected", "step"]
    newest = last[columns].sort_values("step", kind="stable").drop_duplicates("trial_id", keep="last")
    trials = trials.fillna({"data_key": "", "recipe_key": ""})  # tables of older versions do not have them
    titles = condition_titles(trials)
    keys = trials[list(CONDITION[:3])].itertuples(index=False, name=None)
    newest = newest.rename(columns={"step": "analysed_step"})
    return trials.assign(title=[titles[key] for key in keys]).merge(newest, on="trial_id", how="left")


def chosen(trials: pd.DataFrame, wanted: dict[str, list[str]]) -> pd.DataFrame:
    """The trials whose columns have one of the values wanted of them; an empty list wants all."""
    for column, values in wanted.items():
        if values:
            trials = trials[trials[column].isin(values)]
    return trials


def cells(last: pd.DataFrame) -> pd.DataFrame:
    """The grid: a row for each data set, recipe, architecture and intervention, over its finished seeds.

    `title` tells data set and recipe from a sweep's others (`statistics.condition_titles`); `outcome` is the verdict
    most seeds share, or running, failed, excluded, waiting; `agreement` says how many share it, if not all;
    `score` the mean of the score that the verdict is about (of none, the larger one; `direction` says which), `spread`
    its standard deviation over seeds (missing with one seed); `label` is what the cell says, `brief` the same where
    there is little room, `sign` where there is next to none.
    """
    keys = ["title", *CONDITION, "intervention"]
    groups = last.groupby(keys, sort=False)
    with_verdict = last[last["status"] == "finished"].dropna(subset="verdict")
    analysed = with_verdict.groupby(keys, sort=False)
    found = groups[["expected", "reason", "error", "trial_id"]].first().astype(object)
    found["trial_id"] = analysed["trial_id"].first().reindex(found.index).fillna(found["trial_id"])
    found["reason"] = found["reason"].fillna(found["error"])
    found["expected"] = found["expected"].fillna("unknown")
    states = (
        pd.DataFrame({state: (last["status"] == state) for state in STATES})
        .groupby([last[key] for key in keys], sort=False)
        .sum()
    )
    found["seeds"] = states.sum(axis=1)
    found["failed"] = states["failed"]
    found["state"] = [_in_words(row) for row in states.to_dict("records")]
    found["outcome"] = _outcomes(with_verdict, keys, states)
    scores = {name: analysed[name].agg(["mean", "std"]).reindex(found.index) for name in DIRECTIONS}
    means = [scores[name]["mean"].astype(float) for name in DIRECTIONS]
    found["direction"] = [told_direction(*told) for told in zip(found["outcome"], *means, strict=True)]
    vertical = found["direction"] == "vertical"
    for name, statistic in (("score", "mean"), ("spread", "std")):
        of = {direction: table[statistic].astype("Float64") for direction, table in scores.items()}
        found[name] = of["vertical"].where(vertical, of["horizontal"])
    votes = with_verdict.groupby([*keys, "verdict"], sort=False).size().to_dict()
    ended = analysed.size().to_dict()
    found["agreement"] = [
        f"{votes.get((*key, outcome), 0)} of {ended[key]}" if votes.get((*key, outcome)) != ended.get(key) else ""
        for key, outcome in zip(found.index, found["outcome"], strict=True)
    ]
    expected = found["expected"]
    found["surprising"] = found["score"].notna() & (expected != "unknown") & (expected != found["outcome"])
    found = found.drop(columns="error").reset_index()
    found["label"] = [_label(cell, _spread(cell)) for cell in found.to_dict("records")]
    found["brief"] = [_label(cell, "") for cell in found.to_dict("records")]
    found["sign"] = found["outcome"].map(SYMBOLS) + found["surprising"].map({True: "≠", False: ""})
    return found


def trial_table(last: pd.DataFrame, now: float) -> pd.DataFrame:
    """The trials as a reader wants them: the worrying ones first, columns in words; `now` in seconds since 1970."""
    urgency = {"failed": 0, "running": 1, "pending": 2, "finished": 3, "excluded": 4}
    order = last.assign(urgency=last["status"].map(urgency))
    order = order.sort_values(["urgency", "architecture", "intervention", "seed"])
    order["remark"] = order["error"].fillna(order["reason"])
    order["reached"] = order["epoch"].astype("string") + "/" + order["epochs"].astype("string")
    going = order["status"].isin(["running", "failed"])
    order["sign"] = order["heartbeat_at"].where(going).map(lambda at: ago(now - at), na_action="ignore")
    names = {
        "architecture": "Architecture",
        "intervention": "Intervention",
        "seed": "Seed",
        "status": "Status",
        "remark": "Remark",
        "verdict": "Verdict",
        "expected": "Expected",
        "horizontal": "Horizontal",
        "vertical": "Vertical",
        "val_accuracy": "Accuracy",
        "reached": "Epochs",
        "attempts": "Attempts",
        "host": "Host",
        "sign": "Last sign",
        "trial_id": "Trial",
    }
    if order["remark"].isna().all():
        del names["remark"]
    if len(last["title"].unique()) > 1:
        names = {"title": "Data set, recipe"} | names
    return order[list(names)].rename(columns=names).reset_index(drop=True)


def ago(seconds: float) -> str:
    """A time that has passed, in the unit a reader would choose."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def trial_names(trials: pd.DataFrame) -> list[str]:
    """What tells trials apart, in the order in which they differ: intervention, seed, architecture, the id's hash."""
    facts = trials[["intervention", "seed", "architecture", "trial_id"]].itertuples(index=False, name=None)
    return [f"{name} · s{seed} · {net} · {key.rpartition('-')[2][:6]}" for name, seed, net, key in facts]


def may_be_retried(trial: pd.Series, now: float) -> bool:
    """Whether a trial failed, was interrupted, or has claimed to run without a sign of life for `STALE_S`."""
    if trial["status"] == "running":
        return bool(pd.isna(trial["heartbeat_at"]) or now - trial["heartbeat_at"] > STALE_S)
    return bool(trial["status"] == "failed" or (trial["status"] == "pending" and trial["attempts"] > 0))


def seed_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of `sweep.results.statistics.over_seeds` as a reader wants them, the last conv first."""
    ordered = summary.sort_values("position", kind="stable")
    columns = {
        "Architecture": ordered["architecture"],
        "Intervention": ordered["intervention"],
        "Layer": ordered["layer"],
        "Seeds": ordered["n"],
        "Horizontal": _spreads(ordered, "horizontal"),
        "Vertical": _spreads(ordered, "vertical"),
        "Verdict": [
            f"{verdict} ({agreeing} of {n})" if agreeing < n else verdict
            for verdict, agreeing, n in ordered[["verdict", "agreeing", "n"]].itertuples(index=False, name=None)
        ],
        "Expected": ordered["expected"],
        "Accuracy": _spreads(ordered, "val_accuracy"),
    }
    if ordered["title"].any():
        columns["Data set, recipe"] = ordered["title"]
    return pd.DataFrame(columns).reset_index(drop=True)


def difference_table(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of `sweep.results.statistics.paired_differences` as a reader wants them."""
    rows = differences[["mean", "low", "high", "p_holm"]].itertuples(index=False, name=None)
    numbers = [
        (f"{mean:+.2f}", "" if pd.isna(low) else f"{low:+.2f} to {high:+.2f}", "" if pd.isna(p) else f"{p:.3f}")
        for mean, low, high, p in rows
    ]
    columns = {
        "Intervention": differences["intervention"].tolist(),
        "Score": differences["direction"].tolist(),
        "Pairs": differences["n"].tolist(),
        "Difference": [mean for mean, _, _ in numbers],
        "95% interval": [interval for _, interval, _ in numbers],
        "p, corrected": [p for _, _, p in numbers],
    }
    return pd.DataFrame(columns)


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


def _spreads(summary: pd.DataFrame, quantity: str) -> list[str]:
    """Mean ± standard deviation in words; the mean alone where there is one seed."""
    pairs = summary[[f"{quantity}_mean", f"{quantity}_std"]].itertuples(index=False, name=None)
    return [f"{round(mean, 2) + 0.0:.2f}" + ("" if pd.isna(std) else f" ± {std:.2f}") for mean, std in pairs]


def _outcomes(analysed: pd.DataFrame, keys: list[str], states: pd.DataFrame) -> pd.Series:
    """What each cell shows: the verdict its seeds share, or why there is none."""
    outcomes = pd.Series("waiting", index=states.index, dtype=object)
    outcomes[states["running"] > 0] = "running"
    outcomes[states["failed"] > 0] = "failed"
    outcomes.update(shared_verdicts(analysed, keys).astype(object))
    outcomes[states["excluded"] == states.sum(axis=1)] = "excluded"
    return outcomes


def _in_words(states: Mapping[Hashable, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states.items() if number)


def _spread(cell: Mapping[Hashable, Any]) -> str:
    return "" if pd.isna(cell["spread"]) else f" ± {cell['spread']:.2f}"


def _label(cell: Mapping[Hashable, Any], spread: str) -> str:
    number = f" {cell['outcome']}" if pd.isna(cell["score"]) else f" {cell['score']:.2f}"
    if cell["outcome"] == "none" and cell["direction"] == "vertical":
        spread += f" {SYMBOLS['vertical']}"
    if spread and cell["agreement"]:
        spread += f" ({cell['agreement']})"
    surprise = "  ≠" if cell["surprising"] else ""
    failed = f"  ✕{cell['failed']}" if cell["failed"] and cell["outcome"] != "failed" else ""
    return SYMBOLS[cell["outcome"]] + number + spread + surprise + failed


def narrowed(names: Sequence[str], part: str, most: int, keep: str | None) -> list[str]:
    """The first of the names that contain a part, at most so many; all names' first where none does.

    `keep` stays among them where it is one of the names, so that what is looked at remains chosen.
    """
    fitting = [name for name in names if part.lower() in name.lower()] or list(names)
    shown = fitting[:most]
    return shown if keep is None or keep in shown or keep not in names else [*shown, keep]
