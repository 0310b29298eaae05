"""Experiment trackers: each trial is a run of TensorBoard, MLflow or W&B, with its parameters, epochs and scores.

A library is imported by the first trial that it tracks, and none of them loads torch into the driver.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from sweep.results.tables import Row
from sweep.service.observers import Observer, SweepState, parameters_of
from sweep.spec import Plan
from sweep.store.manifest import EpochRow
from sweep.store.trial_dir import Status

Outcome = Literal["finished", "failed", "stopped"]


class Run(Protocol):
    """A trial in a tracker."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record values of an epoch; one that is trained again is recorded again."""

    def end(self, outcome: Outcome) -> None:
        """The last call."""


class Tracker(Observer):
    """Opens a run for each trial when it hears of it first, and again for a trial that continues after its end."""

    def __init__(self, kind: str, open_run: Callable[[Plan], Run]) -> None:
        self.name = f"--track {kind}"
        self._open_run = open_run
        self._runs: dict[str, Run] = {}

    def epoch(self, plan: Plan, row: EpochRow) -> None:
        values = {name: value for name, value in row.items() if name != "epoch" and value is not None}
        self._run(plan).log(int(row["epoch"] or 0), values)

    def ended(self, plan: Plan, status: Status, layers: Sequence[Row]) -> None:
        run = self._run(plan)
        scores = {
            f"{row['layer']}/{direction}": row[direction]
            for row in layers
            for direction in ("horizontal", "vertical")
            if row.get(direction) is not None
        }
        if scores:
            run.log(status.epoch, scores)
        del self._runs[plan.trial_id]
        run.end("failed" if status.status == "failed" else "finished")

    def closed(self, state: SweepState, error: BaseException | None) -> None:
        while self._runs:
            _, run = self._runs.popitem()
            run.end("stopped")

    def _run(self, plan: Plan) -> Run:
        if plan.trial_id not in self._runs:
            self._runs[plan.trial_id] = self._open_run(plan)
        return self._runs[plan.trial_id]


class TensorBoardRun:
    """Event files in a folder of the trial's; a trial that continues adds another file."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder / plan.trial_id))
        self._add(0, hparams_pb(_plain(parameters_of(plan)), trial_id=plan.trial_id))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        value = self._summary.Value
        self._add(epoch, self._summary(value=[value(tag=tag, simple_value=number) for tag, number in values.items()]))
        self._writer.flush()

    def end(self, outcome: Outcome) -> None:
        self._writer.close()

    def _add(self, epoch: int, summary: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=epoch, summary=summary))


class MlflowRuns:
    """The runs of an MLflow experiment named after the sweep; a trial that continues goes on with its run."""

    def __init__(self, uri: str, sweep: str) -> None:
        self._uri, self._sweep = uri, sweep
        self._client: Any = None
        self._experiment = ""

    def __call__(self, plan: Plan) -> Run:
        if self._client is None:
            self._connect()
        from mlflow.entities import Param

        tagged = f"tags.trial_id = '{plan.trial_id}'"
        found = self._client.search_runs([self._experiment], tagged, max_results=1)
        if found:
            run_id = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            tags = {"trial_id": plan.trial_id}
            run_id = self._client.create_run(self._experiment, run_name=plan.trial_id, tags=tags).info.run_id
            params = [Param(name, str(value)) for name, value in _plain(parameters_of(plan)).items()]
            self._client.log_batch(run_id, params=params)
        return _MlflowRun(self._client, run_id)

    def _connect(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing about the user's work goes elsewhere
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        known = client.get_experiment_by_name(self._sweep)
        self._experiment = known.experiment_id if known else client.create_experiment(self._sweep)
        self._client = client


class _MlflowRun:
    _STATUSES: Mapping[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now_ms, epoch) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def end(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._run_id, self._STATUSES[outcome])


class WandbRun:
    """A run of W&B in offline mode, in a folder that `wandb sync` uploads; a trial that continues adds another."""

    def __init__(self, folder: Path, sweep: str, plan: Plan) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves the machine before `wandb sync`
        import wandb

        folder.mkdir(parents=True, exist_ok=True)  # W&B would fall back on a temporary folder
        settings = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True)
        self._run = wandb.init(
            mode="offline", reinit="create_new", project=sweep, id=plan.trial_id, name=plan.trial_id,
            dir=str(folder), config=parameters_of(plan), settings=settings,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="epoch")  # its own steps may not go back

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._run.log({"epoch": epoch, **values})

    def end(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=0 if outcome == "finished" else 1)


def _tensorboard(target: str, sweep: str) -> Callable[[Plan], Run]:
    return partial(TensorBoardRun, Path(target) / sweep)


def _wandb(target: str, sweep: str) -> Callable[[Plan], Run]:
    return partial(WandbRun, Path(target), sweep)


_RUNS: Mapping[str, Callable[[str, str], Callable[[Plan], Run]]] = {
    "tensorboard": _tensorboard, "mlflow": MlflowRuns, "wandb": _wandb,
}  # fmt: skip


def tracker(said: str) -> Callable[[str], Observer]:
    """What makes a tracker for a sweep's name, from `KIND=TARGET`: a folder for TensorBoard and W&B, a URI for MLflow.

    Raises:
        ValueError: there is no such tracker, or its library is not installed.
    """
    kind, _, target = said.partition("=")
    if kind not in _RUNS or not target:
        raise ValueError(f"--track {said}: give tensorboard=FOLDER, mlflow=URI or wandb=FOLDER")
    require_library(f"--track {kind}", kind)
    return lambda sweep: Tracker(kind, _RUNS[kind](target, sweep))


def require_library(option: str, library: str) -> None:
    """Refuse an option whose library, an extra of the same name, is not installed.

    Raises:
        ValueError: it is not.
    """
    if find_spec(library) is None:
        cure = f"pip install 'weight-banding[{library}]'"
        raise ValueError(f"{option} needs {library}, which is not installed here: {cure}")


def _plain(values: Mapping[str, Any]) -> dict[str, str | bool | int | float]:
    """Values that any tracker takes: lists as JSON, and none that are null."""
    return {
        name: json.dumps(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }
