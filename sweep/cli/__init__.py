"""The command line, `sweep`: a module for each command.

Heavy libraries are imported by the commands that need them, so that `sweep --help` answers at once.
"""

import sys

import typer

from sweep.cli.analyze import analyze
from sweep.cli.consoles import complain
from sweep.cli.dashboard import dashboard
from sweep.cli.launch import launch, submit
from sweep.cli.prepare import prepare
from sweep.cli.probe import probe
from sweep.cli.report import report
from sweep.cli.resume import resume
from sweep.cli.status import list_names, status
from sweep.cli.stop import logs, stop

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in (launch, submit, resume, stop, status, logs, analyze, dashboard, prepare, probe, report):
    app.command()(_command)
app.command("list")(list_names)


def main() -> None:
    """Run the command line; a wrong input gives one line on standard error and exit code 2."""
    try:
        app()
    except (ValueError, ImportError) as error:  # the latter if a storage or a model needs an extra
        complain(str(error))
        sys.exit(2)
    except Exception as error:
        from sweep.store.files import STORAGE_ERRORS
        from sweep.training.trial import summary

        if not isinstance(error, STORAGE_ERRORS):
            raise
        complain(summary(error))
        sys.exit(1)
