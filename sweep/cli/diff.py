"""`sweep diff`: two sweeps, or two trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli import completion, consoles
from sweep.cli.options import AsJson, Storage
from sweep.store.files import absolute

if TYPE_CHECKING:
    from upath import UPath

    from sweep.store.sweep_dir import SweepDir
    from sweep.store.trial_dir import TrialDir

_HELP = "A sweep's name or path; or a trial, as SWEEP/TRIAL with its id or as much of it as is unique."


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=_HELP, autocompletion=completion.sweeps)],
    after: Annotated[str, typer.Argument(metavar="B", help="The other one.", autocompletion=completion.sweeps)],
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Show what differs: two sweeps' grids, trials and cells, or two trials' specs."""
    place = absolute(storage)
    first, second = (_found(name, place) for name in (before, after))
    if isinstance(first, tuple) and isinstance(second, tuple):
        _diff_trials(first[1], second[1], as_json)
    elif isinstance(first, tuple) or isinstance(second, tuple):
        raise ValueError(f"one of {before} and {after} is a sweep and the other a trial; name two of a kind")
    else:
        _diff_sweeps(first, second, as_json)


def _found(said: str, storage: UPath) -> SweepDir | tuple[SweepDir, TrialDir]:
    """The sweep or the trial that a word names.

    Raises:
        ValueError: it names neither, or several trials.
    """
    from sweep.store.sweep_dir import open_sweep

    try:
        return open_sweep(said, storage)
    except ValueError:
        name, slash, trial = said.rstrip("/").rpartition("/")
        if not (slash and name and trial):
            raise
    sweep = open_sweep(name.removesuffix("/trials"), storage)
    return sweep, _trial(sweep, trial)


def _trial(sweep: SweepDir, said: str) -> TrialDir:
    from sweep.service.choice import matching

    known = [trial.trial_id for trial in sweep.trials()]
    fitting = [name for name in known if name.startswith(said)]
    if said in known:
        fitting = [said]
    if not fitting:
        fitting = sorted(matching(sweep, [said]))
    if len(fitting) > 1:
        raise ValueError(f"{said!r} is not unique in {sweep.name}: {', '.join(fitting[:5])}; give more of the id")
    return sweep.trial(fitting[0])


def _diff_sweeps(first: SweepDir, second: SweepDir, as_json: bool) -> None:
    from sweep.results.compact import look
    from sweep.results.differences import differences
    from sweep.terminal.differences import sweep_lines

    found = differences(look(first), look(second), _last_grid(first), _last_grid(second))
    if as_json:
        values = asdict(found) | {"grid": [change.to_json() for change in found.grid]}
        consoles.print_json({"before": str(first.path), "after": str(second.path)} | values)
        return
    _print(sweep_lines(first.name, second.name, found))


def _last_grid(sweep: SweepDir) -> dict[str, Any]:
    launches = sweep.launches()
    return dict(launches[-1]["grid"]) if launches else {}


def _diff_trials(first: TrialDir, second: TrialDir, as_json: bool) -> None:
    from sweep.results.differences import changes
    from sweep.terminal.differences import change_lines

    found = changes(*(trial.plan().spec.model_dump(mode="json") for trial in (first, second)))
    if as_json:
        sides = {"before": first.trial_id, "after": second.trial_id}
        consoles.print_json(sides | {"spec": [change.to_json() for change in found]})
        return
    _print([f"{first.trial_id} -> {second.trial_id}", *(change_lines(found) if found else ["  the specs are equal"])])


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        consoles.tell(line)
