"""How commands that train or analyse are stopped, and what they say at their end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from sweep.cli import consoles

if TYPE_CHECKING:
    from sweep.service.launch import Outcome
    from sweep.store.sweep_dir import SweepDir


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


def conclude(sweep: SweepDir, outcome: Outcome) -> None:
    """Print the results and where they are; exit with the outcome's code."""
    from sweep.results.words import count
    from sweep.terminal import show

    consoles.output.print(show.sweep_table(sweep))
    picture = show.draw_sweep(sweep)
    if picture is not None:
        consoles.output.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    if outcome.exit_code:
        failed = f"{count(outcome.failed, 'trial')} failed" if outcome.failed else ""
        lost = f"{count(outcome.lost_analyses, 'analysis')} could not be recorded" if outcome.lost_analyses else ""
        said = ", ".join(filter(None, (failed, lost))) if outcome.complete else "stopped"
        cure = f"{said}; continue with: sweep resume {sweep.path}"
        consoles.output.print(cure, style="yellow", highlight=False, soft_wrap=True)
    raise typer.Exit(outcome.exit_code)
