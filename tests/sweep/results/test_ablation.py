"""What networks lose without their bands: measured on the network as it was, with nothing left changed."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import models
from analysis.ablation import CHANGES
from analysis.layers import analyze_checkpoint
from sweep.cli import app
from sweep.data.prepare import prepare
from sweep.grid.schema import Grid
from sweep.results import ablated
from sweep.results.ablation import ABLATION, ablate, accuracy_of, changed, recalibrate
from sweep.results.compact import GATHERED
from sweep.results.measuring import BATCH, chosen_images, measure_sweep
from sweep.results.tables import read_table
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import MEASURED
from sweep.training.trial import run_trial

CONV = "features.3b.conv"


def test_a_change_is_undone_and_so_is_the_recalibration() -> None:
    net = models.build("simplified_mini", "baseline", 5, 56, seed=0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with changed(net, CONV, "mean"):
        weights = net.get_submodule(CONV).weight
        assert (weights == weights[:, :, :1, :1]).all()
        recalibrate(net, torch.randn(8, 3, 56, 56))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_recalibrated_statistics_are_those_of_the_images() -> None:
    net = models.build("simplified_mini", "baseline", 5, 56, seed=0)
    images = 3 + 2 * torch.randn(64, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    recalibrate(net, images)
    norm = net.features.get_submodule("0a.bn")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        maps = net.features.get_submodule("0a.conv")(images)
    assert torch.allclose(norm.running_mean, maps.mean(dim=(0, 2, 3)), atol=1e-4)
    assert (norm.momentum, net.training) == (0.1, True)
    assert not norm.training


def test_no_batch_of_a_recalibration_is_left_with_a_single_image() -> None:
    net = models.build("simplified_mini", "max_pool_fc4096", 5, 56, seed=0)  # has batch norms of vectors
    recalibrate(net, torch.randn(BATCH + 1, 3, 56, 56))
    with pytest.raises(ValueError, match="at least 2 training images"):
        recalibrate(net, torch.randn(1, 3, 56, 56))


@pytest.mark.slow
def test_a_sweep_is_ablated_once_and_its_table_printed(
    sweep: SweepDir, plan: Plan, tiny: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.add([plan])
    sweep.record_launch(tiny.model_dump(mode="json"))
    trial = sweep.trial(plan.trial_id)
    run_trial(trial, None, threads=1)
    analyze_checkpoint(trial.checkpoints / "9" / "model.safetensors", trial.layers / "9")
    assert [done.outcome for done in measure_sweep(sweep, ABLATION, 8)] == ["ablated"]
    assert [done.outcome for done in measure_sweep(sweep, ABLATION, 8)] == ["there already"]
    table = read_table(sweep.path, "ablations")
    assert table["change"].tolist() == 2 * list(CHANGES)
    assert table["layer"].tolist() == [layer for layer in plan.layers for _ in CHANGES]
    assert table["accuracy"].between(0, 1).all()
    text = StringIO()
    monkeypatch.setattr("sweep.cli.consoles.output", Console(file=text, width=200))
    page = tmp_path / "report.html"
    for command in (["ablate", str(sweep.path), "--images", "8"], ["report", str(sweep.path), "-o", str(page)]):
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert "1 of 1 trials: there already" in text.getvalue()
    assert "column means" in text.getvalue()
    assert 'id="ablations"' in page.read_text(encoding="utf-8")


def test_without_a_change_the_accuracy_is_the_trials_own(plan: Plan) -> None:
    spec, data = plan.spec, prepare(plan.spec.data, plan.root)
    net = models.build(spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, seed=0)
    rows = ablate(net, data, spec, 1000)
    whole = accuracy_of(net, chosen_images(data, data.val_images, spec, 1000), data.val_labels)
    assert rows[0]["change"] == "none"
    assert rows[0]["accuracy"] == whole
    assert {row["images"] for row in rows} == {len(data.val_images)}


def test_accuracies_over_seeds_stand_side_by_side() -> None:
    trials = pd.DataFrame({
        "trial_id": ["a", "b", "c"], "status": ["finished", "finished", "running"], "step": [9, 9, 9], "data": "scenes",
        "data_key": "k", "recipe_key": "r", "architecture": "mini", "intervention": "baseline",
    })  # fmt: skip
    layers = pd.DataFrame({"trial_id": ["a", "b", "c"], "layer": "conv", "position": 1})
    rows = [
        {"trial_id": trial, "step": step, "layer": "conv", "change": change, "recalibrated_accuracy": accuracy}
        for trial, step, whole, mean in (("a", 9, 1.0, 0.5), ("b", 9, 0.8, 0.3), ("b", 4, 0.0, 0.0), ("c", 9, 0.0, 0.0))
        for change, accuracy in (("none", whole), ("mean", mean))
    ]
    (found,) = ablated.over_changes(trials, layers, pd.DataFrame(rows)).to_dict("records")
    assert (found["n"], found["none_mean"], found["mean_mean"]) == (2, pytest.approx(0.9), pytest.approx(0.4))
    assert found["mean_std"] == pytest.approx(0.02**0.5)
    assert pd.isna(found["shuffled_mean"])


def test_names_of_changes_and_tables_are_said_once_for_those_who_need_no_torch() -> None:
    assert list(ablated.CHANGES) == list(CHANGES)
    assert list(GATHERED) == list(MEASURED)
