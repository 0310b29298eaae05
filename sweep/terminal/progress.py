"""Show the progress of a launch: bars on a terminal, plain lines elsewhere."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from sweep.data.registry import Source

_LINE_EVERY_S = float(os.environ.get("SWEEP_LINE_EVERY_S", "20"))


class Display(Protocol):
    """What a launch reports while it runs."""

    def epoch(self, trial_id: str, epoch: int, val_accuracy: float | None) -> None:
        """A trial has finished an epoch (counted from 0, the untrained network)."""

    def ended(self, trial_id: str, outcome: str) -> None:
        """A trial is finished or has failed."""

    def another_trial(self, trial_id: str, epochs: int) -> None:
        """A trial was added to those to run, with this many epochs left."""

    def remark(self, line: str) -> None:
        """Something that the user should know now."""

    def analysed(self, done: int, waiting: int) -> None:
        """How many checkpoints are analysed, and how many are waiting."""

    def waits(self, nothing_runs: bool) -> None:
        """Whether all trials wait for room, which says nothing of how long those take that run."""


class Bars:
    """Bars for a terminal: trials, epochs of all trials with the time left, analysed checkpoints."""

    def __init__(self, progress: Progress, trials: int, epochs: int, epochs_done: int) -> None:
        self._progress = progress
        self._seen: set[tuple[str, int]] = set()
        self._trials = progress.add_task("trials", total=trials)
        self._epochs = progress.add_task("epochs", total=epochs, completed=epochs_done)
        self._analysed = progress.add_task("analysed checkpoints", total=None)

    def epoch(self, trial_id: str, epoch: int, val_accuracy: float | None) -> None:
        if epoch > 0 and (trial_id, epoch) not in self._seen:  # one is done again after a torn checkpoint
            self._seen.add((trial_id, epoch))
            self._progress.advance(self._epochs)

    def ended(self, trial_id: str, outcome: str) -> None:
        self._progress.console.print(f"{trial_id}: {outcome}", highlight=False, markup=False)
        self._progress.advance(self._trials)

    def another_trial(self, trial_id: str, epochs: int) -> None:
        self._seen = {(seen, epoch) for seen, epoch in self._seen if seen != trial_id}
        for task in self._progress.tasks:
            more = {self._trials: 1, self._epochs: epochs}.get(task.id, 0)
            self._progress.update(task.id, total=(task.total or 0) + more if more else task.total)

    def remark(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)

    def analysed(self, done: int, waiting: int) -> None:
        self._progress.update(self._analysed, completed=done, total=done + waiting)

    def waits(self, nothing_runs: bool) -> None:
        pass  # the time left follows from the newest epochs alone


class Lines:
    """A line for each ended trial, and one about the epochs every 20 seconds, for logs and pipes."""

    def __init__(self, console: Console, trials: int, epochs: int, epochs_done: int) -> None:
        self._console = console
        self._trials, self._epochs = trials, epochs
        self._ended, self._at_start, self._done = 0, epochs_done, epochs_done
        self._seen: set[tuple[str, int]] = set()
        self._began = self._said = time.monotonic()
        self._waits_since: float | None = None

    def epoch(self, trial_id: str, epoch: int, val_accuracy: float | None) -> None:
        self._done += epoch > 0 and (trial_id, epoch) not in self._seen  # one is done again after a torn checkpoint
        self._seen.add((trial_id, epoch))
        now = time.monotonic()
        if now - self._said >= _LINE_EVERY_S and self._done > self._at_start:
            self._said = now
            left_s = (now - self._began) / (self._done - self._at_start) * (self._epochs - self._done)
            self._print(f"epochs {self._done}/{self._epochs}, about {left_s:.0f} s left")

    def ended(self, trial_id: str, outcome: str) -> None:
        self._ended += 1
        self._print(f"trial {self._ended}/{self._trials} {trial_id}: {outcome}")

    def another_trial(self, trial_id: str, epochs: int) -> None:
        self._seen = {(seen, epoch) for seen, epoch in self._seen if seen != trial_id}
        self._trials += 1
        self._epochs += epochs

    def remark(self, line: str) -> None:
        self._print(line)

    def analysed(self, done: int, waiting: int) -> None:
        pass  # the table at the end says it

    def waits(self, nothing_runs: bool) -> None:
        now = time.monotonic()
        if self._waits_since is not None:
            self._began += now - self._waits_since
        self._waits_since = now if nothing_runs else None

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def display(console: Console, trials: int, epochs: int, epochs_done: int) -> Iterator[Display]:
    """Bars if the console is a terminal, else lines."""
    if not console.is_terminal:
        yield Lines(console, trials, epochs, epochs_done)
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield Bars(progress, trials, epochs, epochs_done)


def tell_source(console: Console, source: "Source") -> None:
    """Print how a data set's folder was understood, and what else the user should know about it."""
    tell_understood(console, source)
    tell_remarks(console, source)


def tell_understood(console: Console, source: "Source") -> None:
    for line in source.understood:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def tell_remarks(console: Console, source: "Source") -> None:
    for remark in source.remarks:
        console.print(remark, style="yellow", highlight=False, markup=False, soft_wrap=True)


class Preparing(Protocol):
    """Called with what is done of a data set, what there is to do, and the unit of both."""

    def __call__(self, done: int, total: int, unit: str = "pictures") -> None: ...


@contextmanager
def preparing(console: Console, name: str, done_to: str = "decoded", image_bytes: int = 0) -> Iterator[Preparing]:
    """Show how far a data set is: pictures read or decoded, or bytes fetched, per second and with the time left.

    `image_bytes` is what each picture takes where it is stored; the gigabytes are then shown too.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"),
               TimeRemainingColumn())  # fmt: skip
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(f"data set {name}", total=None, rate="")
        began = said = time.monotonic()
        before: int | None = None

        def show(done: int, total: int, unit: str = "pictures") -> None:
            nonlocal said, before
            before = done if before is None else before  # what lay there already
            now = time.monotonic()
            words = _in_words(done, total, unit, done_to, image_bytes)
            rate = _rate((done - before) / max(now - began, 1e-3), unit)
            progress.update(task, completed=done, total=total, rate=f"{words}, {rate}")
            if quiet and now - said >= _LINE_EVERY_S:
                said = now
                console.print(f"data set {name}: {words}, {rate}", highlight=False)

        yield show


def _in_words(done: int, total: int, unit: str, done_to: str, image_bytes: int) -> str:
    if unit == "bytes":
        return f"{done / 1e9:,.2f} of {total / 1e9:,.2f} GB fetched"
    stored = f", {done * image_bytes / 1e9:,.2f} of {total * image_bytes / 1e9:,.2f} GB" if image_bytes else ""
    return f"{done:,} of {total:,} pictures {done_to}{stored}"


def _rate(per_s: float, unit: str) -> str:
    return f"{per_s / 1e6:,.0f} MB/s" if unit == "bytes" else f"{per_s:,.0f}/s"
