"""A driver of a sweep with one planned trial, outside Tune."""

from collections.abc import Iterator

import pytest

from sweep.grid.schema import Grid
from sweep.grid.settings import settings_of
from sweep.results.compact import survey
from sweep.service import driver as module
from sweep.service.cluster import RayCluster
from sweep.service.driver import Driver
from sweep.spec import Plan
from sweep.store.lease import hold
from sweep.store.sweep_dir import SweepDir
from tests.sweep.service.driving import Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def driven(
    sweep: SweepDir, tiny: Grid, plan: Plan, told: Told, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Driver]:
    """A driver of a sweep with one planned trial, outside Tune."""
    monkeypatch.setattr(module, "node_of", lambda _: None)
    sweep.add([plan])
    with hold(sweep.path) as lease:
        made = Driver(
            sweep, settings_of(tiny.model_dump(mode="json")), survey(sweep), told, lease, RayCluster(max_failures=1)
        )
        yield made
        made._analyses.close()
        made._clerk.close()
        made._observers.close(0, False, None)
