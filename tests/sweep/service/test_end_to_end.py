"""As a user: launch, look, break, resume, through the real command line and a real Ray."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from upath import UPath

from models.architectures import ARCHITECTURES
from models.interventions import INTERVENTIONS
from sweep.cli.listing import Listed
from sweep.data.registry import DATASETS
from sweep.grid.document import grid_names, preset_names
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.tables import read_reduced, read_table
from sweep.service.analyses import Analyses
from sweep.store.lease import hold
from sweep.store.requests import pending_requests, request_retry, request_trial_stop
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir, read_error
from tests.command import run, wait_for

Drive = Callable[..., str]
SWEEP = [sys.executable, "-m", "sweep.cli"]
DATA = "data.options={train_images: 48, val_images: 16}"
TINY = ["--set", DATA, "--set", "recipe.epochs=2", "--set", "recipe.batch_size=16"]
UNTRAINED = [*TINY, "--set", "interventions=[untrained]"]


def status(storage: Path, name: str = "demo") -> dict[str, Any]:
    return json.loads(run("status", name, "--storage", str(storage), "--json"))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, drive: Drive) -> Path:
    """A finished sweep of the demo grid, tiny, in which one trial of four has failed."""
    storage = tmp_path_factory.mktemp("storage")
    plan = run("launch", "demo", *TINY, "--storage", str(storage), "--dry-run")
    assert "4 trials" in plan
    assert not (storage / "demo").exists()
    trial_id = next(word for word in plan.split() if "no_pooling" in word)
    trial = storage / "demo" / "trials" / trial_id
    (trial / "checkpoints").mkdir(parents=True)
    (trial / "checkpoints" / "0").write_text("a file where a folder should be")
    printed = drive("launch", "demo", *TINY, "--storage", str(storage), "--max-failures", "1", code=1)
    assert "FileExistsError" in printed
    assert "retry 1 of 1 in 1 s" in printed
    assert "1 trial failed; continue with: sweep resume" in printed
    return storage


def test_trials_that_no_node_can_hold_are_refused_and_nothing_is_recorded(tmp_path: Path, drive: Drive) -> None:
    too_much = ["--set", "resources.of={simplified_mini: {cpus: 64}}"]
    printed = drive("launch", "demo", *TINY, *too_much, "--storage", str(tmp_path), code=2)
    assert "a trial needs 64 CPUs, and no node of the cluster has more than 2 CPUs" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_failed_trial_is_a_row_with_its_error_and_the_others_finish(launched: Path) -> None:
    report = status(launched)
    assert report["counts"] == {"pending": 0, "running": 0, "finished": 3, "failed": 1, "excluded": 0}
    by_name = {trial["intervention"]: trial for trial in report["trials"]}
    assert list(by_name) == ["baseline", "rotate90", "no_pooling", "untrained"]
    assert "FileExistsError" in by_name["no_pooling"]["error"]
    assert by_name["baseline"]["error"] is None
    assert [layer["layer"] for layer in by_name["baseline"]["layers"]] == ["features.3b.conv", "features.3a.conv"]
    assert by_name["rotate90"]["layers"][0]["expected"] == "vertical"
    traceback = read_error(SweepDir(UPath(launched / "demo")).trial(by_name["no_pooling"]["trial_id"]))
    assert traceback is not None
    assert traceback.startswith("Traceback")


def test_every_kept_checkpoint_is_analysed_and_in_the_tables(launched: Path) -> None:
    sweep = UPath(launched / "demo")
    trials, epochs, layers, neurons = (read_table(sweep, name) for name in ("trials", "epochs", "layers", "neurons"))
    assert len(trials) == 4
    assert trials["code_version"].notna().sum() == 4
    assert sorted(epochs.groupby("trial_id").size()) == [1, 1, 3, 3]  # untrained, and the one that failed at its first
    assert len(layers) == 2 * (3 + 3 + 1)  # two layers; checkpoints at epochs 0, 1, 2, and 0 of the untrained one
    assert layers["error"].isna().all()
    assert layers["horizontal"].notna().all()
    assert len(neurons) == 48 * len(layers)
    row = layers.iloc[0]
    reduced = read_reduced(sweep, row["trial_id"], int(row["step"]), row["layer"])
    assert reduced is not None
    assert reduced.reduced.shape == (48, 5, 5, 3)
    assert (sweep / "results" / "weights.png").exists()


def test_resume_runs_only_what_failed_and_a_second_time_nothing(launched: Path, drive: Drive) -> None:
    before = {trial["trial_id"]: trial for trial in status(launched)["trials"]}
    broken = next(trial_id for trial_id, trial in before.items() if trial["status"] == "failed")
    (launched / "demo" / "trials" / broken / "checkpoints" / "0").unlink()
    drive("resume", "demo", "--storage", str(launched))
    after = {trial["trial_id"]: trial for trial in status(launched)["trials"]}
    assert {trial["status"] for trial in after.values()} == {"finished"}
    assert {trial_id: trial["attempts"] for trial_id, trial in after.items()} == {
        trial_id: 3 if trial_id == broken else 1 for trial_id in after
    }
    assert read_error(SweepDir(UPath(launched / "demo")).trial(broken)) is None
    assert "nothing to do" in run("resume", "demo", "--storage", str(launched))
    printed = run("launch", "demo", *TINY, "--storage", str(launched))
    assert "4 in the grid: 0 new, 4 finished; 0 to do in the sweep" in printed
    assert "nothing to do" in printed
    assert "nothing to do" in run("resume", "demo", "--only", "failed", "--storage", str(launched))


def test_other_resources_reach_finished_trials_too(launched: Path) -> None:
    others = ["--set", "resources.save_every_s=60"]
    assert "nothing to do" in run("launch", "demo", *TINY, *others, "--storage", str(launched))
    planned = [trial.plan().resources for trial in SweepDir(UPath(launched / "demo")).trials()]
    assert [resources.save_every_s for resources in planned if resources is not None] == [60.0] * 4


def test_from_scratch_keeps_the_old_attempt_beside_the_new_one(launched: Path, drive: Drive) -> None:
    storage = ["--storage", str(launched)]
    drive("resume", "demo", "--only", "*-rotate90-*", "--from-scratch", *storage)
    (trial,) = (launched / "demo" / "trials").glob("*-rotate90-*")
    report = {trial["trial_id"]: trial for trial in status(launched)["trials"]}[trial.name]
    assert (report["status"], report["attempts"]) == ("finished", 2)
    old = trial / "attempts" / "1"
    assert json.loads((old / "status.json").read_text())["status"] == "finished"
    for folder in (old, trial):
        digest = hashlib.sha256((folder / "checkpoints" / "6" / "model.safetensors").read_bytes()).hexdigest()
        assert (folder / "epochs.jsonl").exists()
        assert (folder / "layers" / "6" / "layers.json").exists()
    assert digest == hashlib.sha256((old / "checkpoints" / "6" / "model.safetensors").read_bytes()).hexdigest()
    assert len(read_table(UPath(launched / "demo"), "neurons")) == 48 * 2 * (3 + 3 + 3 + 1)


def test_only_the_failed_ones_begin_from_scratch(launched: Path, drive: Drive) -> None:
    (folder,) = (launched / "demo" / "trials").glob("*-untrained-*")
    trial = TrialDir(UPath(folder))
    trial.write_status(replace(trial.status(), status="failed", error="ValueError: by hand"))
    attempts = {row["trial_id"]: row["attempts"] for row in status(launched)["trials"]}
    drive("resume", "demo", "--only", "failed", "--from-scratch", "--storage", str(launched))
    after = {row["trial_id"]: row for row in status(launched)["trials"]}
    assert {row["status"] for row in after.values()} == {"finished"}
    assert {name: row["attempts"] for name, row in after.items()} == attempts | {folder.name: attempts[folder.name] + 1}


def test_what_the_dashboard_asked_for_is_done_by_the_next_resume(launched: Path, drive: Drive) -> None:
    sweep = UPath(launched / "demo")
    (trial,) = (launched / "demo" / "trials").glob("*-untrained-*")
    request_retry(sweep, trial.name, "scratch")
    drive("resume", "demo", "--only", "failed", "--storage", str(launched))
    assert pending_requests(sweep) == []
    assert (trial / "attempts" / "2" / "epochs.jsonl").exists()
    assert {trial["status"] for trial in status(launched)["trials"]} == {"finished"}


def test_a_second_driver_is_refused_with_the_first_ones_host_and_process(launched: Path) -> None:
    with hold(UPath(launched / "demo")):
        printed = run("resume", "demo", "--storage", str(launched), code=2)
        assert f"process {os.getpid()} on {socket.gethostname()}, heartbeat" in printed
        assert "Traceback" not in printed
        assert f"process {os.getpid()}" in run("status", "demo", "--storage", str(launched))
    run("resume", "demo", "--storage", str(launched))


def test_analyze_scores_a_checkpoint_of_the_sweep(launched: Path) -> None:
    file = next(iter((launched / "demo" / "trials").glob("*baseline*/checkpoints/6/model.safetensors")))
    rows = json.loads(run("analyze", str(file), "--json"))
    told = {"layer", "shape", "horizontal", "vertical", "verdict", "skipped", "reliability", "null_turned_high"}
    assert [set(row) for row in rows] == [told] * 5
    assert rows[-1]["layer"] == "features.3b.conv"
    assert rows[-1]["shape"] == [48, 48, 5, 5]
    (row,) = json.loads(run("analyze", str(file), "--json", "--layer", "features.3b.conv"))
    assert row == rows[-1]
    assert "features.3b.conv" in run("analyze", str(file))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_says_how_to_go_on_and_keeps_what_was_done(
    tmp_path: Path, ray_address: str, sent: signal.Signals
) -> None:
    arguments = ["launch", "demo", "--set", DATA, "--set", "recipe.batch_size=16", "--storage", str(tmp_path)]
    arguments += ["--set", "recipe.epochs=100000", "--set", "interventions=[baseline]"]
    arguments += ["--address", ray_address] if sent is signal.SIGTERM else []  # the other one starts a Ray of its own
    with subprocess.Popen([*SWEEP, *arguments], stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(tmp_path.glob("demo/trials/*/checkpoints/3/manifest.json")), process)
        process.send_signal(sent)
        printed = process.communicate()[0]
    assert process.returncode == 130
    assert "stopped; continue with: sweep resume" in printed
    (trial,) = status(tmp_path)["trials"]
    assert trial["status"] == "pending"
    unfinished = [path for path in tmp_path.rglob("*.part") if "layers" not in path.parts]
    assert unfinished == []  # an analysis may be stopped in the middle of a file, which its next attempt removes
    folder = tmp_path / "demo" / "trials" / trial["trial_id"] / "checkpoints"
    assert max(int(child.name) for child in folder.iterdir()) >= 3


def test_one_trial_can_be_stopped_and_the_launch_ends_with_the_others(tmp_path: Path, ray_address: str) -> None:
    arguments = ["launch", "demo", "--set", DATA, "--set", "recipe.batch_size=16", "--storage", str(tmp_path)]
    arguments += ["--set", "recipe.epochs=100000", "--set", "interventions=[baseline, untrained]"]
    with subprocess.Popen([*SWEEP, *arguments, "--address", ray_address], stdout=subprocess.PIPE, text=True) as process:
        (manifest,) = wait_for(lambda: list(tmp_path.glob("demo/trials/*/checkpoints/3/manifest.json")), process)
        trial_id = manifest.parents[2].name
        request_trial_stop(UPath(tmp_path / "demo"), trial_id)
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    assert f"{trial_id}: stopped by a reader; resumes from its last checkpoint" in printed
    assert {trial["intervention"]: trial["status"] for trial in status(tmp_path)["trials"]} == {
        "baseline": "pending", "untrained": "finished",
    }  # fmt: skip
    assert (
        TrialDir(UPath(manifest.parents[2])).status().reason == "stopped by a reader; resumes from its last checkpoint"
    )


def test_the_first_ctrl_c_ends_a_launch_that_only_analyses(
    tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune leaves its own handler behind, which would swallow it."""
    wait = Analyses.wait

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        wait(*arguments)

    monkeypatch.setattr(Analyses, "wait", interrupted)
    printed = drive("launch", "demo", *UNTRAINED, "--storage", str(tmp_path), code=130)
    assert "trial 1/1" in printed
    assert "stopped; run the same command again to continue" in printed


def test_a_relative_storage_is_the_same_folder_wherever_trials_run(
    tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for storage in ("here", "~/there"):
        drive("launch", "demo", *UNTRAINED, f"--storage={storage}")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["here", "there"]
    assert (tmp_path / "here" / "demo" / "results" / "trials.parquet").exists()
    assert (tmp_path / "there" / "demo" / "results" / "trials.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["launch", "dmeo"], "did you mean 'demo'"),
        (["launch", "demo", "--set", "recipe.epoch=3"], "did you mean 'epochs'"),
        (["launch", "demo", "--set", "interventions=[rotat90]"], "did you mean 'rotate90'"),
        (["launch", "photos"], "--set data.root=FOLDER"),
        (["launch", "photos", "--set", "data.root=gone"], "is not a folder"),
        (["resume", "gone"], "there is no sweep 'gone'"),
        (["status", "gone"], "there is no sweep 'gone'"),
        (["analyze", "gone.pt"], "there is no file gone.pt"),
        (["launch", "demo", "--storage", "/proc/nowhere"], "can't write to /proc/nowhere"),
        (["list", "grid"], "'grid' is not one of"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run(*arguments, code=2)
    assert complaint in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_of_its_own_says_a_mistake_on_standard_error(tmp_path: Path) -> None:
    done = subprocess.run([*SWEEP, "launch", "dmeo"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sweep: unknown grid 'dmeo'; did you mean 'demo'?")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("what", list(Listed))
def test_list_names_everything(what: Listed, launched: Path) -> None:
    known: dict[str, Iterable[str]] = {
        "architectures": ARCHITECTURES, "interventions": INTERVENTIONS, "data": DATASETS, "grids": grid_names(),
        "recipes": preset_names("recipe"), "sweeps": ["demo"],
    }  # fmt: skip
    printed = run("list", what, "--storage", str(launched))
    assert all(name in printed for name in known[what])


def test_a_grid_file_of_ones_own(tmp_path: Path) -> None:
    document = yaml.safe_load(Path("sweep/grids/smoke.yaml").read_text()) | {"name": "mine", "seeds": [4, 5]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    trials = 2 * len(expand(load_grid("smoke", ["seeds=[0]"])).plans)
    assert f"{trials} trials" in run("launch", str(tmp_path / "mine.yaml"), "--dry-run")
