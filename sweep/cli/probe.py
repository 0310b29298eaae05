"""`sweep probe`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute


def probe(
    context: typer.Context,
    sweep: SweepName,
    images: Annotated[int, typer.Option(min=5, help="Validation images per trial.")] = 256,
    storage: Storage = "runs",
    as_json: AsJson = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Measure how well a linear model reads absolute position from each trial's last maps."""
    from rich.progress import track

    from sweep.results.position import probe_sweep
    from sweep.results.tables import plain_records, read_table
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        look_there(context, sweep, storage)
    opened = open_sweep(sweep, absolute(storage))
    trials = len(opened.trials())
    probed = probe_sweep(opened, images)
    outcomes = list(track(probed, "probing", total=trials, console=consoles.complaints, transient=True))
    failed = [done for done in outcomes if done.failed]
    if as_json:
        rows = plain_records(read_table(opened.path, "probes"))
        consoles.print_json({"sweep": opened.name, "trials": [asdict(done) for done in outcomes], "probes": rows})
        raise typer.Exit(1 if failed else 0)
    for outcome, number in Counter(done.outcome for done in outcomes if not done.failed).items():
        consoles.tell(f"{number} of {trials} trials: {outcome}")
    for done in failed:
        consoles.tell(f"{done.trial_id}: {done.outcome}", style="red")
    raise typer.Exit(1 if failed else 0)
