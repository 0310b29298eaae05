"""Mistakes on the command line, each told in one line: an unknown command or option with the nearest that exists."""

import difflib
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperGroup

UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer gives it no public name
"""What typer raises for a command line that it can't read."""


class Commands(TyperGroup):
    """The commands; an unknown one is refused with the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not ctx.resilient_parsing and args[0] not in self.commands:
            names = list(self.commands)
            raise ValueError(f"unknown command {args[0]!r}{_nearest(args[0], names)} Commands: {', '.join(names)}")
        return super().resolve_command(ctx, args)


def explained(error: Any) -> str:
    """What is wrong with a command line, and where to read how it is written."""
    context = error.ctx
    path = context.command_path if context else "sweep"
    unknown = getattr(error, "option_name", None)
    known = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts)]
    if unknown is not None and unknown not in known:
        options = [name for name in known if name.startswith("-")]
        return f"`{path}` has no option {unknown}{_nearest(unknown, options)} See `{path} --help`"
    said = " ".join(error.format_message().split()).rstrip(".")
    return f"{said[:1].lower()}{said[1:]}; see `{path} --help`"


def _nearest(said: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(said, known, n=1)
    return f"; did you mean {found[0]}?" if found else "."
