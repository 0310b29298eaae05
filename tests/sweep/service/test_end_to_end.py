"""As a user: launch, look, break, resume. Each test runs the real command line with a real local Ray."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from upath import UPath

from sweep.results.tables import read_reduced, read_table
from sweep.store.lease import hold
from sweep.store.requests import pending_requests, request_retry
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir, read_error

SWEEP = [sys.executable, "-m", "sweep.cli"]
DATA = "data.options={train_images: 48, val_images: 16}"
TINY = ["--set", DATA, "--set", "recipe.epochs=2", "--set", "recipe.batch_size=16"]


def run(*arguments: str, code: int = 0, cwd: Path | None = None) -> str:
    """Run the command line, demand its exit code, and give what it printed."""
    done = subprocess.run([*SWEEP, *arguments], capture_output=True, text=True, timeout=240, check=False, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def status(storage: Path, name: str = "demo") -> dict[str, Any]:
    return json.loads(run("status", name, "--storage", str(storage), "--json"))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of the demo grid, tiny, in which one trial of four has failed."""
    storage = tmp_path_factory.mktemp("storage")
    plan = run("launch", "demo", *TINY, "--storage", str(storage), "--dry-run")
    assert "4 trials" in plan
    assert not (storage / "demo").exists()
    trial_id = next(word for word in plan.split() if "no_pooling" in word)
    trial = storage / "demo" / "trials" / trial_id
    (trial / "checkpoints").mkdir(parents=True)
    (trial / "checkpoints" / "0").write_text("a file where a folder should be")
    printed = run("launch", "demo", *TINY, "--storage", str(storage), "--max-failures", "1", code=1)
    assert "FileExistsError" in printed
    assert "retry 1 of 1 in 1 s" in printed
    assert "1 trial failed; go on with: sweep resume" in printed
    return storage


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


def test_resume_runs_only_what_failed_and_a_second_time_nothing(launched: Path) -> None:
    before = {trial["trial_id"]: trial for trial in status(launched)["trials"]}
    broken = next(trial_id for trial_id, trial in before.items() if trial["status"] == "failed")
    (launched / "demo" / "trials" / broken / "checkpoints" / "0").unlink()
    run("resume", "demo", "--storage", str(launched))
    after = {trial["trial_id"]: trial for trial in status(launched)["trials"]}
    assert {trial["status"] for trial in after.values()} == {"finished"}
    assert {trial_id: trial["attempts"] for trial_id, trial in after.items()} == {
        trial_id: 3 if trial_id == broken else 1 for trial_id in after
    }
    assert read_error(SweepDir(UPath(launched / "demo")).trial(broken)) is None
    assert "nothing to do" in run("resume", "demo", "--storage", str(launched))
    printed = run("launch", "demo", *TINY, "--storage", str(launched))
    assert "0 of them new" in printed
    assert "nothing to do" in printed
    assert "nothing to do" in run("resume", "demo", "--only", "failed", "--storage", str(launched))


def test_from_scratch_keeps_the_old_attempt_beside_the_new_one(launched: Path) -> None:
    storage = ["--storage", str(launched)]
    run("resume", "demo", "--only", "*-rotate90-*", "--from-scratch", *storage)
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


def test_only_the_failed_ones_begin_from_scratch(launched: Path) -> None:
    (folder,) = (launched / "demo" / "trials").glob("*-untrained-*")
    trial = TrialDir(UPath(folder))
    trial.write_status(replace(trial.status(), status="failed", error="ValueError: by hand"))
    attempts = {row["trial_id"]: row["attempts"] for row in status(launched)["trials"]}
    run("resume", "demo", "--only", "failed", "--from-scratch", "--storage", str(launched))
    after = {row["trial_id"]: row for row in status(launched)["trials"]}
    assert {row["status"] for row in after.values()} == {"finished"}
    assert {name: row["attempts"] for name, row in after.items()} == attempts | {folder.name: attempts[folder.name] + 1}


def test_what_the_dashboard_asked_for_is_done_by_the_next_resume(launched: Path) -> None:
    sweep = UPath(launched / "demo")
    (trial,) = (launched / "demo" / "trials").glob("*-untrained-*")
    request_retry(sweep, trial.name, "scratch")
    run("resume", "demo", "--only", "failed", "--storage", str(launched))
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
    assert [set(row) for row in rows] == [{"layer", "shape", "horizontal", "vertical", "verdict", "skipped"}] * 5
    assert rows[-1]["layer"] == "features.3b.conv"
    assert rows[-1]["shape"] == [48, 48, 5, 5]
    (row,) = json.loads(run("analyze", str(file), "--json", "--layer", "features.3b.conv"))
    assert row == rows[-1]
    assert "features.3b.conv" in run("analyze", str(file))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_cleanly_says_how_to_go_on_and_keeps_what_was_done(tmp_path: Path, sent: signal.Signals) -> None:
    arguments = ["launch", "demo", "--set", DATA, "--set", "recipe.batch_size=16", "--storage", str(tmp_path)]
    arguments += ["--set", "recipe.epochs=400", "--set", "interventions=[baseline]"]
    environment = os.environ | {"SWEEP_LINE_EVERY_S": "1"}
    with subprocess.Popen([*SWEEP, *arguments], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epochs "):
                break
        process.send_signal(sent)
        printed = process.stdout.read()
    assert process.returncode == 130
    assert "stopped; go on with: sweep resume" in printed
    (trial,) = status(tmp_path)["trials"]
    assert trial["status"] == "pending"
    assert list(tmp_path.rglob("*.part")) == []
    folder = tmp_path / "demo" / "trials" / trial["trial_id"] / "checkpoints"
    assert max(int(child.name) for child in folder.iterdir()) >= 3


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
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    printed = run(*arguments, code=2, cwd=tmp_path)
    assert complaint in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["architectures", "interventions", "grids"])
def test_list_names_everything(what: str) -> None:
    from models.architectures import ARCHITECTURES
    from models.interventions import INTERVENTIONS
    from sweep.grid.load import grid_names

    names = {"architectures": ARCHITECTURES, "interventions": INTERVENTIONS, "grids": grid_names()}[what]
    printed = run("list", what)
    assert all(name in printed for name in names)


def test_a_grid_file_of_ones_own(tmp_path: Path) -> None:
    document = yaml.safe_load(Path("sweep/grids/smoke.yaml").read_text()) | {"name": "mine", "seeds": [4, 5]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    assert "12 trials" in run("launch", str(tmp_path / "mine.yaml"), "--dry-run")
