"""What the page of one trial says: facts, checkpoints, attempts. Pure; no drawing."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import pandas as pd

from sweep.results.attempts import Attempt
from sweep.results.cost import TrialCost
from sweep.results.words import duration

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def facts(trial: pd.Series, epochs: pd.DataFrame, cost: TrialCost | None) -> dict[str, str]:
    """A trial's facts in words, without those that aren't known; `epochs` are its rows of that table."""
    of = 0 if trial["intervention"] == "untrained" else trial["epochs"]
    reached = "-" if pd.isna(trial["epoch"]) else f"{trial['epoch']:.0f}"
    told = {
        "Status": str(trial["status"]).capitalize(),
        "Epochs": f"{reached} of {'-' if pd.isna(of) else of}",
        "Validation accuracy": _number(trial["val_accuracy"], ".3f"),
        "Parameters": _number(trial["parameters"], ",.0f"),
        "Training time": "" if pd.isna(trial["wall_s"]) else duration(float(trial["wall_s"])),
        "Images/s": _number(_last(epochs, "images_per_s"), ",.0f"),
        "GPU memory": _number(_largest(epochs, "gpu_mib"), ",.0f", " MiB"),
        "Attempts": _number(trial["attempts"], ".0f"),
    }
    return {name: said for name, said in (told | _cost(cost)).items() if said}


def checkpoints(layers: pd.DataFrame, layer: str) -> pd.DataFrame:
    """The analysed checkpoints of one layer, oldest first, each with its `name`: the epoch, or else the step."""
    own = layers[(layers["layer"] == layer) & layers["error"].isna()].sort_values("step")
    names = [
        f"step {step}" if pd.isna(epoch) else f"{epoch:.0f}"
        for step, epoch in own[["step", "epoch"]].itertuples(index=False, name=None)
    ]
    return own.assign(name=names)


def baseline_of(trials: pd.DataFrame, trial: pd.Series) -> str | None:
    """The baseline that a trial is compared with: same architecture, data set, recipe and seed."""
    same = trials["intervention"] == "baseline"
    for column in ("architecture", "data", "data_key", "recipe_key", "seed"):
        same &= trials[column] == trial[column]
    found = trials.loc[same.fillna(False) & (trials["trial_id"] != trial["trial_id"]), "trial_id"]
    return None if found.empty else str(found.iloc[0])


def weights_link(sweep: str, trial_id: str, layer: str) -> str:
    """The address of a layer on the page of weights, relative to that of another page."""
    return "weights?" + urlencode({"sweep": sweep, "show": f"{trial_id}/{layer}"})


def attempt_table(attempts: Sequence[Attempt]) -> pd.DataFrame:
    """Attempts for the reader and for their chart: number, host, times in UTC, how long, how it ended, what it said."""
    rows = [
        {
            "Attempt": attempt.number,
            "Began": pd.Timestamp(attempt.began_at, unit="s"),
            "Ended": pd.Timestamp(attempt.ended_at, unit="s"),
            "Lasted": duration(attempt.ended_at - attempt.began_at),
            "Outcome": attempt.outcome,
            "Last epoch": attempt.epoch,
            "Host": attempt.host,
            "Error": attempt.said,
        }
        for attempt in attempts
    ]
    columns = ["Attempt", "Began", "Ended", "Lasted", "Outcome", "Last epoch", "Host", "Error"]
    return pd.DataFrame(rows, columns=columns).astype({"Last epoch": "Int64"})


def file_table(sizes: Mapping[str, int]) -> pd.DataFrame:
    """Files and their sizes in words, by name."""
    return pd.DataFrame({"File": list(sizes), "Size": [size_in_words(size) for size in sizes.values()]})


def size_in_words(size: float) -> str:
    """`17 bytes`, `3.2 MB`."""
    power = 0
    while size >= 1000 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.1f} {_UNITS[power]}" if power else f"{size:.0f} {_UNITS[power]}"


def tail(log: str, lines: int) -> str:
    """The last lines of a log."""
    return "\n".join(log.splitlines()[-lines:])


def _cost(cost: TrialCost | None) -> dict[str, str]:
    if cost is None:
        return {}
    hours, unit = (cost.gpu_hours_done, "GPU h") if cost.gpus else (cost.cpu_hours_done, "CPU h")
    left = cost.hours_left
    return {
        "Cost": " · ".join(filter(None, (_number(hours, ".2f", f" {unit}"), _number(cost.money_done, ",.2f")))),
        "Left": duration(left * 3600) if left and cost.status in ("running", "pending") else "",
    }


def _last(epochs: pd.DataFrame, column: str) -> float | None:
    known = epochs.sort_values("epoch")[column].dropna()
    return float(known.iloc[-1]) if len(known) else None


def _largest(epochs: pd.DataFrame, column: str) -> float | None:
    known = epochs[column].dropna()
    return float(known.max()) if len(known) else None


def _number(value: object, form: str, unit: str = "") -> str:
    return "" if pd.isna(value) else format(value, form) + unit  # type: ignore[call-overload]  # scalars of a frame
