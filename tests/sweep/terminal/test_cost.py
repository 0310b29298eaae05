"""What a terminal says about cost."""

import re
from dataclasses import replace

import pytest
from rich.console import Console

from sweep.results.cost import Cost
from sweep.terminal.cost import done_and_left, duration, estimate_table

COST = Cost(
    trials_left=3, epochs_left=1200, images_left=2_000_000, gpu_hours_done=1234.5, gpu_hours_left=0.25,
    cpu_hours_done=0.0, cpu_hours_left=0.0, seconds_left=9000.0, money_done=0, money_left=0, unmeasured=(), unsized=0,
)  # fmt: skip


def test_hours_done_and_left_and_the_time_left_are_one_line() -> None:
    assert done_and_left(COST) == "GPU hours: 1,234 done, 0.25 left; time left: about 2.5 hours"
    priced = replace(COST, money_done=10.0, money_left=2.5, seconds_left=None, gpu_hours_left=None)
    said = "GPU hours: 1,234 done, unknown left; money: 10 spent, 2.5 to spend"
    assert done_and_left(priced) == said
    assert done_and_left(replace(COST, seconds_left=0.0, gpu_hours_done=0.0, gpu_hours_left=0.0)) == ""


def shown(cost: Cost, kept_bytes: int, passing_bytes: int, priced: bool) -> dict[str, str]:
    """The lines of an estimate by their names, on a terminal of 80 columns."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(estimate_table("3 to do", cost, kept_bytes, passing_bytes, priced))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    return dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in lines)


def test_an_estimate_says_what_is_known_and_how_to_learn_the_rest() -> None:
    assert shown(COST, 5_600_000, 1_100, priced=True) == {
        "trials": "3 to do",
        "epochs": "1,200",
        "images": "2,000,000",
        "disk": "5.6 MB, and up to 1.1 kB more for each trial while it trains",
        "GPU hours": "0.25",
        "CPU hours": "0, of trials without GPUs",
        "time": "about 2.5 hours",
        "money": "0",
    }
    unknown = replace(COST, gpu_hours_left=None, seconds_left=None, images_left=None, unmeasured=("a[b]", "vgg19"))
    said = shown(unknown, 0, 0, priced=False)
    assert said["GPU hours"] == said["images"] == said["time"] == "unknown"
    assert "SWEEP_PRICES" in said["money"]
    assert said["not measured"] == "a[b], vgg19; `--dry-run --probe` times a few steps of each"


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (300, "5 minutes"), (9000, "2.5 hours"), (86400 * 2.5, "2.5 days")]
)
def test_durations_are_told_in_a_unit_that_reads_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words
