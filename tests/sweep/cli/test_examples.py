"""Each command's help ends in examples, which the command line understands."""

import shlex

import pytest
import typer.main

from sweep.cli import COMMANDS, app
from sweep.cli.examples import EXAMPLES
from tests.command import run

LINES = [line for examples in EXAMPLES.values() for line, _ in examples]


def test_every_command_has_examples() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("line", LINES)
def test_the_command_line_understands_an_example(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = vars(typer.main.get_command(app))["commands"][name]
    context = command.make_context(name, arguments)
    assert context.args == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_shows_them_unchanged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = [" ".join(line.split()) for line in run(name, "--help").splitlines()]
    assert "Examples:" in shown
    assert [f"{line} # {what}" for line, what in EXAMPLES[name] if f"{line} # {what}" not in shown] == []
