"""Ray metrics of a sweep, for Prometheus and Grafana; Ray exports them from each node, named `ray_...`."""

from typing import get_args

from ray.util.metrics import Gauge, Histogram

from sweep.service.observers import Observer, SweepState
from sweep.spec import Plan
from sweep.store.manifest import EpochRow
from sweep.store.trial_dir import State

_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
_SWEEP = ("sweep",)


class Metrics(Observer):
    """Sets the metrics of a sweep; each has the tag `sweep`, its name."""

    name = "metrics"

    def __init__(self, sweep: str) -> None:
        self._rates: dict[str, float] = {}  # images per second of a trial's last epoch
        tags = {"sweep": sweep}
        self._trials = Gauge("sweep_trials", "Trials by state", (*_SWEEP, "state"))
        self._images = Gauge("sweep_images_per_second", "Images that the running trials train on per second", _SWEEP)
        self._waiting = Gauge("sweep_analyses_waiting", "Checkpoints that wait for analysis or are analysed", _SWEEP)
        self._away = Gauge("sweep_storage_away", "1 while the storage is unavailable, else 0", _SWEEP)
        self._checkpoints = Histogram(
            "sweep_checkpoint_seconds", "Time that a trial spends on saving, per epoch", _SECONDS, _SWEEP
        )
        self._storage = Histogram(
            "sweep_storage_seconds",
            "Time that a job of the driver takes at the storage",
            _SECONDS,
            _SWEEP,
        )
        for metric in (self._trials, self._images, self._waiting, self._away, self._checkpoints, self._storage):
            metric.set_default_tags(tags)

    def epoch(self, plan: Plan, row: EpochRow) -> None:
        self._checkpoints.observe(row["save_s"] or 0.0)
        if row["images_per_s"]:
            self._rates[plan.trial_id] = row["images_per_s"]

    def storage(self, seconds: float) -> None:
        self._storage.observe(seconds)

    def state(self, state: SweepState) -> None:
        self._rates = {trial_id: rate for trial_id, rate in self._rates.items() if trial_id in state.running}
        for name in get_args(State):
            self._trials.set(state.trials.get(name, 0), tags={"state": name})
        self._images.set(sum(self._rates.values()))
        self._waiting.set(state.analyses_waiting)
        self._away.set(state.paused)

    def closed(self, state: SweepState, error: BaseException | None) -> None:
        self._rates.clear()
        self.state(state)
