"""Two processes that train one trial, over gloo on the CPU, as two GPUs would."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from upath import UPath

from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.spec import Plan, TrialSpec
from sweep.store.manifest import MEASURED, MODEL, EpochRow, checkpoint_steps
from sweep.store.trial_dir import TrialDir
from sweep.training.ranks import Ranks, joined
from sweep.training.train import train

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import torch
from upath import UPath
from sweep.data.prepare import prepare
from sweep.store.trial_dir import TrialDir
from sweep.training.ranks import joined
from sweep.training.train import course

folder, rank, size, address, slow = UPath(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4], float(sys.argv[5])
torch.set_num_threads(1)
spec = TrialDir(folder).plan().spec

def stop(step):
    import time
    print(step, flush=True)
    time.sleep(slow)
    return False

with joined(rank, size, address) as ranks:
    for row, kept in course(spec, prepare(spec.data, None), folder, stop, 1e-9, ranks):
        pass
"""


@pytest.fixture(scope="module")
def spec() -> TrialSpec:
    """A network with batch norm and dropout, in steps of four ghost batches."""
    settings = [
        "seeds=[3]", "architectures=[simplified_mini]", "interventions=[max_pool_fc4096]",
        "data.options={train_images: 96, val_images: 40}", "recipe.epochs=2", "recipe.lr=0.02",
        "recipe.batch_size=[{from_epoch: 0, size: 16}, {from_epoch: 1, size: 32}]", "recipe.ghost_batch=8",
    ]  # fmt: skip
    return expand(load_grid("demo", settings)).plans[0].spec


def planned(spec: TrialSpec, folder: Path) -> TrialDir:
    trial = TrialDir(UPath(folder))
    trial.write_plan(Plan(spec=spec, root=None, parameters=1, layers=(), expected=()))
    return trial


def start(trial: TrialDir, size: int, slow: float = 0.0) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(trial.path), str(rank), str(size), address, str(slow)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip


def finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said


def weights(trial: TrialDir) -> dict[str, torch.Tensor]:
    return load_file(str(trial.checkpoints / str(checkpoint_steps(trial.checkpoints)[0]) / MODEL))


def results(trial: TrialDir) -> list[EpochRow]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in trial.epochs()]


@pytest.fixture(scope="module")
def alone(spec: TrialSpec, tmp_path_factory: pytest.TempPathFactory) -> TrialDir:
    trial = planned(spec, tmp_path_factory.mktemp("alone"))
    train(spec, prepare(spec.data, None), trial.path)
    return trial


@pytest.fixture(scope="module")
def two(spec: TrialSpec, tmp_path_factory: pytest.TempPathFactory) -> TrialDir:
    trial = planned(spec, tmp_path_factory.mktemp("two"))
    finish(start(trial, 2))
    return trial


def test_two_processes_train_the_same_network_as_one(alone: TrialDir, two: TrialDir) -> None:
    one, other = weights(alone), weights(two)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name].double(), other[name].double(), rtol=1e-5, atol=1e-5), name
    for mine, theirs in zip(results(alone)[1:], results(two)[1:], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_killed_process_ends_the_trial_which_then_resumes_bit_for_bit(
    spec: TrialSpec, two: TrialDir, tmp_path: Path
) -> None:
    trial = planned(spec, tmp_path)
    first, second = start(trial, 2, slow=0.2)
    assert second.stdout is not None
    while second.stdout.readline().strip() != "7":
        assert second.poll() is None
    second.send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, said = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode != 0, said
    assert time.monotonic() - began < 30
    assert 0 < checkpoint_steps(trial.checkpoints)[0] < 9
    finish(start(trial, 2))
    mine, theirs = weights(trial), weights(two)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert results(trial) == results(two)


def test_a_trial_goes_on_with_another_number_of_processes(spec: TrialSpec, alone: TrialDir, tmp_path: Path) -> None:
    trial = planned(spec, tmp_path)
    stopped = start(trial, 2, slow=0.2)
    assert stopped[0].stdout is not None
    while stopped[0].stdout.readline().strip() != "4":
        assert stopped[0].poll() is None
    for process in stopped:
        process.kill()
        process.communicate()
    train(spec, prepare(spec.data, None), trial.path)
    one, other = weights(alone), weights(trial)
    for name in one:
        assert torch.allclose(one[name].double(), other[name].double(), rtol=1e-5, atol=1e-5), name


def test_a_process_that_fails_waits_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    left: list[str] = []
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append("orderly"))
    with pytest.raises(RuntimeError, match="alone"), joined(0, 2, "127.0.0.1:1"):
        raise RuntimeError("this one alone")  # NCCL would wait in destroy_process_group for the others
    assert left == []
    with joined(0, 2, "127.0.0.1:1"):
        pass
    assert left == ["orderly"]


@pytest.mark.parametrize(("size", "items"), [(1, 5), (2, 4), (3, 8), (4, 2)])
def test_ranks_share_items_among_them(size: int, items: int) -> None:
    shares = [Ranks(rank, size).own(range(items)) for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) == -(-items // size)
