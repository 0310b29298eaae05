"""What the page of one trial says: facts, checkpoints, attempts. Pure; no drawing."""

from collections.abc import Mapping, Sequence

import pandas as pd

from sweep.results.attempts import Attempt
from sweep.results.cost import TrialCost
from sweep.results.words import decimal, duration, size_in_words


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


def chance(layer: pd.Series, probes: pd.DataFrame) -> str:
    """What a layer's scores are to be compared with; `probes` are the trial's rows of that table."""
    parts = [f"below {decimal(layer['null_horizontal_high'])} with shuffled positions"]
    if not pd.isna(layer["null_turned_high"]):
        parts.append(f"below {decimal(layer['null_turned_high'])} with turned neurons")
    own = probes[(probes["layer"] == layer["layer"]) & probes["null_input_horizontal"].notna()]
    for horizontal, vertical in own[["null_input_horizontal", "null_input_vertical"]].itertuples(index=False):
        parts.append(f"{decimal(horizontal)} horizontal, {decimal(vertical)} vertical in kernels made of its inputs")
    told = f"By chance: {'; '.join(parts)}."
    return told if pd.isna(layer["reliability"]) else f"{told} Reliability {decimal(layer['reliability'])}."


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
