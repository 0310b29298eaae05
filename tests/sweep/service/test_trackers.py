"""Each trial is a run of a tracker: with its parameters, epochs and scores, whether it ends, fails or is interrupted.

Where a library is not installed, what it is asked for is tested against a module of its name.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from sweep.service import trackers as module
from sweep.service.observers import SweepState
from sweep.service.trackers import tracker
from sweep.spec import Plan
from sweep.store.trial_dir import Status
from tests.sweep.conftest import TINY

ROW = {"epoch": 1, "step": 3, "train_loss": 0.5, "learning_rate": None}
LAYERS = [{"layer": "3b", "horizontal": 0.75, "vertical": None}]
END = SweepState({"finished": 1}, frozenset(), 0, False)
pytestmark = pytest.mark.filterwarnings("default")  # other people's libraries


def stand_in(monkeypatch: pytest.MonkeyPatch, *names: str, **attributes: Any) -> None:
    """Modules of these names, each with the attributes, as if they were installed."""
    for name in names:
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        made.__path__ = []
        vars(made).update(attributes)
        monkeypatch.setitem(sys.modules, name, made)


def tell_all(said: str, plan: Plan, status: Status) -> None:
    """A trial's epoch and end, and the end of the sweep."""
    made = tracker(said)("demo")
    made.epoch(plan, {"epoch": 0, "val_accuracy": 0.25})
    made.epoch(plan, ROW)
    made.ended(plan, status, LAYERS)
    made.closed(END, None)


class Client:
    """What is used of mlflow's client; it keeps runs by their ids."""

    runs: dict[str, dict[str, Any]]

    def __init__(self, tracking_uri: str) -> None:
        assert tracking_uri == "http://tracking:5000"

    def get_experiment_by_name(self, name: str) -> Any:
        return None if not self.runs else SimpleNamespace(experiment_id="7")

    def create_experiment(self, name: str) -> str:
        assert name == "demo"
        return "7"

    def search_runs(self, experiments: list[str], tagged: str, max_results: int) -> list[Any]:
        assert experiments == ["7"]
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=run))
            for run, held in self.runs.items()
            if tagged == f"tags.trial_id = '{held['tags']['trial_id']}'"
        ]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = f"run{len(self.runs)}"
        self.runs[run_id] = {"name": run_name, "tags": tags, "metrics": [], "params": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.runs[run_id]["metrics"] += [(key, value, step) for key, value, _, step in metrics]
        self.runs[run_id]["params"].update(params)

    set_terminated = update_run


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The runs of a stand-in for mlflow."""
    Client.runs = {}
    stand_in(monkeypatch, "mlflow", MlflowClient=Client)
    stand_in(
        monkeypatch, "mlflow.entities", Param=lambda *values: values, Metric=lambda *values: values
    )  # fmt: skip
    return Client.runs


def test_mlflow_has_a_run_for_each_trial(runs: dict[str, dict[str, Any]], plan: Plan) -> None:
    tell_all("mlflow=http://tracking:5000", plan, Status(status="finished", epoch=1))
    (run,) = runs.values()
    assert run["name"] == plan.trial_id
    assert run["status"] == "FINISHED"
    assert run["params"]["recipe.lr"] == str(plan.spec.recipe.lr)
    assert run["metrics"] == [
        ("val_accuracy", 0.25, 0), ("step", 3.0, 1), ("train_loss", 0.5, 1), ("3b/horizontal", 0.75, 1),
    ]  # fmt: skip


def test_a_trial_that_continues_goes_on_with_its_mlflow_run(runs: dict[str, dict[str, Any]], plan: Plan) -> None:
    tell_all("mlflow=http://tracking:5000", plan, Status(status="failed", epoch=1))
    assert [run["status"] for run in runs.values()] == ["FAILED"]
    made = tracker("mlflow=http://tracking:5000")("demo")
    made.epoch(plan, ROW)
    assert [run["status"] for run in runs.values()] == ["RUNNING"]
    made.closed(END, KeyboardInterrupt())
    assert [run["status"] for run in runs.values()] == ["KILLED"]


def test_a_launch_tells_its_trackers(
    runs: dict[str, dict[str, Any]], drive: Callable[..., str], plan: Plan, tmp_path: Path
) -> None:
    settings = [argument for setting in TINY for argument in ("--set", setting)]
    said = drive("launch", "demo", *settings, "--storage", str(tmp_path), "--track", "mlflow=http://tracking:5000")
    (run,) = runs.values()
    assert (run["name"], run["status"]) == (plan.trial_id, "FINISHED")
    assert [epoch for name, _, epoch in run["metrics"] if name == "val_accuracy"] == [0, 1, 2, 3]
    assert any(name.endswith("/horizontal") and epoch == 3 for name, _, epoch in run["metrics"])
    assert "hears no more" not in said


def test_wandb_is_offline_and_has_a_run_for_each_trial(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, tmp_path: Path
) -> None:
    run, init = MagicMock(), MagicMock()
    init.return_value = run
    stand_in(monkeypatch, "wandb", init=init, Settings=dict)
    tell_all(f"wandb={tmp_path / 'new'}", plan, Status(status="failed", epoch=1))
    asked = init.call_args.kwargs
    assert (asked["mode"], asked["reinit"], asked["project"]) == ("offline", "create_new", "demo")
    assert asked["id"] == asked["name"] == plan.trial_id
    assert asked["config"]["architecture"] == plan.spec.architecture
    assert Path(asked["dir"]).is_dir()
    assert [call.args[0] for call in run.log.call_args_list] == [
        {"epoch": 0, "val_accuracy": 0.25},
        {"epoch": 1, "step": 3, "train_loss": 0.5},
        {"epoch": 1, "3b/horizontal": 0.75},
    ]
    run.finish.assert_called_once_with(exit_code=1)


def test_tensorboard_has_a_folder_for_each_trial(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    writer, parameters = MagicMock(), MagicMock()
    stand_in(monkeypatch, "tensorboard", "tensorboard.compat", "tensorboard.compat.proto")
    stand_in(monkeypatch, "tensorboard.plugins", "tensorboard.plugins.hparams", "tensorboard.summary")
    stand_in(monkeypatch, "tensorboard.summary.writer")
    stand_in(monkeypatch, "tensorboard.compat.proto.event_pb2", Event=lambda **values: values)
    summary = MagicMock(side_effect=lambda value: value)
    summary.Value = lambda tag, simple_value: (tag, simple_value)
    stand_in(monkeypatch, "tensorboard.compat.proto.summary_pb2", Summary=summary)
    stand_in(monkeypatch, "tensorboard.plugins.hparams.summary_v2", hparams_pb=parameters)
    stand_in(monkeypatch, "tensorboard.summary.writer.event_file_writer", EventFileWriter=writer)
    tell_all("tensorboard=tb", plan, Status(status="finished", epoch=1))
    writer.assert_called_once_with(f"tb/demo/{plan.trial_id}")
    assert parameters.call_args.args[0]["recipe.lr"] == plan.spec.recipe.lr
    _, *events = [call.args[0] for call in writer.return_value.add_event.call_args_list]
    assert [(event["step"], event["summary"]) for event in events] == [
        (0, [("val_accuracy", 0.25)]), (1, [("step", 3), ("train_loss", 0.5)]), (1, [("3b/horizontal", 0.75)]),
    ]  # fmt: skip
    writer.return_value.close.assert_called_once_with()


def test_tensorboard_itself_reads_what_was_written(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell_all(f"tensorboard={tmp_path}", plan, Status(status="finished", epoch=1))
    read = EventAccumulator(str(tmp_path / "demo" / plan.trial_id))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("train_loss")] == [(1, 0.5)]
    assert [(event.step, event.value) for event in read.Scalars("3b/horizontal")] == [(1, 0.75)]
    assert read.PluginTagToContent("hparams")


def test_mlflow_itself_reads_what_was_written(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    for state in ("failed", "finished"):
        tell_all(f"mlflow={uri}", plan, Status(status=state, epoch=1))
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert run.info.run_name == plan.trial_id
    assert run.info.status == "FINISHED"
    assert run.data.params["architecture"] == plan.spec.architecture
    assert run.data.metrics["3b/horizontal"] == 0.75


def test_wandb_itself_writes_offline_runs(plan: Plan, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    tell_all(f"wandb={tmp_path}", plan, Status(status="finished", epoch=1))
    wandb.teardown()  # its process writes a moment later; at a driver's exit the same is done
    (file,) = tmp_path.glob(f"wandb/offline-run-*-{plan.trial_id}/*.wandb")
    assert b"3b/horizontal" in file.read_bytes()


@pytest.mark.parametrize("said", ["tensorboard", "tensorboard=", "comet=x", "=x"])
def test_an_unknown_tracker_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="give tensorboard=FOLDER, mlflow=URI or wandb=FOLDER"):
        tracker(said)


def test_a_library_that_is_not_installed_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", {}.get)
    with pytest.raises(ValueError, match=r"--track mlflow needs mlflow, .*: pip install 'weight-banding\[mlflow\]'"):
        tracker("mlflow=http://tracking:5000")
