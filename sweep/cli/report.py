"""`sweep report`."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import Annotated

import typer
from upath import UPath

from sweep.cli import consoles
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute


class Normalise(StrEnum):
    POSITION = "position"
    MAXIMUM = "maximum"
    NORM = "norm"
    NONE = "none"


def report(
    context: typer.Context,
    sweep: SweepName,
    output: Annotated[str, typer.Option("-o", "--output", help="The HTML file to write.")] = "report.html",
    export: Annotated[str | None, typer.Option(help="A folder for all tables (CSV, Parquet) and pictures.")] = None,
    normalise: Annotated[
        Normalise, typer.Option(help="What the clusters' weights are divided by.")
    ] = Normalise.POSITION,
    kernel: Annotated[int, typer.Option(min=2, help="Kernel size of the layers to cluster.")] = 5,
    storage: Storage = "runs",
    as_json: AsJson = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Write one self-contained HTML file about a sweep, finished or not.

    With --cluster, a relative path begins in the sweep's own folder.
    """
    from sweep.report.export import export as write_export
    from sweep.report.page import write_report
    from sweep.results.clusters import update_clusters
    from sweep.results.compact import compact_all, mend
    from sweep.service.jobs import located
    from sweep.store.lease import BusyError, hold
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        folder = located(sweep, storage).path
        places = {"output": output} | ({} if export is None else {"export": export})
        look_there(context, sweep, storage, {name: _place(folder, said) for name, said in places.items()})
    opened = open_sweep(sweep, absolute(storage))
    with consoles.complaints.status("reading the sweep, clustering its neurons"):
        with suppress(BusyError), hold(opened.path):  # while a driver works, its tables are new enough
            mend(opened)
            compact_all(opened)
        update_clusters(opened.path, (kernel, kernel), normalise.value)
        write_report(opened.path, UPath(output))
    files = None if export is None else write_export(opened.path, UPath(export))
    if as_json:
        consoles.print_json({"report": output, "export": export, "files": files})
        return
    consoles.tell(f"report: {output}")
    if files is not None:
        consoles.tell(f"{files} files in {export}")


def _place(folder: str, said: str) -> str:
    """Where a job writes what it was told to; a URL and an absolute path are what they say."""
    return said if "://" in said else str(UPath(folder) / said)
