"""One self-contained HTML file about an atlas: verdicts by pooling, pictures of what is banded, every scored layer."""

import time
from importlib.metadata import version
from importlib.resources import files

import pandas as pd
from jinja2 import Environment, StrictUndefined
from upath import UPath

from analysis.banding import RELIABLE
from sweep.report.drawings import strip
from sweep.results.atlas import distinct, failures, read_layer, verdicts_by
from sweep.results.cells import COLOURS
from sweep.results.tables import Row, plain_records
from sweep.results.verdicts import told_verdict
from sweep.results.words import decimal
from sweep.store.atlas_dir import AtlasDir
from sweep.store.files import write_text

_PICTURES = 60  # of the most banded networks


def write_atlas_report(atlas: AtlasDir, table: pd.DataFrame, file: UPath) -> None:
    """Write the report of an atlas, complete or not."""
    write_text(file, render(atlas, table))


def render(atlas: AtlasDir, table: pd.DataFrame) -> str:
    """The report's HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": lambda value: "" if value is None else decimal(value)}
    template = environment.from_string((files("sweep.report") / "atlas.html").read_text(encoding="utf-8"))
    return template.render(
        name=atlas.name,
        made_at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        version=version("weight-banding"),
        colours=COLOURS,
        reliable=RELIABLE,
        told=told_verdict,
        networks=int(table["source"].nunique()),
        weights=int(table["digest"].nunique()),
        counts=[(name, plain_records(verdicts_by(table, name))) for name in ("pooling", "padding", "kernel")],
        pictures=_pictures(atlas, table),
        layers=plain_records(table[table["layer"].notna()]),
        failures=failures(table),
    )


def _pictures(atlas: AtlasDir, table: pd.DataFrame) -> list[Row]:
    """The last layers with the highest scores, each with its neurons."""
    last = distinct(table)
    highest = last[["horizontal", "vertical"]].max(axis=1)
    order = highest.sort_values(ascending=False, kind="stable").index[:_PICTURES]
    rows = plain_records(last.loc[order])
    found = [(row, read_layer(atlas.path, row["digest"], row["layer"])) for row in rows]
    return [row | {"picture": strip(layer.reduced, layer.order)} for row, layer in found if layer is not None]
