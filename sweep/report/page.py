"""One self-contained HTML file about a sweep: it loads nothing, and all numbers come from the results tables."""

import time
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from upath import UPath

from analysis.banding import RELIABLE
from sweep.report.cells import cell_grids
from sweep.report.drawings import interval_svg, strip
from sweep.results.ablated import CHANGES, over_changes
from sweep.results.cells import COLOURS
from sweep.results.figure12 import cluster_section
from sweep.results.state import State, Tables
from sweep.results.statistics import CONDITION, condition_titles, finished, first_epochs
from sweep.results.tables import Row, TableName, read_table, records
from sweep.results.words import decimal, mean_and_spread, short_layer
from sweep.store.files import write_text
from sweep.store.lease import holder
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import read_error

_TRACEBACKS = 20


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An intervention against its baseline: a row of `contrasts.contrasts`, drawn."""

    row: Row
    drawing: Markup


def write_report(sweep: UPath, file: UPath) -> None:
    """Write the report of a sweep, in whatever state it is."""
    write_text(file, render(sweep))


def render(sweep: UPath) -> str:
    """The report's HTML."""
    tables: dict[TableName, pd.DataFrame] = {name: read_table(sweep, name) for name in ("trials", "epochs", "layers")}
    seen = State(SweepDir(sweep), Tables.of(tables), holder(sweep))
    trials, layers = seen.trials, tables["layers"]
    clusters, neurons, probes, ablations = (
        read_table(sweep, name) for name in ("clusters", "neurons", "probes", "ablations")
    )
    conditions = condition_titles(trials)
    differences = _titled(seen.contrasts, conditions)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": number,
        "spread": spread,
        "signed": signed,
        "chance": chance,
        "short": short_layer,
        "tile": lambda kernel: strip(kernel[None], np.array([0])),
    }
    template = environment.from_string((files("sweep.report") / "page.html").read_text(encoding="utf-8"))
    return template.render(
        name=sweep.name,
        reliable=RELIABLE,
        made_at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        counts=[(state, number) for state, number in seen.counts.items() if number],
        agreement=seen.agreement,
        grids=cell_grids(sweep, seen.cells(), trials, layers, seen.over_seeds, first_epochs(layers)),
        summary=_titled(seen.over_seeds, conditions),
        several_seeds=bool((seen.over_seeds["n"] > 1).any()),
        primary=[_difference(row) for row in differences if row["primary"]],
        exploration=[_difference(row) for row in differences if not row["primary"]],
        clusters=cluster_section(sweep, trials, clusters, neurons),
        probes=_titled(_probe_rows(trials, layers, probes), conditions),
        ablations=_titled(over_changes(trials, layers, ablations), conditions),
        changes=CHANGES,
        failures=_failures(sweep, trials),
        analysis_errors=records(layers.loc[layers["error"].notna(), ["trial_id", "step", "layer", "error"]]),
        exclusions=_exclusions(trials),
        launches=_launches(sweep),
        versions=_versions(trials),
        report_version=version("weight-banding"),
        colours=COLOURS,
        several_architectures=len(set(trials["architecture"])) > 1,
    )


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    if value is None or pd.isna(value):
        return "–"  # noqa: RUF001  # a dash
    return decimal(value, digits).replace("-", "−")  # noqa: RUF001  # a minus


def signed(value: float | None) -> str:
    """A number with its sign."""
    return "–" if value is None or pd.isna(value) else f"{value:+.2f}".replace("-", "−")  # noqa: RUF001  # minus


def chance(p: float | None) -> str:
    """A probability."""
    return number(p, 3) if p is None or pd.isna(p) or p >= 0.001 else "< 0.001"


def spread(row: Row, quantity: str) -> str:
    """Mean ± standard deviation, without the latter where there is one seed."""
    return mean_and_spread(row[f"{quantity}_mean"], row[f"{quantity}_std"])


def _titled(frame: pd.DataFrame, titles: dict[tuple[str, str, str], str]) -> list[Row]:
    """Rows with `condition` in words where a sweep has several, else with an empty one."""
    return [row | {"condition": titles[row["data"], row["data_key"], row["recipe_key"]]} for row in records(frame)]


def _difference(row: Row) -> Difference:
    interval: tuple[float, float] | None = None if pd.isna(row["low"]) else (float(row["low"]), float(row["high"]))
    colour = COLOURS.get(row["quantity"], COLOURS["none"])
    return Difference(row=row, drawing=interval_svg(float(row["difference"]), interval, colour))


def _probe_rows(trials: pd.DataFrame, layers: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """R^2 over the finished seeds for each intervention and map, the last map first."""
    positions = layers[["trial_id", "layer", "position"]].drop_duplicates()
    table = probes.merge(finished(trials)[["trial_id", "step", *CONDITION, "intervention"]], on=["trial_id", "step"])
    table = table.merge(positions, on=["trial_id", "layer"], how="left").fillna({"position": 0})
    order = {trial_id: rank for rank, trial_id in enumerate(trials["trial_id"])}
    table = table.assign(rank=table["trial_id"].map(order)).sort_values(["rank", "position"])
    groups = table.groupby([*CONDITION, "intervention", "layer"], sort=False, dropna=False)
    return groups.agg(
        n=("trial_id", "nunique"), images=("images", "max"),
        row_mean=("row_r2", "mean"), row_std=("row_r2", "std"),
        column_mean=("column_r2", "mean"), column_std=("column_r2", "std"),
        input_horizontal=("null_input_horizontal", "mean"), input_vertical=("null_input_vertical", "mean"),
    ).reset_index()  # fmt: skip


def _failures(sweep: UPath, trials: pd.DataFrame) -> list[Row]:
    """Failed trials with the last line of their errors; the first ones also with their tracebacks."""
    failed = trials.loc[trials["status"] == "failed", ["trial_id", "attempts", "epoch", "error", "host"]]
    return [
        row | {"traceback": read_error(SweepDir(sweep).trial(str(row["trial_id"]))) if index < _TRACEBACKS else None}
        for index, row in enumerate(records(failed))
    ]


def _exclusions(trials: pd.DataFrame) -> list[Row]:
    """The excluded cells, each once."""
    excluded = trials.loc[trials["status"] == "excluded", ["architecture", "intervention", "reason"]]
    return records(excluded.drop_duplicates())


def _launches(sweep: UPath) -> list[tuple[str, str]]:
    """When each grid was launched, and the grid as YAML."""
    return [
        (str(launch.get("launched_at", "")), yaml.safe_dump(launch["grid"], sort_keys=False))
        for launch in SweepDir(sweep).launches()
    ]


def _versions(trials: pd.DataFrame) -> list[Row]:
    """How many trials ran with which version of the code and of PyTorch."""
    known = trials.dropna(subset=["code_version", "torch_version"], how="all")
    counted = (
        known.groupby(["code_version", "torch_version"], dropna=False, sort=False).size().reset_index(name="trials")
    )
    return records(counted)
