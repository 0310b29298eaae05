"""What a launch tells a log or a pipe."""

from io import StringIO

import pytest
from rich.console import Console

from sweep.terminal import progress
from sweep.terminal.progress import Lines


def test_the_time_left_leaves_waiting_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    printed = StringIO()
    lines = Lines(Console(file=printed), trials=1, epochs=10, epochs_done=0)
    for moment, waits in ((0, True), (3600, True), (7200, False)):  # two hours without a node
        now[0] = moment
        lines.waits(nothing_runs=waits)
    now[0] += 60
    lines.epoch("a", 1, None)
    assert printed.getvalue() == "epochs 1/10, about 540 s left\n"
