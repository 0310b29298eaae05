"""The command line, `sweep`: a module for each command.

Heavy libraries are imported by the commands that need them, so that `sweep --help` answers at once.
"""

import gc
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from sweep.cli.ablate import ablate
from sweep.cli.analyze import analyze
from sweep.cli.atlas import atlas
from sweep.cli.consoles import complain
from sweep.cli.dashboard import dashboard
from sweep.cli.dataset_examples import dataset_examples
from sweep.cli.diff import diff
from sweep.cli.examples import epilog
from sweep.cli.launch import launch, submit
from sweep.cli.listing import list_names
from sweep.cli.mistakes import Commands, UsageError, explained
from sweep.cli.prepare import prepare
from sweep.cli.probe import probe
from sweep.cli.remove import remove
from sweep.cli.report import report
from sweep.cli.resume import resume
from sweep.cli.status import status
from sweep.cli.stop import logs, stop

COMMANDS: dict[str, Callable[..., None]] = {
    "launch": launch, "submit": submit, "resume": resume, "stop": stop, "status": status, "logs": logs,
    "list": list_names, "diff": diff, "remove": remove, "analyze": analyze, "atlas": atlas,
    "dashboard": dashboard, "prepare": prepare, "probe": probe, "ablate": ablate,
    "examples": dataset_examples, "report": report,
}  # fmt: skip

app = typer.Typer(cls=Commands, invoke_without_command=True, pretty_exceptions_enable=False)
for _name, _command in COMMANDS.items():
    app.command(_name, epilog=epilog(_name))(_command)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from sweep.store.code import code_version

        print(f"sweep {version('weight-banding')}, {code_version()}")
        raise typer.Exit


@app.callback()
def sweep(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print version and code, and exit.")
    ] = False,
) -> None:
    """Sweeps of image classifiers on Ray: train and analyse a grid, look at it, continue it."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; a wrong input gives one line on standard error and exit code 2."""
    gc.set_threshold(50_000)  # what imports make stays: looking for garbage every 700 objects is an eighth of `status`
    try:
        sys.exit(app(prog_name="sweep", standalone_mode=False))
    except UsageError as error:
        complain(explained(error))
        sys.exit(2)
    except (ValueError, ImportError) as error:  # the latter if a storage or a model needs an extra
        complain(str(error))
        sys.exit(2)
    except typer.Abort:  # Ctrl-C, or Ctrl-D at a question
        sys.exit(130)
    except Exception as error:
        from sweep.store.files import STORAGE_ERRORS
        from sweep.training.trial import summary

        if not isinstance(error, STORAGE_ERRORS):
            raise
        complain(summary(error))
        sys.exit(1)
