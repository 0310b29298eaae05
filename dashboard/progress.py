"""What the page Progress shows: who works where, for how long still, and what has failed by when. Pure; no drawing."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dashboard.shape import ago
from dashboard.trials import trial_link
from sweep.results.cost import Cost
from sweep.results.state import Failures, Node, State
from sweep.results.words import duration

KINDS, OTHERS = 4, "other failures"
"""So many kinds of failures are told apart."""


def failures_over_time(failures: Sequence[Failures], trials: pd.DataFrame) -> pd.DataFrame:
    """How many trials had failed by when, a row for each failure: `at` (UTC, its last heartbeat), `kind`, `failed`.

    The most frequent kinds are told apart. Trials whose last heartbeat isn't known are left out.
    """
    titles = {
        trial_id: group.kind.partition(":")[0] if rank < KINDS else OTHERS
        for rank, group in enumerate(failures)
        for trial_id in group.trial_ids
    }
    rows = trials.loc[trials["trial_id"].isin(list(titles)), ["trial_id", "heartbeat_at"]]
    rows = rows.dropna(subset="heartbeat_at").sort_values("heartbeat_at", kind="stable")
    kinds = rows["trial_id"].map(titles)
    return pd.DataFrame(
        {
            "at": pd.to_datetime(rows["heartbeat_at"].astype(float), unit="s"),
            "kind": kinds,
            "failed": kinds.groupby(kinds).cumcount() + 1,
        }
    ).reset_index(drop=True)


def cost_in_words(cost: Cost) -> dict[str, tuple[str, str]]:
    """What has been used up and what is left, of each thing that a sweep takes; only what it does take."""
    kinds = {
        "GPU hours": (cost.gpu_hours_done, cost.gpu_hours_left),
        "CPU hours": (cost.cpu_hours_done, cost.cpu_hours_left),
        "Money": (cost.money_done, cost.money_left),
    }
    return {
        name: (_amount(done), _amount(left))
        for name, (done, left) in kinds.items()
        if done or left or (name == "Money" and done is not None)
    }


def unknown_in_words(cost: Cost) -> str:
    """Why it isn't known how long a sweep will take; empty if it is."""
    if cost.unmeasured:
        return f"No trial of {', '.join(cost.unmeasured)} has trained an epoch yet, so its speed isn't known."
    if cost.unsized:
        return f"Of {cost.unsized} unfinished trials it isn't known how many images they train on."
    return ""


def node_table(nodes: Sequence[Node], now: float) -> pd.DataFrame:
    """The nodes on which trials run; `now` in seconds since 1970."""
    return pd.DataFrame(
        {
            "Host": [node.host for node in nodes],
            "Trials": [node.trials for node in nodes],
            "GPUs": [node.gpus for node in nodes],
            "CPUs": [node.cpus for node in nodes],
            "Device": [node.device for node in nodes],
            "Last heartbeat": [None if node.heartbeat_at is None else ago(now - node.heartbeat_at) for node in nodes],
        }
    )


def longest(seen: State, most: int, now: float) -> pd.DataFrame:
    """The trials that run and have trained longest, with links to their pages."""
    running = seen.trials[seen.trials["status"] == "running"].sort_values("wall_s", ascending=False).head(most)
    left = {cost.trial_id: cost.hours_left for cost in seen.trial_costs if cost.status == "running"}
    ids = running["trial_id"].tolist()
    return pd.DataFrame(
        {
            "Trial": [trial_link(seen.sweep.name, trial_id) for trial_id in ids],
            "Trained": [_duration(seconds) for seconds in running["wall_s"]],
            "Left": [_duration(_seconds(left.get(trial_id))) for trial_id in ids],
            "Epochs": (running["epoch"].astype("string") + "/" + running["epochs"].astype("string")).tolist(),
            "Host": running["host"].tolist(),
            "Last heartbeat": [None if pd.isna(at) else ago(now - at) for at in running["heartbeat_at"]],
        }
    )


def waiting(trials: pd.DataFrame) -> Mapping[str, int]:
    """How many trials wait, by what they wait for."""
    pending = trials[trials["status"] == "pending"]
    begun = pending["attempts"].fillna(0) > 0
    found = {"to start": int((~begun).sum()), "to go on": int(begun.sum())}
    return {name: number for name, number in found.items() if number}


def _amount(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}"


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None or pd.isna(seconds) else duration(float(seconds))


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * 3600
