"""A trial's attempts are read from its log."""

import logging
from pathlib import Path

import pytest
from upath import UPath

from sweep.results.attempts import Attempt, Outcome, attempts
from sweep.store.log import logged_to
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import read_log

LOG = """\
2026-01-01T00:00:00Z attempt 1 starts on node-7, process 70: CPU, 2 threads, code abc
2026-01-01T00:00:10Z epoch 0 ends at step 0: validation accuracy 0.1000, 0 s of training so far
2026-01-01T00:01:00Z epoch 1 ends at step 9: loss 1.0000, validation accuracy 0.5000, 50 s of training so far
2026-01-01T00:02:00Z attempt 2 starts on a host, with commas, process 71: CPU, 2 threads, code abc
2026-01-01T00:02:05Z resumes from the checkpoint of step 9
2026-01-01T00:02:30Z failed: OSError: [Errno 28] no space; failed: again
2026-01-01T00:03:00Z attempt 3 starts on node-8, process 72: CPU, 2 threads, code abc
2026-01-01T00:03:10Z stopped at step 12
2026-01-01T00:04:00Z attempt 4 starts on node-8, process 73: CPU, 2 threads, code abc
2026-01-01T00:05:00Z attempt 5 starts on node-9, process 74: CPU, 2 threads, code abc
2026-01-01T00:05:02Z attempt 5 has started elsewhere; this was attempt 4
2026-01-01T00:06:00Z epoch 2 ends at step 18: loss 0.5000, validation accuracy 0.7000, 99 s of training so far
"""
BEGAN = 1767225600.0


def test_each_attempt_has_its_place_times_and_end() -> None:
    found = attempts(LOG)
    assert [(one.number, one.host, one.outcome, one.epoch) for one in found] == [
        (1, "node-7", "cut off", 1), (2, "a host, with commas", "failed", None), (3, "node-8", "stopped", None),
        (4, "node-8", "superseded", None), (5, "node-9", "cut off", 2),
    ]  # fmt: skip
    assert [(one.began_at - BEGAN, one.ended_at - BEGAN) for one in found] == [
        (0, 60), (120, 150), (180, 190), (240, 302), (300, 360),
    ]  # fmt: skip
    assert found[1].said == "OSError: [Errno 28] no space; failed: again"


def test_the_last_attempt_of_a_trial_that_runs_lasts_until_its_heartbeat() -> None:
    *_, last = attempts(LOG, running_until=BEGAN + 400)
    assert (last.outcome, last.ended_at) == ("running", BEGAN + 400)
    *_, ended = attempts(LOG + "2026-01-01T00:07:00Z finished\n", running_until=BEGAN + 500)
    assert (ended.outcome, ended.ended_at) == ("finished", BEGAN + 420)


@pytest.mark.parametrize(
    "log", ["", "\x00", "no time", "2026-13-45T99:99:99Z finished", "2026-01-01T00:00:00Z failed: x"]
)
def test_what_is_no_log_has_no_attempts(log: str) -> None:
    assert attempts(log) == []


@pytest.mark.parametrize(("line", "outcome"), [("finished", "finished"), ("failed: x", "failed")])
def test_what_a_trial_logs_is_what_is_read(tmp_path: Path, line: str, outcome: Outcome) -> None:
    trial = SweepDir(UPath(tmp_path)).trial("t")
    trial.path.mkdir(parents=True)
    with logged_to(trial.log_file):
        logging.getLogger("sweep").info("attempt 1 starts on h, process 7: CPU, code c")
        logging.getLogger("sweep").info(line)
    (found,) = attempts(read_log(trial) or "")
    assert isinstance(found, Attempt)
    assert found.outcome == outcome
