"""`sweep dashboard`."""

import os
import sys
from typing import Annotated

import typer

from sweep import ROOT
from sweep.cli.options import Storage


def dashboard(
    place: Annotated[
        str | None,
        typer.Argument(metavar="[SWEEP|STORAGE]", help="A sweep's name or path, or a storage. Default: --storage."),
    ] = None,
    storage: Storage = "runs",
    port: Annotated[str | None, typer.Option(help="Default: the first free one from 8501.")] = None,
    host: Annotated[
        str, typer.Option(help="An address of this machine to serve at; others than the default are open to a network.")
    ] = "127.0.0.1",
    base_path: Annotated[
        str, typer.Option(metavar="PATH", help="Where the dashboard lies behind a proxy, such as /banding.")
    ] = "",
    token: Annotated[
        bool,
        typer.Option(
            help="Let in only who has the link that is printed, or the token that SWEEP_DASHBOARD_TOKEN gives. "
            "--no-token: let in everyone on this machine."
        ),
    ] = True,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="With --host, send the token and all results unencrypted, for all to read."),
    ] = False,
) -> None:
    """Serve the dashboard of a sweep, or of all sweeps of a storage, until Ctrl-C."""
    options = ["--host", host, "--base-path", base_path]
    options += [] if port is None else ["--port", port]
    options += [] if token else ["--no-token"]
    options += ["--insecure"] if insecure else []
    serve = str(ROOT / "dashboard" / "serve.py")
    command = [sys.executable, "-P", serve, _shown(place, storage), *options]
    os.execv(command[0], command)  # replaces this process, so that what stops it stops the server


def _shown(place: str | None, storage: str) -> str:
    """The path of the sweep or storage that was named.

    Raises:
        ValueError: there is neither; the message lists the sweeps of the storage.
    """
    from sweep.store.atlas_dir import atlas_names, is_atlas
    from sweep.store.files import absolute, children
    from sweep.store.sweep_dir import is_sweep, sweep_names

    named = absolute(storage if place is None else place)
    if is_sweep(named) or is_atlas(named):
        return str(named)
    if place is not None and "://" not in place and is_sweep(absolute(storage) / place):
        return str(absolute(storage) / place)
    if sweep_names(named) or atlas_names(named):
        return str(named)
    if named.is_dir() and all(name.startswith(".") for name in children(named)):
        return str(named)  # a storage that waits for its first sweep
    if place is None:
        raise ValueError(
            f"{storage} holds no sweeps: launch one by `sweep launch demo --storage {storage}`, or name a sweep, or "
            "another storage by --storage or SWEEP_STORAGE"
        )
    names = ", ".join(sweep_names(absolute(storage))) or "none"
    raise ValueError(f"{place} is neither a sweep nor a storage that holds any; sweeps in {storage}: {names}")
