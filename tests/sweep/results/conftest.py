"""What commands that measure networks meet."""

from dataclasses import replace

import pytest

from sweep.grid.expand import expand
from sweep.grid.schema import Grid
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import run_trial


@pytest.fixture
def torn(sweep: SweepDir, tiny: Grid) -> str:
    """The id of a trial of the sweep, trained from another seed, whose newest checkpoint lacks its last byte."""
    plan = expand(tiny).plans[0]
    plan = replace(plan, spec=plan.spec.model_copy(update={"init_seed": 9, "data_seed": 9}))
    sweep.add([plan])
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)
    weights = trial.checkpoints / "9" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return plan.trial_id
