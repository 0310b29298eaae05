"""Probing real trials, as small as they come."""

import json
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner
from upath import UPath

import models
from analysis.layers import analyze_checkpoint
from sweep.cli import app
from sweep.grid.schema import Grid
from sweep.results.measuring import BATCH, evenly, measure_sweep
from sweep.results.position import MAP, POSITION, feature_maps, input_nulls
from sweep.results.tables import read_table
from sweep.spec import Plan
from sweep.store.sweep_dir import SweepDir
from sweep.training.trial import run_trial

pytestmark = pytest.mark.slow
LAYERS = [MAP, "features.3b.conv", "features.3a.conv"]


@pytest.fixture
def trained(sweep: SweepDir, plan: Plan) -> SweepDir:
    sweep.add([plan])
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    return sweep


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the commands print; their console took hold of standard output when it was imported."""
    text = StringIO()
    monkeypatch.setattr("sweep.cli.consoles.output", Console(file=text))
    return text


def outcomes(sweep: SweepDir) -> list[str]:
    return [probed.outcome for probed in measure_sweep(sweep, POSITION, 16)]


def test_a_trial_is_probed_once_for_each_checkpoint(trained: SweepDir, plan: Plan) -> None:
    assert outcomes(trained) == ["probed"]
    table = read_table(trained.path, "probes")
    assert table["layer"].tolist() == LAYERS
    assert set(table["step"]) == {9}
    assert set(table["images"]) == {16}
    assert table[["row_r2", "column_r2"]].notna().all(axis=None)
    assert table[["row_r2", "column_r2"]].le(1).all(axis=None)
    nulls = table.set_index("layer")[["null_input_horizontal", "null_input_vertical"]]
    assert nulls.loc[MAP].isna().all()  # no convolution's input
    assert nulls.drop(MAP).abs().le(1).all(axis=None)
    assert outcomes(trained) == ["there already"]
    file = trained.trial(plan.trial_id).path / "probe.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([row | {"step": 0} for row in rows]))  # as if the trial had gone on since
    assert outcomes(trained) == ["probed"]
    assert json.loads(file.read_text()) == rows


def test_the_commands_probe_and_report(
    trained: SweepDir, plan: Plan, tiny: Grid, tmp_path: Path, printed: StringIO
) -> None:
    trained.record_launch(tiny.model_dump(mode="json"))
    trial = trained.trial(plan.trial_id)
    analyze_checkpoint(trial.checkpoints / "9" / "model.safetensors", trial.layers / "9")
    run = partial(CliRunner().invoke, app, catch_exceptions=False)
    probed = run(["probe", str(trained.path), "--images", "16"])
    assert (probed.exit_code, printed.getvalue()) == (0, "1 of 1 trials: probed\n")
    page, folder = tmp_path / "report.html", tmp_path / "export"
    written = run(["report", str(trained.path), "-o", str(page), "--export", str(folder), "--normalise", "norm"])
    assert written.exit_code == 0
    assert f"report: {page}" in printed.getvalue()
    html = page.read_text(encoding="utf-8")
    assert all(f'id="{section}"' in html for section in ("grid", "found", "cells", "clusters", "probes", "recipe"))
    assert "normalised by norm" in html
    assert (folder / "weights" / plan.trial_id / "features.3b.conv.png").exists()


def test_a_failed_probe_is_told_and_the_exit_code_says_so(
    trained: SweepDir, plan: Plan, tiny: Grid, printed: StringIO
) -> None:
    trained.record_launch(tiny.model_dump(mode="json"))
    (trained.trial(plan.trial_id).checkpoints / "9" / "model.safetensors").unlink()
    probed = CliRunner().invoke(app, ["probe", str(trained.path)], catch_exceptions=False)
    assert probed.exit_code == 1
    assert "model.safetensors is missing\n" in printed.getvalue()


def test_a_planned_trial_has_nothing_to_probe(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([plan])
    assert outcomes(sweep) == ["no checkpoint"]
    assert read_table(sweep.path, "probes").empty


def test_a_torn_checkpoint_is_told_and_the_others_go_on(trained: SweepDir, torn: str) -> None:
    found = {probed.trial_id: probed for probed in measure_sweep(trained, POSITION, 16)}
    assert found.pop(torn).outcome.endswith("its sha256 differs from the manifest's")
    assert [probed.outcome for probed in found.values()] == ["probed"]
    assert read_table(trained.path, "probes")["trial_id"].nunique() == 1


def test_maps_are_those_that_the_network_makes() -> None:
    net = models.build("simplified_mini", "baseline", 5, 56, seed=0).eval()
    images = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    maps = feature_maps(net, images)
    assert list(maps) == LAYERS
    with torch.no_grad():
        block = net.features.get_submodule("3b")
        assert np.allclose(maps[MAP], net.features(images), atol=1e-6)
        assert np.allclose(maps[MAP], block[2](block[1](torch.from_numpy(maps["features.3b.conv"]))), atol=1e-6)
    assert not net.features.get_submodule("3b.conv")._forward_hooks


def test_inputs_that_vary_by_row_alone_make_horizontal_kernels() -> None:
    net = models.build("simplified_mini", "coord_conv", 5, 56, seed=0)
    images = torch.rand((4, 3, 56, 1), generator=torch.Generator().manual_seed(0)).expand(4, 3, 56, 56)
    for name in net.final_convs:
        net.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs: (inputs[0].mean(dim=3, keepdim=True).expand_as(inputs[0]),)
        )
    nulls = input_nulls(net, images)
    assert list(nulls) == list(reversed(net.final_convs))
    assert all(null["null_input_horizontal"] > 0.9 for null in nulls.values())


def test_the_input_null_sees_images_from_first_to_last() -> None:
    net = models.build("simplified_mini", "baseline", 5, 56, seed=0)
    images = torch.randn(BATCH + 6, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    images[-6:] += torch.arange(56)[:, None] / 4  # the last class brightens downwards
    assert input_nulls(net, images) == input_nulls(net, images[evenly(len(images), BATCH)])
    assert input_nulls(net, images) != input_nulls(net, images[:BATCH])


def test_a_conv_without_windows_has_no_input_null() -> None:
    net = models.build("simplified_mini", "baseline", 5, 56, seed=0)
    assert set(input_nulls(net, torch.zeros(2, 3, 56, 56))) <= set(net.final_convs)


def test_a_sweep_that_is_not_there_yet_gives_an_empty_table(tmp_path: Path) -> None:
    sweep = SweepDir(UPath(tmp_path))
    assert outcomes(sweep) == []
    assert read_table(sweep.path, "probes").empty
