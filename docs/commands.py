"""docs/cli.md: every command with its arguments, options and examples, from the command line itself."""

from pathlib import Path
from typing import Any

import typer.main

from sweep.cli import app
from sweep.cli.examples import EXAMPLES

PAGE = Path(__file__).with_name("cli.md")
_OPENING = """# The command line

`make docs` writes this page from the commands. What a command prints goes to standard output, everything else to
standard error; with `--json`, standard output is one JSON document. The exit code is 0 when everything is finished, 1
if a trial failed, 2 for a mistake in what you typed, and 130 after a stop. `sweep --version` names the code,
`sweep --install-completion` teaches your shell the names of commands, options, sweeps and grids.
"""


def page() -> str:
    """The text of docs/cli.md."""
    commands = vars(typer.main.get_command(app))["commands"]
    return "\n".join([_OPENING, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join(["sweep", name, *map(_metavar, arguments), "[OPTIONS]"])
    examples = "\n".join(f"{line}  # {what}" for line, what in EXAMPLES[name])
    rows = [f"| {_names(parameter)} | {_help(parameter)} |" for parameter in [*arguments, *options]]
    table = "\n".join(["| argument or option | what it is |", "| --- | --- |", *rows])
    return f"## sweep {name}\n\n`{usage}`\n\n{command.help}\n\n```sh\n{examples}\n```\n\n{table}\n"


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def _help(parameter: Any) -> str:
    """What a parameter is, its default where it has one, and the variable that sets it."""
    default = parameter.default
    said = " ".join((parameter.help or "").split())
    if default not in (None, False, True, "", []) and "efault" not in said:
        said += f" Default: `{getattr(default, 'value', default)}`."
    if parameter.envvar:
        said += f" Or the variable `{parameter.envvar}`."
    return said.replace("|", "\\|")
