"""What a terminal says about cost."""

from dataclasses import replace

import pytest

from sweep.results.cost import Cost
from sweep.terminal.cost import done_and_left, duration, estimate_lines

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


def test_an_estimate_says_what_is_known_and_how_to_learn_the_rest() -> None:
    lines = estimate_lines("3 trials", COST, 5_600_000, 1_100, priced=True)
    assert lines == [
        "3 trials",
        "1,200 epochs, 2,000,000 training images",
        "checkpoints: 5.6 MB, and while it trains up to 1.1 kB more for each trial",
        "GPU hours: 0.25, CPU hours of trials without GPUs: 0",
        "time: about 2.5 hours",
        "money: 0",
    ]
    unknown = replace(COST, gpu_hours_left=None, seconds_left=None, unmeasured=("alexnet", "vgg19"))
    lines = estimate_lines("3 trials", unknown, 0, 0, priced=False)
    assert lines[3].startswith("GPU hours: unknown")
    assert "SWEEP_PRICES" in lines[5]
    assert lines[6] == "not measured yet: alexnet, vgg19; --probe times a few steps of each"


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (300, "5 minutes"), (9000, "2.5 hours"), (86400 * 2.5, "2.5 days")]
)
def test_durations_are_told_in_a_unit_that_reads_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words
