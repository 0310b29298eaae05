"""The command line in this process: to start it anew costs seconds of imports."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, TypeVar

import pytest
from rich.console import Console

from sweep import cli

T = TypeVar("T")


def run(*arguments: str, code: int = 0) -> str:
    """Run `sweep ...`, demand its exit code, and give what it printed."""
    printed = StringIO()
    _run(arguments, code, printed, printed)
    return printed.getvalue()


def document(*arguments: str, code: int = 0) -> Any:
    """Run `sweep ... --json`, demand its exit code, and give the one document on its standard output."""
    printed = StringIO()
    _run((*arguments, "--json"), code, printed, StringIO())
    return json.loads(printed.getvalue(), parse_constant=_refuse)


def _run(arguments: Sequence[str], code: int, printed: StringIO, told: StringIO) -> None:
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(printed), redirect_stderr(told):
        patched.setattr(sys, "argv", ["sweep", *arguments])
        patched.setattr(cli.consoles, "output", Console(file=printed, width=160))
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert (left.value.code or 0) == code, printed.getvalue() + told.getvalue()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def wait_for(what: Callable[[], T], process: subprocess.Popen[str]) -> T:
    """Look until something is there, however slow the machine is, as long as the process lives that is to bring it."""
    while not (found := what()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)  # the pace of looking; nothing hangs on it
    return found
