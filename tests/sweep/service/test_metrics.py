"""Ray's metrics of a sweep, and the Grafana dashboard that draws them."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest

from sweep import ROOT
from sweep.service import metrics as module
from sweep.service.metrics import Metrics
from sweep.service.observers import SweepState
from sweep.spec import Plan

DASHBOARD = ROOT / "examples" / "grafana.json"
GAUGES = {"sweep_trials", "sweep_images_per_second", "sweep_analyses_waiting", "sweep_storage_away"}
HISTOGRAMS = {"sweep_checkpoint_seconds", "sweep_storage_seconds"}


class Recorded:
    """What stands in for a metric of Ray; all of them by name."""

    made: dict[str, "Recorded"]

    def __init__(self, name: str, what: str, *rest: Any) -> None:
        self.tags, self.values = rest[-1], {}
        self.observed: list[float] = []
        self.made[name] = self

    def set_default_tags(self, tags: dict[str, str]) -> None:
        assert tags == {"sweep": "demo"}

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.values[(tags or {}).get("state")] = value

    def observe(self, value: float) -> None:
        self.observed.append(value)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorded]:
    Recorded.made = {}
    monkeypatch.setattr(module, "Gauge", Recorded)
    monkeypatch.setattr(module, "Histogram", Recorded)
    return Recorded.made


def test_the_state_of_a_sweep_is_in_its_metrics(recorded: dict[str, Recorded], plan: Plan) -> None:
    made = Metrics("demo")
    assert set(recorded) == GAUGES | HISTOGRAMS
    made.epoch(plan, {"epoch": 0, "save_s": 0.25, "images_per_s": None})
    made.epoch(plan, {"epoch": 1, "save_s": 0.5, "images_per_s": 120.0})
    made.storage(0.125)
    made.state(SweepState({"running": 1, "pending": 4}, frozenset({plan.trial_id}), 3, True))
    states = {"pending": 4, "running": 1, "finished": 0, "failed": 0, "excluded": 0}
    assert recorded["sweep_trials"].values == states
    assert recorded["sweep_images_per_second"].values == {None: 120.0}
    assert recorded["sweep_analyses_waiting"].values == {None: 3}
    assert recorded["sweep_storage_away"].values == {None: 1}
    assert recorded["sweep_checkpoint_seconds"].observed == [0.25, 0.5]
    assert recorded["sweep_storage_seconds"].observed == [0.125]


def test_a_trial_that_no_longer_runs_trains_on_no_images(recorded: dict[str, Recorded], plan: Plan) -> None:
    made = Metrics("demo")
    made.epoch(plan, {"epoch": 1, "save_s": 0.5, "images_per_s": 120.0})
    made.state(SweepState({"pending": 1}, frozenset(), 0, False))
    assert recorded["sweep_images_per_second"].values == {None: 0}


EXPORT = """
import sys, time
import ray
from sweep.service.metrics import Metrics
from sweep.service.observers import SweepState
ray.init(address=sys.argv[1], log_to_driver=False)
made = Metrics("exported")
made.state(SweepState({"running": 7}, frozenset(), 0, False))
made.storage(0.125)
sys.stdin.read()
"""


@pytest.mark.slow
def test_ray_exports_them_with_the_name_of_the_sweep(local_ray: None) -> None:
    """From a process of its own, as a driver is: what other tests have observed in this one would count too."""
    import ray

    node = ray.nodes()[0]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    command = [sys.executable, "-c", EXPORT, ray.get_runtime_context().gcs_address]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        last = ("ray_sweep_storage_seconds_count", None)
        while last not in (found := exported(page)) and time.monotonic() < until:  # Ray reports every 10 s
            assert process.poll() is None
            time.sleep(1)
        process.communicate()
    assert found[last] == 1
    assert found["ray_sweep_trials", "running"] == 7


def exported(page: str) -> dict[tuple[str, str | None], float]:
    """What a node exports of the sweep, by the metric's name and the trial's state."""
    with urllib.request.urlopen(page, timeout=30) as answer:
        lines = [line for line in answer.read().decode().splitlines() if 'sweep="exported"' in line]
    states = [re.search(r'state="(\w+)"', line) for line in lines]
    return {
        (line.split("{")[0], state and state[1]): float(line.split()[-1])
        for line, state in zip(lines, states, strict=True)
    }


def test_the_dashboard_draws_each_metric_and_no_other(recorded: dict[str, Recorded]) -> None:
    Metrics("demo")
    dashboard = json.loads(DASHBOARD.read_text())
    drawn = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bray_\w+", target["expr"])
    }
    assert drawn == {f"ray_{name}{'_bucket' * (name in HISTOGRAMS)}" for name in recorded}


def test_the_dashboard_asks_for_its_data_source_and_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36  # Grafana 10 reads 36 to 39
    assert "id" not in dashboard  # one would be refused where it exists
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    asked = [one["datasource"] for panel in dashboard["panels"] for one in (panel, *panel["targets"])]
    asked.append(variables["sweep"]["datasource"])
    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in asked)
    for panel in dashboard["panels"]:
        assert panel["type"] == "timeseries"
        assert {"h", "w", "x", "y"} == set(panel["gridPos"])
        assert all("$sweep" in target["expr"] for target in panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
