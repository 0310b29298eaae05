"""A look at a sweep of 10,000 trials on an object store: a few requests, however many trials there are."""

import json
import time
from collections.abc import Iterator

import pandas as pd
import pytest
from upath import UPath

from sweep.results.compact import trial_row
from sweep.results.tables import table_of, write_table
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import Status
from tests.command import run
from tests.counting import CountedS3, counted_s3

_TRIALS = 10_000
_REQUESTS, _SECONDS = 50, 2.0


@pytest.fixture
def server(object_store: int) -> Iterator[CountedS3]:
    with counted_s3(object_store) as made:
        yield made


@pytest.fixture
def large(server: CountedS3, plan: Plan) -> SweepDir:
    """A sweep as its driver has written it: half of the trials finished, the others waiting."""
    storage = UPath("s3://runs/sweeps")
    storage.fs.makedirs("runs", exist_ok=True)
    sweep = SweepDir(storage / "large")
    sweep.record_launch({"name": "large", "architectures": [plan.spec.architecture], "interventions": ["baseline"]})
    row = trial_row(plan, Status())
    trials = pd.DataFrame(
        [row | {"trial_id": f"{plan.trial_id}-{number}", "seed": number} for number in range(_TRIALS)]
    )
    trials["status"] = ["finished", "pending"] * (_TRIALS // 2)
    write_table(sweep.path, "trials", table_of("trials", trials.to_dict("records")))
    for name in ("epochs", "layers"):
        write_table(sweep.path, name, table_of(name, []))
    return sweep


def test_status_of_ten_thousand_trials_asks_little(server: CountedS3, large: SweepDir) -> None:
    run("status", str(large.path))  # imports what it needs
    before, began = len(server.requests), time.process_time()
    told = json.loads(run("status", str(large.path), "--json"))
    took_s = time.process_time() - began
    assert told["counts"] == {"pending": 5000, "running": 0, "finished": 5000, "failed": 0, "excluded": 0}
    asked = server.requests[before:]
    assert 3 <= len(asked) <= _REQUESTS, asked
    assert took_s < _SECONDS
