"""Fixtures shared by all tests: a quiet local Ray, tiny data, folders of their own."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LEAST_COVERED = 90  # percent of a package's lines
SHARES = pytest.StashKey[dict[str, float]]()
REFERENCE = Path(__file__).parents[2] / "shared" / "reference"

# Before Ray is imported: no token file in the tester's home, no usage report, few processes.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A machine may be slow: Ray's own patience with its processes, which is 10 to 60 s, must not decide a test.
os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "600")
os.environ.setdefault("RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS", "600")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")

# Before PyTorch is imported: tests run side by side, and OpenMP's threads would spin while they wait for a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it sends to the background with Ctrl-C ignored, and a process hands that on to its children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, and no limit that a busy machine would break.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("fixed")


def pytest_itemcollected(item: pytest.Item) -> None:
    if {"ray_address", "local_ray"} & set(getattr(item, "fixturenames", ())):
        item.add_marker("ray")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.spread import RayInOneProcess

    return RayInOneProcess(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With `--cov`, too little of any package is a failure."""
    whole = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    shares = session.config.stash[SHARES] = covered(session.config) if whole else {}
    if any(share < LEAST_COVERED for share in shares.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    shares = terminalreporter.config.stash[SHARES]
    if shares:
        terminalreporter.section("lines covered")
    for package, share in shares.items():
        remark = "" if share >= LEAST_COVERED else f", which is less than {LEAST_COVERED} %: FAILED"
        terminalreporter.line(f"{package:10} {share:.1f} %{remark}")


def covered(config: pytest.Config) -> dict[str, float]:
    """The share of lines, in percent, that the tests of all processes ran in each package; none without `--cov`."""
    plugin = config.pluginmanager.getplugin("_cov")
    if hasattr(config, "workerinput") or plugin is None or plugin.cov_controller is None:
        return {}
    measured = plugin.cov_controller.cov
    packages = measured.config.source
    return {package: measured.report(file=StringIO(), include=[f"{package}/*"]) for package in packages}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared data goes to a folder of this test run, shared by its tests."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SWEEP_CACHE", str(folder))
        yield folder


@pytest.fixture
def reference() -> Path:
    """The folder of published data that lies beside the project, where it does."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the published reference data is not at {REFERENCE}")
    return REFERENCE


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def object_store() -> Iterator[int]:
    """The port at which this process and Ray's workers look for an object store, as the environment tells them."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patched.setenv("AWS_ACCESS_KEY_ID", "test")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patched.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield port


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium; skips where there is none."""
    from tests.dashboard.chromium import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def ray_address(cache: Path, object_store: int) -> Iterator[str]:
    """A Ray node with two CPUs for all tests; `sweep launch --address` takes it."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 90 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def drive(ray_address: str) -> Callable[..., str]:
    """`tests.command.run` for what trains or analyses: a driver of the one Ray."""
    from tests.command import run

    def on_that_ray(*arguments: str, code: int = 0) -> str:
        return run(*arguments, "--address", ray_address, code=code)

    return on_that_ray


@pytest.fixture(scope="module")
def local_ray(ray_address: str) -> Iterator[None]:
    """The tests of a module are drivers of the one Ray."""
    import ray

    ray.init(address=ray_address, log_to_driver=False)
    yield
    ray.shutdown()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their length: archives hold the time, and both test processes must give a test one name."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
