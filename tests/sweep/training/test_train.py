"""Training: resumes bit for bit, goes where the recipe says, stops and fails cleanly."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from upath import UPath

from models.convnet import ConvNet
from sweep.data.images import Images
from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.spec import Plan
from sweep.store.checkpoint import read_checkpoint
from sweep.store.manifest import MEASURED, MODEL, EpochRow, checkpoint_steps
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir
from sweep.training.memory import OutOfMemoryError
from sweep.training.run import DivergedError, Run
from sweep.training.train import Stop, StoppedError, train
from tests.sweep.conftest import TINY
from tests.sweep.training import golden

STORED: list[float] = json.loads(golden.FILE.read_text())


def weights(trial: TrialDir) -> str:
    newest = trial.checkpoints / str(checkpoint_steps(trial.checkpoints)[0])
    return hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def without_times(rows: list[EpochRow]) -> list[EpochRow]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def stop_after(steps: int) -> Stop:
    left = iter(range(steps - 1, -1, -1))
    return lambda _step: next(left) == 0


@pytest.mark.parametrize("stops", [[1], [2], [3], [4], [1, 1, 1], [4, 4]])
def test_a_trial_stopped_anywhere_ends_bit_for_bit_where_an_undisturbed_one_does(
    plan: Plan, sweep: SweepDir, stops: list[int]
) -> None:
    data = prepare(plan.spec.data, None)
    whole, parts = sweep.trial("whole"), sweep.trial("parts")
    train(plan.spec, data, whole.path)
    for steps in stops:
        with pytest.raises(StoppedError):
            train(plan.spec, data, parts.path, stop=stop_after(steps))
    train(plan.spec, data, parts.path)
    assert weights(parts) == weights(whole)
    assert without_times(parts.epochs()) == without_times(whole.epochs())
    assert [row["epoch"] for row in whole.epochs()] == [0, 1, 2, 3]


def test_a_torn_newest_checkpoint_costs_steps_but_changes_nothing(plan: Plan, sweep: SweepDir) -> None:
    data = prepare(plan.spec.data, None)
    whole, torn = sweep.trial("whole"), sweep.trial("torn")
    train(plan.spec, data, whole.path)
    with pytest.raises(StoppedError):
        train(plan.spec, data, torn.path, stop=stop_after(7))
    newest = torn.checkpoints / "7" / "training.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"!")
    train(plan.spec, data, torn.path)
    assert weights(torn) == weights(whole)
    assert without_times(torn.epochs()) == without_times(whole.epochs())


@pytest.mark.parametrize("content", ["", "{", '{"epoch": 0, "st', "no json\n"])
def test_damaged_rows_come_back_from_the_checkpoint(plan: Plan, sweep: SweepDir, content: str) -> None:
    data = prepare(plan.spec.data, None)
    trial = sweep.trial("trial")
    with pytest.raises(StoppedError):
        train(plan.spec, data, trial.path, stop=stop_after(7))
    for _ in range(2):  # in the middle of training, and after its end
        (trial.path / "epochs.jsonl").write_text(content)
        rows = train(plan.spec, data, trial.path)
        assert [row["epoch"] for row in rows] == [0, 1, 2, 3]


class Narrow:
    """A machine in whose memory only so many images fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, images: int) -> None:
        self.parts: list[int] = []
        through = Run.forward

        def forward(run: Run, batch: torch.Tensor) -> torch.Tensor:
            if len(batch) > images:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.parts.append(len(batch))
            return through(run, batch)

        monkeypatch.setattr(Run, "forward", forward)


def test_a_step_that_does_not_fit_in_memory_fails_with_a_cure(
    plan: Plan, sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    Narrow(monkeypatch, images=8)
    with pytest.raises(OutOfMemoryError, match=r"at step 1; .*recipe\.out_of_memory=split"):
        train(plan.spec, prepare(plan.spec.data, None), sweep.trial("trial").path)


def test_a_step_may_be_split_and_stays_split_when_resumed(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.out_of_memory=split"])).plans[0]
    data = prepare(plan.spec.data, None)
    narrow = Narrow(monkeypatch, images=5)
    with pytest.raises(StoppedError):
        train(plan.spec, data, sweep.trial("trial").path, stop=stop_after(7))
    assert set(narrow.parts) == {4}  # 16 images a step, in fewer and fewer parts until they fit
    wide = Narrow(monkeypatch, images=100)
    rows = train(plan.spec, data, sweep.trial("trial").path)
    assert set(wide.parts) == {4}
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["step"] == 9


def test_where_memory_ends_the_result_does_not_depend_on_when_checkpoints_were_written(
    sweep: SweepDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.out_of_memory=split"])).plans[0]
    data = prepare(plan.spec.data, None)
    forward, weights = Run.forward, []
    for name, every_s in (("often", 0.0), ("never", 1e9)):
        steps = [0]

        def once(run: Run, batch: torch.Tensor, steps: list[int] = steps) -> torch.Tensor:
            steps[0] += 1
            if steps[0] == 5:
                raise RuntimeError("CUDA error: out of memory")
            return forward(run, batch)

        monkeypatch.setattr(Run, "forward", once)
        train(plan.spec, data, sweep.trial(name).path, save_every_s=every_s)
        weights.append((sweep.trial(name).checkpoints / "9" / MODEL).read_bytes())
    assert weights[0] == weights[1]


def test_validation_that_does_not_fit_in_memory_is_split_too(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.out_of_memory=split"])).plans[0]
    whole = ConvNet.forward

    def forward(net: ConvNet, images: torch.Tensor) -> torch.Tensor:
        if not net.training and len(images) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(net, images)

    monkeypatch.setattr(ConvNet, "forward", forward)
    data = prepare(plan.spec.data, None)
    many = replace(data, val_images=Images([data.val_images[:].numpy()] * 20), val_labels=data.val_labels.repeat(20))
    rows = train(plan.spec, many, sweep.trial("trial").path)
    assert rows[-1]["step"] == 9


def test_a_step_that_can_not_be_split_far_enough_fails(sweep: SweepDir, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.out_of_memory=split"])).plans[0]
    Narrow(monkeypatch, images=1)
    with pytest.raises(OutOfMemoryError):
        train(plan.spec, prepare(plan.spec.data, None), sweep.trial("trial").path)


def test_a_finished_trial_trains_no_further_step(plan: Plan, sweep: SweepDir) -> None:
    data = prepare(plan.spec.data, None)
    trial = sweep.trial("trial")
    rows = train(plan.spec, data, trial.path)
    again = train(plan.spec, data, trial.path, stop=stop_after(1))
    assert again == rows


def test_untrained_takes_no_step(sweep: SweepDir) -> None:
    plan = expand(load_grid("demo", [*TINY, "interventions=[untrained]"])).plans[0]
    rows = train(plan.spec, prepare(plan.spec.data, None), sweep.trial("trial").path, stop=stop_after(1))
    assert [(row["epoch"], row["step"], row["train_loss"]) for row in rows] == [(0, 0, None)]
    assert checkpoint_steps(sweep.trial("trial").checkpoints) == [0]


def test_training_state_is_in_the_last_two_checkpoints_of_a_running_trial(sweep: SweepDir) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.epochs=6"])).plans[0]
    trial = sweep.trial("trial")
    with pytest.raises(StoppedError):
        train(plan.spec, prepare(plan.spec.data, None), trial.path, stop=stop_after(16))
    resumable = {
        step: bool(read_checkpoint(trial.checkpoints / str(step)).training)
        for step in checkpoint_steps(trial.checkpoints)
    }
    assert resumable == {16: True, 15: True, 12: False, 6: False, 3: False, 0: False}


def test_weights_stay_at_log_spaced_epochs(sweep: SweepDir) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.epochs=6"])).plans[0]
    kept: list[int] = []
    trial = sweep.trial("trial")

    def report(row: EpochRow, checkpoint: UPath | None) -> None:
        if checkpoint is not None:
            kept.append(int(checkpoint.name) // 3)

    train(plan.spec, prepare(plan.spec.data, None), trial.path, report)
    assert kept == [0, 1, 2, 4, 6]
    contents = {
        step // 3: bool(read_checkpoint(trial.checkpoints / str(step)).training)
        for step in checkpoint_steps(trial.checkpoints)
    }
    assert contents == {6: False, 4: False, 2: False, 1: False, 0: False}  # finished: nothing will be resumed


def test_a_loss_that_is_no_number_fails_with_its_step(sweep: SweepDir) -> None:
    plan = expand(load_grid("demo", [*TINY, "recipe.lr=1.0e+30", "recipe.lr_schedule=constant"])).plans[0]
    with pytest.raises(DivergedError, match=r"not a finite number at step [2-9]"):
        train(plan.spec, prepare(plan.spec.data, None), sweep.trial("trial").path)


def test_training_learns(sweep: SweepDir) -> None:
    plan = expand(load_grid("demo", ["recipe=small", *TINY, "recipe.epochs=12"])).plans[0]
    rows = train(plan.spec, prepare(plan.spec.data, None), sweep.trial("trial").path)
    losses = [row["train_loss"] for row in rows[1:]]
    assert losses[-1] < 0.6 * losses[0]


def test_the_course_of_a_training_is_the_stored_one() -> None:
    """Fails when a recipe means something else than before."""
    cure = "training takes another course; if that is meant: python -m tests.sweep.training.golden"
    assert golden.departure(golden.course(), STORED) < golden.TOLERANCE, cure


@pytest.mark.parametrize("change", golden.CHANGES)
def test_a_changed_recipe_takes_another_course(change: str) -> None:
    assert golden.departure(golden.course(*golden.CHANGES[change]), STORED) > 4 * golden.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("onednn", "aten"), [("SSE41", "default"), ("AVX2", "avx2")])
def test_on_simpler_processors_as_well(onednn: str, aten: str) -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten}
    command = [sys.executable, "-m", "tests.sweep.training.golden", "--every-change"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    as_it_is, *changed = (golden.departure(found, STORED) for found in json.loads(done.stdout).values())
    assert as_it_is < golden.TOLERANCE
    assert len(changed) == len(golden.CHANGES)
    assert min(changed) > 4 * golden.TOLERANCE


def test_each_epoch_says_how_fast_it_was_and_what_it_waited_for(plan: Plan, sweep: SweepDir) -> None:
    trial = sweep.trial("trial")
    rows = train(plan.spec, prepare(plan.spec.data, None), trial.path, save_every_s=1e-9)
    assert rows[0]["images_per_s"] is None
    before = 0.0
    for row in rows[1:]:
        took_s = (row["wall_s"] or 0) - before
        before = row["wall_s"] or 0
        assert row["images_per_s"] == pytest.approx(16 * 3 / took_s, rel=0.05)
        assert (row["wait_s"] or 0) + (row["compute_s"] or 0) == pytest.approx(took_s, abs=0.01)
        assert (row["save_s"] or 0) > 0
        assert (row["val_accuracy"] or 0) <= (row["val_top5_accuracy"] or 0) <= 1
        assert row["gpu_mib"] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile looks at what tensors warn about
@pytest.mark.whole  # compiling takes a minute; that a compiled trial resumes is in the suite
def test_a_compiled_network_learns_what_the_plain_one_learns(plan: Plan, sweep: SweepDir) -> None:
    recipe = plan.spec.recipe.model_copy(update={"compile": "default"})
    plain, compiled = sweep.trial("plain"), sweep.trial("compiled")
    data = prepare(plan.spec.data, None)
    expected = train(plan.spec, data, plain.path)
    found = train(plan.spec.model_copy(update={"recipe": recipe}), data, compiled.path)
    assert found[-1]["train_loss"] == pytest.approx(expected[-1]["train_loss"], rel=1e-3)
    states = [read_checkpoint(trial.checkpoints / str(expected[-1]["step"])).model for trial in (plain, compiled)]
    assert states[0].keys() == states[1].keys()


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_trial_resumes_bit_for_bit(plan: Plan, sweep: SweepDir) -> None:
    recipe = plan.spec.recipe.model_copy(update={"compile": "default", "ghost_batch": 2})
    spec = plan.spec.model_copy(update={"recipe": recipe})
    data, whole, parts = prepare(spec.data, None), sweep.trial("whole"), sweep.trial("parts")
    train(spec, data, whole.path)
    with pytest.raises(StoppedError):
        train(spec, data, parts.path, stop=stop_after(4))
    train(spec, data, parts.path)
    assert weights(parts) == weights(whole)
