"""`sweep ablate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sweep.cli import consoles
from sweep.cli.measuring import measure, tell
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute

if TYPE_CHECKING:
    from sweep.store.sweep_dir import SweepDir


def ablate(
    context: typer.Context,
    sweep: SweepName,
    images: Annotated[int, typer.Option(min=5, help="Validation images per trial.")] = 1000,
    storage: Storage = "runs",
    as_json: AsJson = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Measure what each trial's network loses when the kernels of its last convs lose their bands."""
    from sweep.results.ablation import ABLATION
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        look_there(context, sweep, storage)
    opened = open_sweep(sweep, absolute(storage))
    code = tell(opened, ABLATION, measure(opened, ABLATION, images), as_json)
    if not as_json:
        consoles.output.print(_table(opened))
    raise typer.Exit(code)


def _table(sweep: SweepDir) -> Table:
    """Validation accuracy by change, for each intervention and layer."""
    from sweep.results.ablated import CHANGES, over_changes
    from sweep.results.tables import read_table, records
    from sweep.results.words import mean_and_spread, short_layer

    tables = (read_table(sweep.path, name) for name in ("trials", "layers", "ablations"))
    table = Table("intervention", "layer", "seeds", *CHANGES.values())
    for row in records(over_changes(*tables)):
        accuracies = [mean_and_spread(row[f"{change}_mean"], row[f"{change}_std"]) for change in CHANGES]
        table.add_row(escape(row["intervention"]), escape(short_layer(row["layer"])), str(row["n"]), *accuracies)
    return table
