"""`sweep status` on a terminal: within its width, failures first, filtered as asked, redrawn in place."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console
from upath import UPath

from sweep.results.state import Filters, read_state
from sweep.results.tables import read_table, write_table
from sweep.store.sweep_dir import SweepDir
from sweep.terminal.status import StateView
from tests.command import document, run
from tests.dashboard.synthetic import trial_id, write_sweep

NAMES = ("baseline", "rotate90", "no_pooling", "x_pool", "untrained", "coord_conv")
STATES = re.compile(r"^(?!--)\S+ +(failed|running|pending|finished|excluded)")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDir:
    write_sweep(tmp_path / "demo")
    return SweepDir(UPath(tmp_path / "demo"))


def drawn(sweep: SweepDir, width: int, *filters: Filters) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(StateView(read_state(sweep), *filters or (Filters(),)))
    return captured.get().splitlines()


def many_failures(sweep: SweepDir, number: int, error: str) -> None:
    """Add failed trials with long names to the table."""
    trials = read_table(sweep.path, "trials")
    failed = trials[trials["status"] == "failed"]
    more = pd.concat([failed.assign(trial_id=f"a_very_long_architecture_name-x_pool-s{seed}-0123456789ab", error=error)
                      for seed in range(number)])  # fmt: skip
    write_table(sweep.path, "trials", pd.concat([trials, more], ignore_index=True))


@pytest.mark.parametrize("width", [60, 80, 81, 100, 120, 160, 300])
def test_no_line_of_the_table_is_wider_than_the_terminal_or_folded(sweep: SweepDir, width: int) -> None:
    many_failures(sweep, 3, "ValueError: " + "a long story " * 20)
    lines = drawn(sweep, width)
    assert max(map(cell_len, lines)) <= width
    table = lines[lines.index("") + 1 :]
    assert table[0].split()[:3] == ["trial", "status", "acc."]
    rows = 1 + 10 + 4  # the header, each trial, and the second layer of those that have one
    assert len(table) == rows, "\n".join(lines)
    names = [line.split()[0] for line in table[1:] if not line.startswith(" ")]
    assert len(set(names)) == 10, "cut names are unique"


def test_failed_trials_come_first_and_together(sweep: SweepDir) -> None:
    many_failures(sweep, 6, "DivergedError: the loss was not a finite number at step 9")
    lines = drawn(sweep, 80)
    said = " ".join(" ".join(lines).split())
    assert "DivergedError x 7: the loss was not a finite number at step" in said
    assert "--only failed" in said
    states = [match[1] for line in lines if (match := STATES.search(line))]
    assert states == ["failed"] * 7 + ["running", "pending"] + ["finished"] * 3 + ["excluded"]


def test_what_is_unexpected_is_marked_where_the_expected_has_no_column(sweep: SweepDir) -> None:
    layers = read_table(sweep.path, "layers")
    layers.loc[layers["trial_id"] == trial_id("rotate90", 0), "expected"] = "none"
    write_table(sweep.path, "layers", layers)
    assert sum("vertical ≠" in line for line in drawn(sweep, 70)) == 2
    assert not any("≠" in line for line in drawn(sweep, 300))
    assert [trial["intervention"] for trial in _told(sweep, "--unexpected")] == ["rotate90"]


def _told(sweep: SweepDir, *filters: str) -> list[dict[str, str]]:
    return document("status", str(sweep.path), *filters)["trials"]


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        (["--status", "failed"], ["x_pool"]),
        (["--status", "failed", "--status", "running"], ["no_pooling", "x_pool"]),
        (["--verdict", "vertical"], ["rotate90"]),
        (["--intervention", "untrained"], ["untrained"]),
        (["--architecture", "simplified_mini", "--data", "scenes", "--status", "pending"], ["untrained"]),
        (["--search", "FINITE number"], ["x_pool"]),
        (["--search", "nothing has this"], []),
    ],
)
def test_filters(sweep: SweepDir, filters: list[str], chosen: list[str]) -> None:
    assert [trial["intervention"] for trial in _told(sweep, *filters)] == chosen
    printed = run("status", str(sweep.path), *filters)
    assert all((trial_id(name, 0).rpartition("-")[0] in printed) == (name in chosen) for name in NAMES)


def test_a_filter_that_nothing_can_pass_is_a_mistake(sweep: SweepDir) -> None:
    said = run("status", str(sweep.path), "--architecture", "vgg19", code=2)
    assert "--architecture 'vgg19': no trial of demo has it; there are: simplified_mini" in said
    assert "'finished'" in run("status", str(sweep.path), "--status", "finishd", code=2)


def test_failures_are_in_the_document(sweep: SweepDir) -> None:
    many_failures(sweep, 6, "DivergedError: the loss was not a finite number at step 9")
    (failures,) = document("status", str(sweep.path))["failures"]
    assert (failures["title"], len(failures["trial_ids"])) == ("DivergedError x 7", 7)


@pytest.mark.slow
def test_a_terminal_of_80_by_24_shows_it_and_watching_redraws_in_place(sweep: SweepDir) -> None:
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "sweep.cli", "status", str(sweep.path), "--watch"]
    process = subprocess.Popen(command, stdout=side, stderr=side, env=environment | {"TERM": "xterm"})
    os.close(side)
    said = b""
    try:
        while said.count(b"untrained") < 2:
            said += os.read(terminal, 65536)
    finally:
        process.terminate()
        process.wait()
        os.close(terminal)
    assert b"\x1b[1A" in said, "the cursor goes up to draw over what was there"
    first = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", said.split(b"\x1b[1A")[0]).decode()
    lines = [line.rstrip("\r") for line in first.split("\n")]
    assert max(map(cell_len, lines)) <= 80
    assert len(lines) <= 24
    assert len([line for line in lines if line.startswith("simplified_min")]) == 7
