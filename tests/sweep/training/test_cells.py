"""Every cell of architectures x interventions that has a meaning: builds, learns a step, comes back, is analysed."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import vgg
from upath import UPath

from analysis.layers import analyze_checkpoint
from models import architectures
from models.interventions import INTERVENTIONS
from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.store.checkpoint import read_checkpoint, write_checkpoint
from sweep.store.trial_dir import TrialDir
from sweep.training.run import Run
from sweep.training.train import train

PLANS = {plan.trial_id: plan for plan in expand(load_grid("smoke-full", [])).plans}
CELLS = [trial_id for trial_id, plan in PLANS.items() if plan.excluded is None]
WIDTH = 64  # channels at most, so that all cells fit in a test run; names, kernels, strides and heads stay


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The architectures with few channels and hidden layers of 64 units."""
    groups, initialise = architectures._groups, nn.Linear.reset_parameters

    def initialise_unless_large(layer: nn.Linear) -> None:
        if layer.weight.numel() < 10**7:  # torchvision's own hidden layers are built, but our heads take their place
            initialise(layer)

    def narrow_groups(widths: list[list[int]]) -> nn.Sequential:
        return groups([[min(width, WIDTH) for width in group] for group in widths])

    monkeypatch.setattr(architectures, "HIDDEN", WIDTH)
    monkeypatch.setattr(architectures, "_groups", narrow_groups)
    monkeypatch.setattr(nn.Linear, "reset_parameters", initialise_unless_large)
    monkeypatch.setattr(torchvision.models, "resnet50", partial(torchvision.models.resnet50, width_per_group=8))
    plan = [width if width == "M" else min(width, WIDTH) for width in vgg.cfgs["E"]]
    monkeypatch.setitem(vgg.cfgs, "E", plan)


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert list(first) == list(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("trial_id", CELLS)
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
    assert_equal(back.model_state(), run.model_state())
    assert_equal(back.training_state(), run.training_state())

    rows = analyze_checkpoint(folder / "model.safetensors", folder / "layers")
    assert [row["layer"] for row in rows] == list(PLANS[trial_id].layers)
    assert [row["error"] for row in rows] == [None] * len(rows)
    assert {row["verdict"] for row in rows} == {"none"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("resnet18", None), ("mobilenetv3_small_050", "depthwise"), ("convnext_atto", "depthwise")],
)
def test_a_model_of_timm_trains_and_its_dense_convs_are_scored(tmp_path: Path, name: str, reason: str | None) -> None:
    pytest.importorskip("timm", reason="timm is an optional extra")
    settings = [f"architectures=[timm:{name}]", "interventions=[rotate90]", "data.image_size=64"]
    (plan,) = expand(load_grid("smoke-full", settings)).plans
    trial = TrialDir(UPath(tmp_path))
    rows = train(plan.spec, prepare(plan.spec.data, None), trial.path)
    assert [row["step"] for row in rows] == [0, 2]
    layers = analyze_checkpoint(trial.checkpoints / "2" / "model.safetensors", trial.layers)
    assert [row["layer"] for row in layers] == list(plan.layers)
    scored = [reason is None or not layer.endswith("conv_dw") for layer in plan.layers]
    assert [row["error"] is None for row in layers] == scored
    assert all(reason in row["error"] for row in layers if row["error"])
