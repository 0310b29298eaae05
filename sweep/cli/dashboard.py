"""`sweep dashboard`."""

import os
import sys
from typing import Annotated

import typer

from sweep import ROOT


def dashboard(
    storage: Annotated[str, typer.Argument(help="A folder of sweeps, or one sweep's folder.")] = "runs",
    port: Annotated[int | None, typer.Option(help="Default: 8501.")] = None,
) -> None:
    """Open the dashboard on this machine."""
    serve = str(ROOT / "dashboard" / "serve.py")
    command = [sys.executable, "-P", serve, storage, *([] if port is None else [str(port)])]
    os.execv(command[0], command)  # replaces this process, so that what stops it stops the server
