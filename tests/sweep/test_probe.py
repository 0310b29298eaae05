"""Probing real trials, as small as they come."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from upath import UPath

import models
from sweep.grid import Grid, expand
from sweep.probe import MAP, feature_maps, probe_sweep
from sweep.results import read_table
from sweep.store import Plan, SweepDir
from sweep.trial import run_trial

LAYERS = [MAP, "features.3b.conv", "features.3a.conv"]


@pytest.fixture
def trained(sweep: SweepDir, plan: Plan) -> SweepDir:
    sweep.add([plan])
    run_trial(sweep.trial(plan.trial_id), None, threads=1)
    return sweep


def outcomes(sweep: SweepDir) -> list[str]:
    return [probed.outcome for probed in probe_sweep(sweep, images=16)]


def test_a_trial_is_probed_once_for_each_checkpoint(trained: SweepDir, plan: Plan) -> None:
    assert outcomes(trained) == ["probed"]
    table = read_table(trained.path, "probes")
    assert table["layer"].tolist() == LAYERS
    assert set(table["step"]) == {9}
    assert set(table["images"]) == {16}
    assert table[["row_r2", "column_r2"]].notna().all(axis=None)
    assert table[["row_r2", "column_r2"]].le(1).all(axis=None)
    assert outcomes(trained) == ["there already"]
    file = trained.trial(plan.trial_id).path / "probe.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([row | {"step": 0} for row in rows]))  # as if the trial had gone on since
    assert outcomes(trained) == ["probed"]
    assert json.loads(file.read_text()) == rows


def test_a_planned_trial_has_nothing_to_probe(sweep: SweepDir, plan: Plan) -> None:
    sweep.add([plan])
    assert outcomes(sweep) == ["no checkpoint"]
    assert read_table(sweep.path, "probes").empty


def test_a_torn_checkpoint_is_told_and_the_others_go_on(trained: SweepDir, tiny: Grid) -> None:
    other = expand(tiny).plans[0]
    other = replace(other, spec=other.spec.model_copy(update={"init_seed": 9, "data_seed": 9}))
    trained.add([other])
    run_trial(trained.trial(other.trial_id), None, threads=1)
    broken = trained.trial(other.trial_id).checkpoints / "9" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    found = {probed.trial_id: probed for probed in probe_sweep(trained, images=16)}
    assert found.pop(other.trial_id).outcome.endswith("its sha256 differs from the manifest's")
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


def test_a_sweep_that_is_not_there_yet_gives_an_empty_table(tmp_path: UPath) -> None:
    sweep = SweepDir(UPath(tmp_path))
    assert outcomes(sweep) == []
    assert read_table(sweep.path, "probes").empty
