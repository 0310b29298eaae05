"""How commands that train or analyse begin, are stopped, and end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sweep.cli import consoles

if TYPE_CHECKING:
    from sweep.service.cluster import RayCluster
    from sweep.service.launch import Outcome
    from sweep.service.observers import Observer
    from sweep.store.sweep_dir import SweepDir

_MOST_NAMES = 10


def ray_cluster(
    address: str | None,
    max_failures: int | None = None,
    fresh_processes: bool = False,
    at_a_time: int | None = None,
    budget: str | None = None,
    weight: float = 1.0,
    observers: tuple[Callable[[str], Observer], ...] = (),
    as_json: bool = False,
) -> RayCluster:
    """Where and how a command runs; it says so when training begins."""
    from sweep.results.cost import Budget
    from sweep.service.cluster import MAX_FAILURES, RayCluster

    return RayCluster(
        address=address,
        max_failures=MAX_FAILURES if max_failures is None else max_failures,
        fresh_processes=fresh_processes,
        at_a_time=at_a_time,
        budget=None if budget is None else Budget.parse(budget),
        weight=weight,
        on_begin=partial(_begin, as_json),
        observers=observers,
    )


def observers_of(track: Sequence[str] | None, notify: Sequence[str] | None) -> tuple[Callable[[str], Observer], ...]:
    """What `--track` and `--notify` ask for.

    Raises:
        ValueError: a tracker or a URL is unknown, or a library is not installed.
    """
    from sweep.service.notifications import notifier
    from sweep.service.trackers import tracker

    return (*map(tracker, track or ()), *map(notifier, notify_urls(notify or ())))


def notify_urls(notify: Sequence[str]) -> list[str]:
    """The URLs that `--notify` names, one by one or as the lines of an `@FILE`.

    Raises:
        ValueError: there is no such file.
    """
    found: list[str] = []
    for said in notify:
        try:
            found += Path(said[1:]).read_text().split() if said.startswith("@") else [said]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--notify {said}: {error}; name a file that holds URLs of apprise") from error
    return found


def _begin(as_json: bool, sweep: SweepDir) -> None:
    """Tell which code has changed since the last time, and whoever waits for a job that it trains."""
    from sweep.results.words import count
    from sweep.service.jobs import BEGUN, SENT_WITH
    from sweep.store.code import code_version, files_changed, record_code, sent_from_other_code

    said = []
    if changed := files_changed(sweep):
        names = ", ".join(changed[:_MOST_NAMES]) + (", ..." if len(changed) > _MOST_NAMES else "")
        differ = f"{count(len(changed), 'file')} {'differs' if len(changed) == 1 else 'differ'}"
        said.append(f"{differ} from the code of the last launch: {names}")
    if other := sent_from_other_code():
        said.append(f"this cluster runs {code_version()}, not your {other}; send yours along with --ship-code")
    for line in said:
        consoles.tell(line, as_json, "yellow")
    record_code(sweep)
    if SENT_WITH in os.environ:
        consoles.tell(BEGUN, as_json)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, sent by `ray job stop` and by machines that shut down, acts like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    except KeyboardInterrupt:  # outside Tune's loop, which handles it itself; nothing is half-written
        consoles.complaints.print("stopped; run the same command again to continue", style="yellow")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def conclude(sweep: SweepDir, outcome: Outcome, as_json: bool = False) -> None:
    """Print the results and where they are; exit with the outcome's code."""
    from sweep.results.words import count
    from sweep.terminal import show

    picture = show.draw_sweep(sweep)
    if as_json:
        consoles.print_json(show.sweep_json(sweep))
    else:
        consoles.output.print(show.sweep_table(sweep))
    if picture is not None:
        consoles.tell(f"picture: {picture}", as_json)
    if outcome.exit_code:
        failed = f"{count(outcome.failed, 'trial')} failed" if outcome.failed else ""
        lost = f"{count(outcome.lost_analyses, 'analysis')} could not be completed" if outcome.lost_analyses else ""
        said = ", ".join(filter(None, (failed, lost))) if outcome.complete else "stopped"
        consoles.tell(f"{said}; continue with: {resume_command(str(sweep.path))}", as_json, "yellow")
    raise typer.Exit(outcome.exit_code)


def resume_command(sweep: str) -> str:
    """What continues a sweep where it ran: in a job, on the same cluster."""
    from sweep.service.jobs import SENT_WITH

    return f"sweep resume {sweep} {os.environ.get(SENT_WITH, '')}".rstrip()
