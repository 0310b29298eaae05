"""Every architecture with every intervention: builds, runs, learns, is reproducible, says where it comes from."""

import cloudpickle
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import models
from models.architectures import ARCHITECTURES
from models.convnet import L2Pool2d
from models.interventions import INTERVENTIONS

SMALL = "simplified_mini"
# Sizes at which each architecture runs quickly; their last maps are 2x2 or larger.
SIZES = {"simplified": 96, "simplified_mini": 56, "inception_v1": 96, "resnet50": 64, "vgg19": 48, "alexnet": 96}
CELLS = [(architecture, intervention) for architecture in ARCHITECTURES for intervention in INTERVENTIONS]


def images(architecture: str, number: int = 2) -> torch.Tensor:
    size = SIZES[architecture]
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("architecture", "intervention"), CELLS)
def test_every_cell_runs_and_its_gradient_reaches_every_parameter(architecture: str, intervention: str) -> None:
    net = models.build(architecture, intervention, 10, SIZES[architecture], seed=0)
    change = INTERVENTIONS[intervention]
    batch = change.augment(change.transform(images(architecture)), torch.Generator().manual_seed(0))
    logits = net(batch)
    assert logits.shape == (2, 10)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    cross_entropy(logits, torch.tensor([3, 4])).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert INTERVENTIONS[intervention].meaningless(net) is None or intervention == "blur_pool"


@pytest.mark.parametrize(("architecture", "intervention"), CELLS)
def test_the_final_convs_exist_last_first_and_have_spatial_kernels(architecture: str, intervention: str) -> None:
    net = models.build(architecture, intervention, 10, SIZES[architecture], seed=0)
    modules = dict(net.named_modules())
    kernels = [modules[name].kernel_size for name in net.final_convs]
    assert len(kernels) >= 2
    assert all(min(kernel) >= 3 for kernel in kernels)
    last = [name for name, m in modules.items() if isinstance(m, nn.Conv2d) and min(m.kernel_size) > 1][-1]
    assert net.final_convs[0] == last
    assert all(modules[name].padding_mode == "zeros" for name in net.final_convs) or "padding" in intervention


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_the_same_seed_gives_the_same_bits_and_leaves_global_randomness_alone(intervention: str) -> None:
    before = torch.get_rng_state()
    first, second, other = (models.build(SMALL, intervention, 10, 56, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_every_intervention_survives_a_trip_to_another_process(intervention: str) -> None:
    net = models.build(SMALL, intervention, 10, 56, seed=0).eval()
    copy = cloudpickle.loads(cloudpickle.dumps(net))
    assert torch.equal(copy(images(SMALL)), net(images(SMALL)))
    assert cloudpickle.loads(cloudpickle.dumps(INTERVENTIONS[intervention])).what == INTERVENTIONS[intervention].what


@pytest.mark.parametrize("variant", [*ARCHITECTURES.values(), *INTERVENTIONS.values()])
def test_every_variant_names_its_source(variant: object) -> None:
    assert len(variant.source) > 3


def test_the_simplified_network_is_the_articles() -> None:
    with torch.device("meta"):
        net = models.build("simplified", "baseline", 1001, 224, seed=0)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [32, 64, 64, 128, 128, *[256] * 5, 512, 512]
    assert [conv.kernel_size[0] for conv in convs] == [7] + [5] * 11
    assert net.map_shape == (512, 7, 7)
    assert sum(isinstance(m, L2Pool2d) for m in net.modules()) == 5
    assert net.head.classifier.in_features == 512


@pytest.mark.parametrize(("intervention", "factor"), [("no_pooling", 49), ("x_pool", 7)])
def test_heads_without_full_pooling_have_that_many_times_the_weights(intervention: str, factor: int) -> None:
    with torch.device("meta"):
        base, changed = (models.build("simplified", name, 1001, 224, seed=0) for name in ("baseline", intervention))
    assert changed.head.classifier.weight.numel() == factor * base.head.classifier.weight.numel()


def test_rotate90_turns_images_counter_clockwise() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 3, 2, 2)
    turned = INTERVENTIONS["rotate90"].transform(image)
    assert turned[0, 0].tolist() == [[2, 4], [1, 3]]


def test_random_rotation_turns_each_image_by_itself_and_only_in_training() -> None:
    change = INTERVENTIONS["random_rotation"]
    image = torch.arange(12.0).reshape(1, 3, 2, 2).expand(64, 3, 2, 2)
    turned = change.augment(image, torch.Generator().manual_seed(0))
    corners = {int(value) for value in turned[:, 0, 0, 0]}
    assert corners == {0, 1, 2, 3}
    assert torch.equal(change.transform(image), image)
    again = change.augment(image, torch.Generator().manual_seed(0))
    assert torch.equal(turned, again)


def head(intervention: str) -> nn.Module:
    return models.build(SMALL, intervention, 10, 56, seed=0).head.eval()


def test_what_each_head_can_know_of_position() -> None:
    generator = torch.Generator().manual_seed(0)
    last_map = torch.rand(3, 48, 7, 7, generator=generator)
    columns = torch.randperm(7, generator=generator)
    column_shuffled = last_map[..., columns]
    row_shuffled = last_map[:, :, columns]

    def forgets(intervention: str, changed: torch.Tensor) -> bool:
        return torch.allclose(head(intervention)(changed), head(intervention)(last_map), atol=1e-5)

    assert forgets("baseline", column_shuffled)
    assert forgets("baseline", row_shuffled)
    assert forgets("x_pool", column_shuffled)
    assert not forgets("x_pool", row_shuffled)
    assert not forgets("no_pooling", column_shuffled)
    assert not forgets("no_pooling", row_shuffled)


def test_l2_pooling_is_the_root_mean_square_with_a_finite_gradient_at_zero() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    assert L2Pool2d()(x).item() == pytest.approx((30 / 4) ** 0.5, rel=1e-4)
    zero = torch.zeros(1, 1, 2, 2, requires_grad=True)
    L2Pool2d()(zero).backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize(("architecture", "intervention"), [("simplfied", "baseline"), (SMALL, "rotat90")])
def test_unknown_names_are_told_with_the_nearest_and_all_allowed(architecture: str, intervention: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean '(simplified|rotate90)'") as error:
        models.build(architecture, intervention, 10, 56, seed=0)
    assert "Allowed: " in str(error.value)
