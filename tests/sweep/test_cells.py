"""Every cell of architectures x interventions that has a meaning: builds, learns a step, comes back, is analysed."""

from pathlib import Path

import pytest
import torch
from torch import nn
from upath import UPath

from analysis.layers import analyze_checkpoint
from models import architectures
from models.interventions import INTERVENTIONS
from sweep.checkpoint import read_checkpoint, write_checkpoint
from sweep.grid import expand, load_grid
from sweep.train import Run

PLANS = {plan.trial_id: plan for plan in expand(load_grid("smoke-full", [])).plans}
CELLS = [trial_id for trial_id, plan in PLANS.items() if plan.excluded is None]
# Every intervention on the small network; on the large ones, those that change the network's body or its head's size.
QUICK = ("simplified_mini-", "-baseline-", "-no_pooling-", "-coord_conv-", "-blur_pool-", "-padding_reflect-")


def marked(trial_id: str) -> object:
    quick = any(part in trial_id for part in QUICK)
    return trial_id if quick else pytest.param(trial_id, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-19 and AlexNet with hidden layers of 64 units instead of 4096, which would be 100 million weights."""
    monkeypatch.setattr(architectures, "HIDDEN", 64)


@pytest.mark.parametrize("trial_id", [marked(trial_id) for trial_id in CELLS])
def test_cell(trial_id: str, tmp_path: Path) -> None:
    spec = PLANS[trial_id].spec
    change = INTERVENTIONS[spec.intervention]
    run = Run(spec)
    generator = torch.Generator().manual_seed(0)
    images = change.augment(change.transform(torch.randn(4, 3, 96, 96, generator=generator)), generator)
    before = {name: tensor.clone() for name, tensor in run.model_state().items()}
    run.learn((images, torch.tensor([0, 1, 2, 3])), lr=0.01)

    without = [name for name, p in run.net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(tensor.isfinite().all() for tensor in run.model_state().values())
    assert not torch.equal(
        before[f"{run.net.final_convs[0]}.weight"], run.model_state()[f"{run.net.final_convs[0]}.weight"]
    )

    modules = dict(run.net.features.named_modules(prefix="features"))
    spatial = [name for name, m in modules.items() if isinstance(m, nn.Conv2d) and min(m.kernel_size) > 1]
    assert run.net.final_convs[0] == spatial[-1]

    folder = UPath(tmp_path / "1")
    write_checkpoint(folder, run.progress(), run.model_state(), run.training_state(), run.metadata())
    back = Run(spec)
    back.load(read_checkpoint(folder))
    for name, tensor in run.model_state().items():
        assert torch.equal(back.model_state()[name], tensor), name
    for name, tensor in run.training_state().items():
        assert torch.equal(back.training_state()[name], tensor), name

    rows = analyze_checkpoint(folder / "model.safetensors", folder / "layers")
    assert [row["layer"] for row in rows] == list(PLANS[trial_id].layers)
    assert [row["error"] for row in rows] == [None] * len(rows)
    assert {row["verdict"] for row in rows} == {"none"}
