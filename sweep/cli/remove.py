"""`sweep remove`: a sweep, or some of its trials, for good."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli import consoles
from sweep.cli.options import AsJson, Storage, SweepName
from sweep.store.files import absolute

if TYPE_CHECKING:
    from upath import UPath

    from sweep.store.removal import Loss
    from sweep.store.sweep_dir import SweepDir


def remove(
    sweep: SweepName,
    trial: Annotated[
        list[str] | None, typer.Option(help="Only this trial: its id, which may contain *. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Remove a sweep, or some of its trials, with checkpoints and results.

    It asks first. A removal that was interrupted goes on when it is run again.
    """
    from sweep.store.lease import require_free

    found = _found(sweep, absolute(storage))
    require_free(found.path)
    if trial:
        _remove_trials(found, trial, yes, as_json)
    else:
        _remove_sweep(found, yes, as_json)


def _found(sweep: str, storage: UPath) -> SweepDir:
    """The sweep, or what an interrupted removal has left of it."""
    from upath import UPath

    from sweep.store.removal import is_half_removed
    from sweep.store.sweep_dir import SweepDir, open_sweep

    for path in (UPath(sweep), *(() if "://" in sweep else (storage / sweep,))):
        if is_half_removed(path):
            return SweepDir(absolute(path))
    return open_sweep(sweep, storage)


def _remove_sweep(sweep: SweepDir, yes: bool, as_json: bool) -> None:
    from sweep.store.files import sizes_below
    from sweep.store.removal import loss, remove_sweep

    lost = loss(sizes_below(sweep.path), len(sweep.trials()))
    _ask(f"{sweep.path} with {_in_words(lost)}", yes)
    remove_sweep(sweep)
    _conclude(sweep, lost, [], as_json)


def _remove_trials(sweep: SweepDir, patterns: list[str], yes: bool, as_json: bool) -> None:
    from sweep.results.compact import GATHERED, compact_all, gather, unsettle
    from sweep.service.choice import matching
    from sweep.store.files import sizes_below
    from sweep.store.lease import hold
    from sweep.store.removal import loss, remove_trial

    chosen = sorted(matching(sweep, patterns))
    folders = [sweep.trial(trial_id) for trial_id in chosen]
    sizes = {f"{trial.trial_id}/{name}": size for trial in folders for name, size in sizes_below(trial.path).items()}
    lost = loss(sizes, len(chosen))
    _ask(f"{_in_words(lost)} of {sweep.path}", yes)
    with hold(sweep.path):
        unsettle(sweep, set(chosen))
        for folder in folders:
            remove_trial(sweep, folder)
        compact_all(sweep)
        for table in GATHERED:
            if sweep.table(table).exists():
                gather(sweep, table)
    _conclude(sweep, lost, chosen, as_json)


def _ask(what: str, yes: bool) -> None:
    """Have what would be lost confirmed.

    Raises:
        ValueError: nobody can be asked.
    """
    if yes:
        return
    said = f"{what} would be lost for good"
    if not sys.stdin.isatty():
        raise ValueError(f"{said}; to remove without being asked, add --yes")
    if not typer.confirm(f"{said}. Remove?", err=True):
        consoles.complaints.print("nothing is removed")
        raise typer.Exit(1)


def _conclude(sweep: SweepDir, lost: Loss, trial_ids: list[str], as_json: bool) -> None:
    if as_json:
        only = {"trial_ids": trial_ids} if trial_ids else {}
        consoles.print_json({"removed": str(sweep.path)} | only | asdict(lost))
    else:
        consoles.tell(f"removed {_in_words(lost)} of {sweep.path}")


def _in_words(lost: Loss) -> str:
    from sweep.results.words import count

    return f"{count(lost.trials, 'trial')}, {count(lost.checkpoints, 'checkpoint')}, {lost.size / 2**20:,.1f} MiB"
