"""`sweep status`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli import completion, consoles
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute

if TYPE_CHECKING:
    from sweep.results.state import Filters, State
    from sweep.store.sweep_dir import SweepDir

_LOOK_EVERY_S = 5.0


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    EXCLUDED = "excluded"


class Verdict(StrEnum):
    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"
    NONE = "none"


def _option(what: str, complete: str | None = None) -> typer.models.OptionInfo:
    names = None if complete is None else completion.named(complete)
    return typer.Option(help=f"Only trials {what}. Repeatable.", autocompletion=names)


def status(
    context: typer.Context,
    sweep: SweepName,
    storage: Storage = "runs",
    status: Annotated[list[Status] | None, _option("in this state")] = None,
    verdict: Annotated[list[Verdict] | None, _option("whose last layer shows this")] = None,
    unexpected: Annotated[
        bool, typer.Option("--unexpected", help="Only trials whose last layer doesn't show what was expected.")
    ] = False,
    architecture: Annotated[list[str] | None, _option("of this architecture", "architectures")] = None,
    intervention: Annotated[list[str] | None, _option("under this intervention", "interventions")] = None,
    data: Annotated[list[str] | None, _option("on this data set", "data")] = None,
    recipe: Annotated[list[str] | None, _option("by the recipe with this key, which --json shows")] = None,
    search: Annotated[
        str, typer.Option(metavar="TEXT", help="Only trials with this text in their id, error, reason or host.")
    ] = "",
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking, every 5 seconds.")] = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Show the state of a sweep: what failed and why, then a row for each trial's final layers."""
    from sweep.results.state import Filters
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None and watch:
        raise ValueError("--watch with --cluster would send a job every 5 seconds; follow with `sweep logs` instead")
    if cluster is not None:
        look_there(context, sweep, storage)
    opened = open_sweep(sweep, absolute(storage))
    filters = Filters(
        status=tuple(map(str, status or ())),
        verdict=tuple(map(str, verdict or ())),
        architecture=tuple(architecture or ()),
        intervention=tuple(intervention or ()),
        data=tuple(data or ()),
        recipe=tuple(recipe or ()),
        unexpected=unexpected,
        search=search,
    )
    _show(opened, lambda state: require_known_values(state, filters), as_json, watch)


def require_known_values(state: State, filters: Filters) -> Filters:
    """The filters, which name only what the sweep has.

    Raises:
        ValueError: a name is not that of any trial's architecture, intervention, data set or recipe.
    """
    from sweep.results.state import FILTERED

    for name in ("architecture", "intervention", "data", "recipe"):
        known = sorted(state.trials[FILTERED[name]].dropna().unique())
        _require_known(name, getattr(filters, name), known, state.sweep.name)
    return filters


def _require_known(name: str, said: Sequence[str], known: Sequence[str], sweep: str) -> None:
    for value in said:
        if value not in known:
            raise ValueError(f"--{name} {value!r}: no trial of {sweep} has it; there are: {', '.join(known) or 'none'}")


def _show(sweep: SweepDir, checked: Callable[[State], Filters], as_json: bool, watch: bool) -> None:
    """Print a sweep's state, once or as it changes: in place on a terminal, else one below the other."""
    from rich.live import Live

    from sweep.results.state import glance, read_state
    from sweep.terminal.status import StateView, state_json

    state = read_state(sweep, surveyed=True)
    filters = checked(state)
    in_place = watch and not as_json and consoles.output.is_terminal
    live = Live(console=consoles.output, auto_refresh=False) if in_place else None
    if live is not None:
        live.start()
    try:
        while True:
            if as_json:
                consoles.print_json(state_json(state, filters))
            elif live is not None:
                live.update(StateView(state, filters), refresh=True)
            else:
                consoles.output.print(StateView(state, filters))
            if not watch:
                return
            time.sleep(_LOOK_EVERY_S)  # the watcher's own pace; nothing waits for it
            version, state.driver = glance(sweep)
            if version != state.version:
                state = read_state(sweep, surveyed=True)
    finally:
        if live is not None:
            live.stop()
