"""Fixtures shared by all tests: a quiet local Ray, tiny data, folders of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"

# Before Ray is imported: no token file in the tester's home, no usage report, few processes.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# The same examples in every run, and no limit that a busy machine would break.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared data goes to a folder of this test run, shared by its tests."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("SWEEP_CACHE", str(folder))


@pytest.fixture
def reference() -> Path:
    """The folder of published data that lies beside the project, where it does."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the published reference data is not at {REFERENCE}")
    return REFERENCE


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Two CPUs of Ray for the tests that need actors."""
    import ray

    ray.init(address="local", num_cpus=2, object_store_memory=90 * 2**20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
