"""A command that runs as a job of a cluster: what is sent, and what comes back.

The job is the command line as it was given, without the options that say where it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from sweep.cli import consoles
from sweep.cli.running import notify_urls

if TYPE_CHECKING:
    from sweep.service.jobs import Job, Location

_STAY_HERE = ("address", "cluster", "insecure", "ship_code", "storage", "wait")
_URLS = "notify.txt"
"""What a job finds the URLs of `--notify` in. They may hold passwords, and Ray shows a job's command line and its
environment to all who may see the job."""


def run_there(
    context: typer.Context,
    location: Location,
    check: Callable[[], object],
    *,
    replaced: Mapping[str, Any],
    name: str | None = None,
    files: Mapping[str, str] | None = None,
) -> NoReturn:
    """Send this command to its `--cluster` as a job about a sweep, and exit with what comes of it.

    `check` raises what can be found wrong from here; a job that runs already is only followed. `replaced` are the
    parameters whose values differ for the job, `name` is the command's if that differs, and `files` are sent along.
    With `--no-wait`, the exit code 0 means that trials have begun.
    """
    from sweep.service.jobs import WORK, Command, JobServer

    given = context.params
    urls = notify_urls(given.get("notify") or ())
    told = {_URLS: "\n".join(urls)} if urls else {}
    command = Command(
        name=name or str(context.info_name),
        arguments=tuple(command_line(context, {**replaced, "notify": [f"@{_URLS}"] if urls else None})),
        location=location,
        files={**(files or {}), **told},
        ship_code=given.get("ship_code", False),
    )
    if command.name in WORK and given.get("as_json"):
        raise ValueError(
            "a job prints messages and document in one stream; leave --json out, and use `sweep status --json`"
        )
    server = JobServer(given["cluster"], given["insecure"])
    job = server.running(command)
    if job is None:
        check()
        job = server.submit(command)
    stop = f"; to stop it: sweep stop {location.path} {server.options}" if command.works else ""
    _tell(f"job {job.id} on {server.url}{stop}")
    if given.get("wait", True):
        follow(job)
    print(job.wait_until_begun(), end="", flush=True)
    raise typer.Exit(job.exit_code() if job.ended else 0)


def look_there(context: typer.Context, sweep: str, storage: str, replaced: Mapping[str, Any] | None = None) -> NoReturn:
    """Run this command, which looks at a sweep without working on it, where the sweep is."""
    from sweep.service.jobs import located, seen_from_here

    location = located(sweep, storage)
    run_there(
        context, location, lambda: seen_from_here(location), replaced={"sweep": location.path, **(replaced or {})}
    )


def follow(job: Job) -> NoReturn:
    """Print what a job prints until it ends, and exit with its code; Ctrl-C leaves it running."""
    try:
        for said in job.output():
            print(said, end="", flush=True)
    except KeyboardInterrupt:
        _tell(f"the job continues; to follow it: {job.logs_command}", "yellow")
        raise typer.Exit(130) from None
    raise typer.Exit(job.exit_code())


def command_line(context: typer.Context, replaced: Mapping[str, Any]) -> list[str]:
    """The arguments of a command for a job: those given here, with some replaced; None leaves one out."""
    words: list[str] = []
    for parameter in context.command.params:
        value = replaced[parameter.name] if parameter.name in replaced else _given(context, parameter.name)
        words += [] if value is None else _words(parameter, value)
    return words


def _given(context: typer.Context, name: str) -> Any:
    """What was given for a parameter here, None where nothing was or a job needs it not."""
    source = context.get_parameter_source(name)
    return None if name in _STAY_HERE or source is None or source.name == "DEFAULT" else context.params[name]


def _words(parameter: Any, value: Any) -> list[str]:
    """One parameter as it is written on a command line."""
    if parameter.param_type_name == "argument":
        return [str(value)]
    name = max(parameter.opts, key=len)
    if isinstance(value, bool):
        return [name] if value else []
    values = value if isinstance(value, list | tuple) else [value]
    return [f"{name}={getattr(each, 'value', each)}" for each in values]


def _tell(said: str, style: str | None = None) -> None:
    consoles.complaints.print(said, style=style, highlight=False, markup=False, soft_wrap=True)
    sys.stderr.flush()
