"""A sweep on S3, as moto serves it on this machine: launched, interrupted, resumed, leased."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from upath import UPath

from sweep.results.tables import read_reduced, read_table
from sweep.store.checkpoint import read_checkpoint
from sweep.store.lease import BusyError, hold, holder
from sweep.store.manifest import checkpoint_steps
from sweep.store.requests import pending_requests, request_retry
from sweep.store.sweep_dir import SweepDir, sweep_names
from sweep.store.trial_dir import read_log
from tests.command import run

moto = pytest.importorskip("moto.server", reason="moto[server] is a development extra")
pytest.importorskip("s3fs", reason="s3fs comes with the extra `cluster`")
TINY = ["--set", "data.options={train_images: 48, val_images: 16}", "--set", "recipe.epochs=2"]
TINY += ["--set", "recipe.batch_size=16", "--set", "interventions=[baseline, untrained]"]


@pytest.fixture(scope="module")
def storage(object_store: int) -> Iterator[str]:
    """An empty bucket, reached through the environment as on a cluster."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=object_store, verbose=False)
    server.start()
    UPath("s3://sweeps").mkdir()
    bystander = UPath("s3://sweeps/lr=1/banding/demo/trials")
    bystander.joinpath("another's").write_bytes(b"")  # that is what `lr=[1]` means as a pattern
    yield "s3://sweeps/lr=[1]/banding"
    assert bystander.joinpath("another's").exists()
    server.stop()


@pytest.fixture(scope="module")
def sweep(storage: str, drive: Callable[..., str]) -> SweepDir:
    drive("launch", "demo", *TINY, "--storage", storage)
    return SweepDir(UPath(storage) / "demo")


def test_everything_lies_in_the_bucket(sweep: SweepDir) -> None:
    assert sweep_names(sweep.path.parent) == ["demo"]
    assert read_table(sweep.path, "trials")["settled"].all()
    assert len(read_table(sweep.path, "layers")) == 2 * (3 + 1)
    row = read_table(sweep.path, "layers").iloc[0]
    assert read_reduced(sweep.path, row["trial_id"], int(row["step"]), row["layer"]) is not None
    baseline = next(trial for trial in sweep.trials() if "-baseline-" in trial.trial_id)
    assert checkpoint_steps(baseline.checkpoints) == [6, 3, 0]
    assert read_checkpoint(baseline.checkpoints / "6").training == {}
    log = read_log(sweep.trial(baseline.trial_id))
    assert log is not None
    assert [line.split()[1] for line in log.splitlines()] == ["attempt", "epoch", "epoch", "epoch", "finished"]


def test_from_scratch_and_requests_work_there_too(sweep: SweepDir, storage: str, drive: Callable[..., str]) -> None:
    baseline = next(trial for trial in sweep.trials() if "-baseline-" in trial.trial_id)
    weights = (baseline.checkpoints / "6" / "model.safetensors").read_bytes()
    request_retry(sweep.path, baseline.trial_id, "scratch")
    drive("resume", "demo", "--storage", storage)
    assert pending_requests(sweep.path) == []
    for folder in (baseline.path, baseline.path / "attempts" / "1"):
        assert (folder / "checkpoints" / "6" / "model.safetensors").read_bytes() == weights
    assert "nothing to do" in run("resume", "demo", "--storage", storage)
    counts = json.loads(run("status", "demo", "--storage", storage, "--json"))["counts"]
    assert counts == {"pending": 0, "running": 0, "finished": 2, "failed": 0, "excluded": 0}


def test_one_driver_at_a_time_there_too(sweep: SweepDir, storage: str) -> None:
    with hold(sweep.path):
        assert holder(sweep.path) is not None
        with pytest.raises(BusyError), hold(sweep.path):
            pass
        assert "another driver is working on s3://" in run("resume", "demo", "--storage", storage, code=2)
    assert holder(sweep.path) is None


def test_what_another_machine_writes_is_seen(storage: str) -> None:
    """fsspec remembers listings unless it is told not to."""
    folder = UPath(storage) / "demo" / "requests"
    assert not folder.exists()
    key = str(folder / "new.json").removeprefix("s3://")
    command = f"import s3fs; s3fs.S3FileSystem().pipe_file({key!r}, b'{{}}')"
    subprocess.run([sys.executable, "-c", command], check=True)
    assert [path.name for path in folder.iterdir()] == ["new.json"]


def test_an_unreachable_bucket_is_said_in_a_line_before_any_training(storage: str) -> None:
    printed = run("launch", "demo", *TINY, "--storage", "s3://nobodys-bucket/x", code=2)
    assert "can't write to s3://nobodys-bucket/x" in printed
    assert "Traceback" not in printed
