"""The state of each trial and each cell of the grid: the one source for overview, report, `status` and picture.

A trial's result is what its newest analysed checkpoint shows; if that analysis failed, there is none, whatever older
checkpoints showed. A cell is an architecture under an intervention; its verdict is its finished seeds'.
Pure functions of the results tables.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from sweep.results.statistics import CONDITION, DIRECTIONS, condition_titles, shared_verdicts, told_direction
from sweep.results.words import decimal
from sweep.store.lease import Holder

STATES = ("finished", "running", "pending", "failed", "excluded")
SYMBOLS = {
    "horizontal": "☰", "vertical": "☷", "none": "○", "unscored": "!", "failed": "✕", "excluded": "-",
    "running": "…", "waiting": "…",
}  # fmt: skip
"""The outcomes a cell can have. `unscored`: its trials are finished, but their last analysis failed."""
COLOURS = {
    "horizontal": "#0072B2", "vertical": "#D55E00", "none": "#BBBBBB", "unscored": "#CC79A7", "failed": "#882255",
    "excluded": "#F2F2F2", "running": "#E5E5E5", "waiting": "#E5E5E5",
}  # fmt: skip
"""Okabe and Ito's, which colour-blind readers can tell apart."""
CELL = ("title", *CONDITION, "intervention")
"""What identifies a cell; `title` tells its data set and recipe from the sweep's others."""

_TOLD = ("outcome", "score", "spread", "direction", "agreement", "surprising", "failed", "unscored")
_NEWEST = ("layer", "horizontal", "vertical", "verdict", "expected", "step", "error")


def standing(trials: pd.DataFrame, driver: Holder | None) -> pd.DataFrame:
    """Trials as they are: one marked as running while no driver works on the sweep was interrupted, and is pending."""
    if driver is not None:
        return trials
    cut_off = trials["status"] == "running"
    reasons = "interrupted on " + trials["host"].fillna("an unknown host")
    return trials.assign(
        status=trials["status"].mask(cut_off, "pending"), reason=trials["reason"].mask(cut_off, reasons)
    )


def counts(trials: pd.DataFrame) -> dict[str, int]:
    """How many trials are in each state."""
    found = trials["status"].value_counts()
    return {state: int(found.get(state, 0)) for state in STATES}


def newest(layers: pd.DataFrame) -> pd.DataFrame:
    """The rows of each trial's newest analysed checkpoint, those of failed analyses included, the last conv first."""
    latest = layers.groupby("trial_id", sort=False)["step"].transform("max")
    return layers[layers["step"] == latest].sort_values("position", kind="stable")


def last_convs(trials: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """One row per trial: its facts and, where analysed, the last conv of its newest analysed checkpoint.

    `analysed_step` is that checkpoint's step, `analysis_error` says why it has no scores.
    """
    return with_layer(trials, newest(layers), position=1)


def with_layer(trials: pd.DataFrame, newest_layers: pd.DataFrame, position: int) -> pd.DataFrame:
    """`last_convs` for the conv at any position, from the rows of `newest`."""
    mine = (newest_layers["position"] == position) | (newest_layers["layer"] == "")  # its file is damaged as a whole
    of_layer = newest_layers.loc[mine, ["trial_id", *_NEWEST]].drop_duplicates("trial_id")
    of_layer = of_layer.rename(columns={"step": "analysed_step", "error": "analysis_error"})
    trials = trials.fillna({"data_key": "", "recipe_key": ""})  # tables of older versions lack them
    titles = condition_titles(trials)
    keys = trials[list(CONDITION[:3])].itertuples(index=False, name=None)
    return trials.assign(title=[titles[key] for key in keys]).merge(of_layer, on="trial_id", how="left")


def cells(last: pd.DataFrame) -> pd.DataFrame:
    """The grid: a row for each cell (`CELL`) of the trials of `last_convs`, over its finished seeds.

    `outcome` is the verdict most seeds share, or failed, unscored, running, waiting, excluded. `agreement` says how
    many share it, if not all; `score` is the mean of the score that the verdict is about (for none, the larger one;
    `direction` says which), `spread` its standard deviation over seeds (missing with one seed), `scored` their number.
    `trial_id` and `layer` are those of the first seed. `label` is the cell's text, `brief` its short form, `sign` the
    shortest.
    """
    keys = list(CELL)
    ended = last[(last["status"] == "finished") & (last["analysed_step"] == last["step"])]
    with_verdict = ended.dropna(subset="verdict")
    analysed = with_verdict.groupby(keys, sort=False)
    states = _states(last, keys)
    found = _facts(last, keys)
    found["trial_id"] = analysed["trial_id"].first().reindex(found.index).fillna(found["trial_id"])
    found["layer"] = analysed["layer"].first().reindex(found.index)
    found["seeds"] = states.sum(axis=1)
    found["scored"] = analysed.size().reindex(found.index).fillna(0).astype(int)
    found["failed"] = states["failed"]
    found["state"] = [_in_words(row) for row in states.to_dict("records")]
    unscored = ended[ended["analysis_error"].notna()].groupby(keys, sort=False).size()
    found["unscored"] = unscored.reindex(found.index).fillna(0).astype(int)
    found["outcome"] = _outcomes(with_verdict, keys, states, found["unscored"])
    found = _with_scores(found, with_verdict, keys)
    found["surprising"] = (
        found["score"].notna() & (found["expected"] != "unknown") & (found["expected"] != found["outcome"])
    )
    found = found.reset_index()
    told = found[list(_TOLD)].to_dict("records")  # all columns would take as long as the rest
    found["label"] = [_label(cell, _spread(cell)) for cell in told]
    found["brief"] = [_label(cell, "") for cell in told]
    found["sign"] = found["outcome"].map(SYMBOLS) + found["surprising"].map({True: "≠", False: ""})
    return found


def _facts(last: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """For each cell, the first expected finding, reason and trial."""
    found = last.groupby(keys, sort=False)[["expected", "reason", "error", "analysis_error", "trial_id"]].first()
    found = found.astype(object)
    found["reason"] = found["reason"].fillna(found["error"]).fillna(found["analysis_error"])
    found["expected"] = found["expected"].fillna("unknown")
    return found.drop(columns=["error", "analysis_error"])


def _states(last: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """For each cell, the number of trials in each state."""
    flags = pd.DataFrame({state: last["status"] == state for state in STATES})
    return flags.groupby([last[key] for key in keys], sort=False).sum()


def _outcomes(with_verdict: pd.DataFrame, keys: list[str], states: pd.DataFrame, unscored: pd.Series) -> pd.Series:
    """What each cell shows: the verdict its seeds share, or why there is none."""
    outcomes = pd.Series("waiting", index=states.index, dtype=object)
    outcomes[states["running"] > 0] = "running"
    outcomes[unscored > 0] = "unscored"
    outcomes[states["failed"] > 0] = "failed"
    outcomes.update(shared_verdicts(with_verdict, keys).astype(object))
    outcomes[states["excluded"] == states.sum(axis=1)] = "excluded"
    return outcomes


def _with_scores(found: pd.DataFrame, with_verdict: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Cells with the direction, score, spread and agreement of their seeds."""
    analysed = with_verdict.groupby(keys, sort=False)
    scores = {name: analysed[name].agg(["mean", "std"]).reindex(found.index) for name in DIRECTIONS}
    means = [scores[name]["mean"].astype(float) for name in DIRECTIONS]
    found["direction"] = [told_direction(*told) for told in zip(found["outcome"], *means, strict=True)]
    vertical = found["direction"] == "vertical"
    for name, statistic in (("score", "mean"), ("spread", "std")):
        of = {direction: table[statistic].astype("Float64") for direction, table in scores.items()}
        found[name] = of["vertical"].where(vertical, of["horizontal"])
    votes = with_verdict.groupby([*keys, "verdict"], sort=False).size().to_dict()
    agreeing = [votes.get((*key, outcome), 0) for key, outcome in zip(found.index, found["outcome"], strict=True)]
    of_each = zip(agreeing, found["scored"], strict=True)
    found["agreement"] = [f"{some} of {scored}" if some != scored else "" for some, scored in of_each]
    return found


def _in_words(states: Mapping[Hashable, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states.items() if number)


def _spread(cell: Mapping[Hashable, Any]) -> str:
    return "" if pd.isna(cell["spread"]) else f" ± {cell['spread']:.2f}"


def _label(cell: Mapping[Hashable, Any], spread: str) -> str:
    number = f" {cell['outcome']}" if pd.isna(cell["score"]) else f" {decimal(cell['score'])}"
    if cell["outcome"] == "none" and cell["direction"] == "vertical":
        spread += f" {SYMBOLS['vertical']}"
    if spread and cell["agreement"]:
        spread += f" ({cell['agreement']})"
    surprise = "  ≠" if cell["surprising"] else ""
    troubles = [(name, cell[name]) for name in ("failed", "unscored") if cell[name] and cell["outcome"] != name]
    return SYMBOLS[cell["outcome"]] + number + spread + surprise + "".join(f"  {SYMBOLS[n]}{k}" for n, k in troubles)
