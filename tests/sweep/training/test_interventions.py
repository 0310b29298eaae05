"""What an intervention does to the images and the steps of a trial, seen where the network sees them: in training."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor
from upath import UPath

import models
from models.convnet import ConvNet
from sweep.data.prepare import prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.store.checkpoint import read_checkpoint
from sweep.store.manifest import checkpoint_steps
from sweep.training.train import train
from tests.sweep.conftest import TINY


@dataclass
class Seen:
    """The batches a network was given, in order."""

    training: list[Tensor] = field(default_factory=list)
    validation: list[Tensor] = field(default_factory=list)


@pytest.fixture
def seen_under(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Seen]:
    """Train a tiny trial under an intervention and give the images that reached its network."""
    forward = ConvNet.forward

    def run(intervention: str) -> Seen:
        seen = Seen()

        def recorded(net: ConvNet, images: Tensor) -> Tensor:
            (seen.training if net.training else seen.validation).append(images.detach().clone())
            return forward(net, images)

        (plan,) = expand(load_grid("demo", [*TINY, f"interventions=[{intervention}]", "recipe.epochs=1"])).plans
        monkeypatch.setattr(ConvNet, "forward", recorded)  # from here on: planning runs networks too, without images
        train(plan.spec, prepare(plan.spec.data, None), UPath(tmp_path_factory.mktemp("trial")))
        return seen

    return run


@pytest.mark.parametrize(("intervention", "turns"), [("rotate90", 1), ("rotate180", 2)])
def test_turns_every_image_of_training_and_validation_alike(
    seen_under: Callable[[str], Seen], intervention: str, turns: int
) -> None:
    upright, turned = seen_under("baseline"), seen_under(intervention)
    turn = partial(torch.rot90, k=turns, dims=(-2, -1))
    for plain, changed in ((upright.training, turned.training), (upright.validation, turned.validation)):
        assert len(plain) == len(changed) >= 2
        for images, others in zip(plain, changed, strict=True):
            assert not any(torch.equal(image, turn(image)) for image in images)  # they are asymmetric: a turn shows
            assert torch.equal(turn(images), others)


def test_flips_of_an_intervention_take_the_place_of_the_data_sets(seen_under: Callable[[str], Seen]) -> None:
    plain, never, upside_down, after = map(seen_under, ("baseline", "no_flip", "flip_top_bottom", "rotate90_then_flip"))
    ways: dict[str, list[bool]] = {"left_right": [], "top_bottom": [], "then": []}
    turn = partial(torch.rot90, k=1, dims=(-2, -1))
    for batches in zip(plain.training, never.training, upside_down.training, after.training, strict=True):
        for one, upright, other, turned in zip(*batches, strict=True):
            for name, image, axis, straight in (
                ("left_right", one, -1, upright),
                ("top_bottom", other, -2, upright),
                ("then", turned, -1, turn(upright)),
            ):
                assert torch.equal(image, straight) or torch.equal(image, straight.flip(axis))
                ways[name].append(torch.equal(image, straight))
    assert all(0 < sum(kept) < len(kept) for kept in ways.values())


@pytest.mark.parametrize("intervention", ["random_rotation", "vertical_flip"])
def test_random_changes_are_those_of_training_alone(seen_under: Callable[[str], Seen], intervention: str) -> None:
    upright, changed = seen_under("baseline"), seen_under(intervention)
    assert all(torch.equal(*pair) for pair in zip(upright.validation, changed.validation, strict=True))
    same = [
        torch.equal(image, other)
        for images, others in zip(upright.training, changed.training, strict=True)
        for image, other in zip(images, others, strict=True)
    ]
    assert 0 < sum(same) < len(same)


def test_an_untrained_network_ends_with_the_weights_it_was_built_with(tmp_path) -> None:
    (plan,) = expand(load_grid("demo", [*TINY, "interventions=[untrained]"])).plans
    rows = train(plan.spec, prepare(plan.spec.data, None), UPath(tmp_path))
    assert [row["step"] for row in rows] == [0]
    checkpoints = UPath(tmp_path) / "checkpoints"
    assert checkpoint_steps(checkpoints) == [0]
    data = plan.spec.data
    fresh = models.build(plan.spec.architecture, "baseline", data.num_classes, data.image_size, plan.spec.init_seed)
    kept = read_checkpoint(checkpoints / "0").model
    assert kept.keys() == fresh.state_dict().keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in fresh.state_dict().items())
