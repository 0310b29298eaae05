"""Every cell of architectures x interventions is built or excluded for a reason.

One of each intervention learns a step, comes back and is analysed; with `-m whole`, every one.
"""

import itertools
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import vgg
from upath import UPath

import models
from analysis.layers import analyze_checkpoint
from models import architectures
from models.architectures import ARCHITECTURES
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.spec import Plan
from sweep.store.checkpoint import read_checkpoint, write_checkpoint
from sweep.store.trial_dir import TrialDir
from sweep.training.run import Run
from sweep.training.train import train

pytestmark = pytest.mark.slow
CELLS = list(itertools.product(ARCHITECTURES, INTERVENTIONS))
WIDTH = 64  # channels at most, so that all cells fit in a test run; names, kernels, strides and heads stay


@cache
def planned(architecture: str, intervention: str) -> Plan:
    """A cell of the grid `smoke-full`."""
    settings = [f"architectures=[{architecture}]", f"interventions=[{intervention}]"]
    (plan,) = expand(load_grid("smoke-full", settings)).plans
    return plan


def architecture_for(intervention: str) -> str:
    """The architectures take turns; where an intervention makes no sense for the one whose turn it is, the next one."""
    turn = list(INTERVENTIONS).index(intervention)
    architectures = list(ARCHITECTURES)
    start = turn % len(architectures)
    return next(
        architecture
        for architecture in architectures[start:] + architectures[:start]
        if planned(architecture, intervention).excluded is None
    )


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The architectures with few channels and hidden layers of 64 units; plans are made before, and remembered."""
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


@pytest.mark.parametrize(("architecture", "intervention"), CELLS)
def test_a_cell_is_built_or_excluded_for_a_reason(architecture: str, intervention: str) -> None:
    plan = planned(architecture, intervention)
    defined = ARCHITECTURES[architecture].interventions
    if defined is not None and intervention not in defined:
        assert f"defined for {architecture}" in (plan.excluded or "")
        return
    assert plan.excluded == INTERVENTIONS[intervention].meaningless(on_meta(plan, "baseline"))
    if plan.excluded is not None:
        return
    net = on_meta(plan, intervention)
    assert net(torch.empty(2, 3, 96, 96, device="meta")).shape == (2, plan.spec.data.num_classes)
    assert sum(parameter.numel() for parameter in net.parameters()) == plan.parameters
    assert tuple(net.final_convs) == plan.layers
    modules = dict(net.features.named_modules(prefix="features"))
    spatial = [name for name, m in modules.items() if isinstance(m, nn.Conv2d) and min(m.kernel_size) > 1]
    assert plan.layers[0] == spatial[-1]


def on_meta(plan: Plan, intervention: str) -> ConvNet:
    """A cell's network without memory."""
    data = plan.spec.data
    with torch.device("meta"):
        return models.build(plan.spec.architecture, intervention, data.num_classes, data.image_size, seed=0)


def test_every_architecture_has_its_turn() -> None:
    assert {architecture_for(intervention) for intervention in INTERVENTIONS} == set(ARCHITECTURES)


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_a_cell_of_every_intervention_learns_comes_back_and_is_analysed(
    intervention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(architecture_for(intervention), intervention)
    narrow(monkeypatch)
    take_a_step(plan, tmp_path)


@pytest.mark.whole
@pytest.mark.parametrize(("architecture", "intervention"), CELLS)
def test_every_cell_learns_comes_back_and_is_analysed(
    architecture: str, intervention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(architecture, intervention)
    if plan.excluded is not None:
        pytest.skip(plan.excluded)
    narrow(monkeypatch)
    take_a_step(plan, tmp_path)


def take_a_step(plan: Plan, folder: Path) -> None:
    """A cell's network learns one step, is saved, read back and analysed."""
    spec = plan.spec
    change = INTERVENTIONS[spec.intervention]
    run = Run(spec)
    generator = torch.Generator().manual_seed(0)
    images = change.augment(change.transform(torch.randn(4, 3, 96, 96, generator=generator)), generator)
    before = {name: tensor.clone() for name, tensor in run.model_state().items()}
    run.learn([(images, torch.tensor([0, 1, 2, 3]))], size=4, lr=0.01)

    without = [name for name, p in run.net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(tensor.isfinite().all() for tensor in run.model_state().values())
    assert not torch.equal(
        before[f"{run.net.final_convs[0]}.weight"], run.model_state()[f"{run.net.final_convs[0]}.weight"]
    )

    checkpoint = UPath(folder / "1")
    write_checkpoint(checkpoint, run.progress(), run.model_state(), run.training_state(), run.metadata())
    back = Run(spec)
    back.load(read_checkpoint(checkpoint))
    assert_equal(back.model_state(), run.model_state())
    assert_equal(back.training_state(), run.training_state())

    rows = analyze_checkpoint(checkpoint / "model.safetensors", checkpoint / "layers")
    assert [row["layer"] for row in rows] == list(plan.layers)
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
