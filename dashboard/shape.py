"""From results tables to what the pages show of trials. Pure functions of frames; no drawing."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dashboard.cells import SYMBOLS
from sweep.results import final_layers

THRESHOLD = 2 / 3
_URGENCY = {"failed": 0, "running": 1, "pending": 2, "finished": 3, "excluded": 4}


def last_convs(trials: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """One row a trial: its facts and, where analysed, its last conv at the newest checkpoint (columns of `layers`).

    `analysis_error` is the error of the newest checkpoint's analysis; the scores are then an older checkpoint's.
    """
    last = layers[layers["position"] == 1]
    columns = ["trial_id", "layer", "horizontal", "vertical", "verdict", "expected"]
    valid = final_layers(last[last["error"].isna()])[[*columns, "step"]].rename(columns={"step": "analysed_step"})
    newest = last.sort_values("step").drop_duplicates("trial_id", keep="last")
    errors = newest[["trial_id", "error"]].rename(columns={"error": "analysis_error"})
    return trials.merge(valid, on="trial_id", how="left").merge(errors, on="trial_id", how="left")


def narrowed(last: pd.DataFrame, chosen: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The rows whose value is among those chosen, for each column; nothing chosen means all."""
    keep = pd.Series(data=True, index=last.index)
    for column, values in chosen.items():
        if values:
            keep &= last[column].isin(values)
    return last[keep]


def trial_table(last: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many trials as a reader wants them: the worrying ones first, columns in words."""
    ordered = last.sort_values("status", key=lambda status: status.map(_URGENCY), kind="stable").head(most)
    found = ordered["verdict"].notna()
    verdict = ordered["verdict"].map(SYMBOLS).str.cat(ordered["verdict"], sep=" ")
    met = ordered["verdict"] == ordered["expected"]
    known = found & ordered["expected"].notna() & (ordered["expected"] != "unknown")
    return pd.DataFrame(
        {
            "Status": ordered["status"].str.capitalize(),
            "Architecture": ordered["architecture"],
            "Intervention": ordered["intervention"],
            "Data": ordered["data"],
            "Seed": ordered["seed"],
            "Verdict": verdict,
            "Expected": ordered["expected"].where(~known, met.map({True: "✓ ", False: "≠ "}) + ordered["expected"]),
            "Horizontal": ordered["horizontal"],
            "Vertical": ordered["vertical"],
            "Accuracy": ordered["val_accuracy"],
            "Epochs": ordered["epoch"].astype("string") + " of " + ordered["epochs"].astype("string"),
            "Attempts": ordered["attempts"],
            "Remark": ordered["error"].fillna(ordered["reason"]).fillna(ordered["analysis_error"]),
            "Trial": ordered["trial_id"],
        }
    ).reset_index(drop=True)


def trajectory(own: pd.DataFrame) -> pd.DataFrame:
    """Scores of a trial's layers over its checkpoints, long: layer, epoch, direction, score, low, high."""
    valid = own[own["error"].isna() & own["epoch"].notna()].sort_values(["position", "step"])
    parts = [
        valid[["layer", "epoch"]].assign(
            direction=direction, score=valid[direction], low=valid[f"{direction}_low"], high=valid[f"{direction}_high"]
        )
        for direction in ("horizontal", "vertical")
    ]
    return pd.concat(parts, ignore_index=True)


def curves(own: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """A trial's training and validation curve of `loss` or `accuracy`, long: epoch, images, value."""
    parts = [
        own[["epoch"]].assign(images=images, value=own[f"{prefix}_{quantity}"])
        for images, prefix in (("training", "train"), ("validation", "val"))
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def checkpoint_names(of_layer: pd.DataFrame) -> dict[int, str]:
    """What to call each analysed checkpoint, by step."""
    return {
        int(row["step"]): f"step {row['step']}" if pd.isna(row["epoch"]) else f"epoch {row['epoch']:g}"
        for row in of_layer.to_dict("records")
    }


def analysis_errors(own: pd.DataFrame) -> list[str]:
    """What failed in the analysis of a trial, in words."""
    failed = own[own["error"].notna()]
    return [f"{row['layer']} at step {row['step']}: {row['error']}" for row in failed.to_dict("records")]


def spec_table(planned: Mapping[str, Any]) -> pd.DataFrame:
    """A trial's spec as a reader wants it: part, setting, value."""
    rows = []
    for name, value in planned["spec"].items():
        if isinstance(value, Mapping):
            rows += [(_words(name), _words(key), _value(inner)) for key, inner in _flat(value).items()]
        else:
            rows.append(("Trial", _words(name), _value(value)))
    return pd.DataFrame(rows, columns=["Part", "Setting", "Value"])


def launch_line(launches: Sequence[Mapping[str, Any]]) -> str:
    """When and how often a sweep was launched, in words."""
    if not launches:
        return "Not launched yet"
    when = str(launches[-1]["launched_at"]).replace("T", " ").replace("Z", " UTC")
    return f"Launched {when}" if len(launches) == 1 else f"Launched {len(launches)} times, last {when}"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings on one level; inner ones keep their own names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {key: value}
    return flat


def _words(name: str) -> str:
    return {"lr": "Learning rate", "lr_schedule": "Learning rate schedule"}.get(
        name, name.replace("_", " ").capitalize()
    )


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{key.replace('_', ' ')} {_value(inner)}" for key, inner in value.items())
    return str(value)
