"""Architectures and interventions are what they claim, reproducible, and say where they come from."""

import cloudpickle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import models
from models.architectures import ARCHITECTURES
from models.convnet import L2Pool2d
from models.heads import ChannelGroups, MaskedAverage
from models.interventions import INTERVENTIONS

SMALL = "simplified_mini"


def images(number: int = 2) -> torch.Tensor:
    return torch.randn(number, 3, 56, 56, generator=torch.Generator().manual_seed(0))


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
    assert torch.equal(copy(images()), net(images()))
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


def test_a_left_right_flip_after_a_quarter_turn_is_a_top_bottom_flip_before_it() -> None:
    images = torch.randn(2, 3, 5, 5)
    intervention = INTERVENTIONS["rotate90_then_flip"]
    assert intervention.flip == "top_bottom"
    assert torch.equal(intervention.transform(images.flip(-2)), torch.rot90(images, 1, dims=(-2, -1)).flip(-1))


def test_random_rotation_turns_each_image_by_itself_and_only_in_training() -> None:
    change = INTERVENTIONS["random_rotation"]
    image = torch.arange(12.0).reshape(1, 3, 2, 2).expand(64, 3, 2, 2)
    turned = change.augment(image, torch.Generator().manual_seed(0))
    corners = {int(value) for value in turned[:, 0, 0, 0]}
    assert corners == {0, 1, 2, 3}
    assert torch.equal(change.transform(image), image)
    again = change.augment(image, torch.Generator().manual_seed(0))
    assert torch.equal(turned, again)


@pytest.fixture(scope="module")
def heads() -> dict[str, nn.Module]:
    """Heads for maps of 48 x 7 x 7."""
    return {
        intervention: models.build(SMALL, intervention, 10, 56, seed=0).head.double().eval()
        for intervention in ("baseline", "x_pool", "no_pooling")
    }


def random_map(seed: int) -> torch.Tensor:
    return torch.rand(2, 48, 7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SEEDS, PLACES = st.integers(0, 2**31), st.integers(0, 6)


@given(SEEDS, st.permutations(range(49)))
def test_gap_forgets_all_positions_and_no_pooling_none(heads, seed: int, order: list[int]) -> None:
    last_map = random_map(seed)
    shuffled = last_map.flatten(2)[..., order].reshape(last_map.shape)
    assert torch.allclose(heads["baseline"](shuffled), heads["baseline"](last_map))
    unmoved = order == sorted(order)
    assert torch.allclose(heads["no_pooling"](shuffled), heads["no_pooling"](last_map)) == unmoved


@given(SEEDS, st.lists(st.permutations(range(7)), min_size=7, max_size=7))
def test_x_pool_forgets_columns_within_each_row(heads, seed: int, orders: list[list[int]]) -> None:
    last_map = random_map(seed)
    shuffled = torch.stack([last_map[:, :, row, order] for row, order in enumerate(orders)], dim=2)
    assert torch.allclose(heads["x_pool"](shuffled), heads["x_pool"](last_map))


@given(SEEDS, PLACES, PLACES)
def test_x_pool_keeps_rows_apart(heads, seed: int, first: int, second: int) -> None:
    last_map = random_map(seed)
    order = list(range(7))
    order[first], order[second] = second, first
    pool = heads["x_pool"].pool
    assert torch.equal(pool(last_map[:, :, order]), pool(last_map)[:, :, order])
    swapped = heads["x_pool"](last_map[:, :, order])
    assert torch.allclose(swapped, heads["x_pool"](last_map)) == (first == second)


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


def test_inception_has_true_5x5_kernels_in_its_5x5_branches() -> None:
    with torch.device("meta"):
        net = models.build("inception_v1", "baseline", 1001, 224, seed=0)
    branches = [m for name, m in net.named_modules() if name.endswith("branch3.1.conv")]
    assert len(branches) == 9
    assert {conv.kernel_size for conv in branches} == {(5, 5)}
    assert (branches[-1].in_channels, branches[-1].out_channels) == (48, 128)  # the article's mixed_5c


@pytest.mark.parametrize(
    ("architecture", "names", "kernel"),
    [
        ("resnet50", ["features.layer4.2.conv2", "features.layer4.1.conv2", "features.layer4.0.conv2"], 3),
        ("vgg19", ["features.34", "features.32"], 3),
        ("alexnet", ["features.10", "features.8"], 3),
    ],
)
def test_torchvisions_networks_name_their_last_convs(architecture: str, names: list[str], kernel: int) -> None:
    with torch.device("meta"):
        net = models.build(architecture, "baseline", 1001, 224, seed=0)
    assert list(net.final_convs) == names
    assert {net.get_submodule(name).kernel_size for name in names} == {(kernel, kernel)}


def test_no_pooling_of_vgg_removes_the_pools_in_front_of_its_hidden_layers() -> None:
    with torch.device("meta"):
        base, changed = (models.build("vgg19", name, 1001, 224, seed=0) for name in ("baseline", "no_pooling"))
    assert base.head.classifier[0].in_features == 512 * 7 * 7
    assert changed.head.classifier[0].in_features == 512 * 14 * 14


@pytest.mark.parametrize("head", ["", "no_pooling_"])
@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_is_changed_in_every_conv(mode: str, head: str) -> None:
    net = models.build(SMALL, f"{head}padding_{mode}", 10, 56, seed=0)
    assert isinstance(net.head.get_submodule("pool"), nn.Identity) == bool(head)
    assert {m.padding_mode for m in net.modules() if isinstance(m, nn.Conv2d)} == {mode}
    flat = torch.ones(1, 3, 56, 56)
    features = net.eval().features(flat)
    assert torch.allclose(features, features[..., :1, :1].expand_as(features), atol=1e-5)  # nothing tells the border


def test_coord_conv_adds_row_and_column_to_two_convs() -> None:
    net = models.build(SMALL, "coord_conv", 10, 56, seed=0)
    convs = {name: m.in_channels for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert convs["features.3b.conv"] == 48 + 2
    assert convs["features.3a.conv"] == 24 + 2
    assert convs["features.2a.conv"] == 16


def test_blur_pool_replaces_every_subsampling_pool_and_keeps_the_map() -> None:
    base, blurred = (models.build(SMALL, name, 10, 56, seed=0) for name in ("baseline", "blur_pool"))
    assert not any(isinstance(m, L2Pool2d) for m in blurred.modules())
    assert blurred.map_shape == base.map_shape


def test_masks_weigh_positions_and_keep_masks_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    pooled = MaskedAverage(3, 7, 7)(torch.rand(2, 5, 7, 7, generator=generator))
    assert pooled.shape == (2, 5, 3)
    assert not torch.allclose(pooled[..., 0], pooled[..., 1])
    with torch.no_grad():
        open_masks = MaskedAverage(1, 7, 7)
        open_masks.masks.fill_(50.0)  # a sigmoid of 1: plain global average pooling
        x = torch.rand(2, 5, 7, 7, generator=generator)
        assert torch.allclose(open_masks(x)[..., 0], x.mean(dim=(2, 3)))


def test_channel_groups_see_their_own_channels_only() -> None:
    groups = ChannelGroups(48, 7, 7, groups=16, units=64).eval()
    x = torch.rand(2, 48, 7, 7, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :3] += 1
    before, after = groups(x), groups(changed)
    assert (before != after).any(dim=0).reshape(16, 64).any(dim=1).tolist() == [True] + [False] * 15
    assert before.min() == 0 < before.max()  # a ReLU is the last


def test_layers_in_front_of_the_classifier_are_the_articles() -> None:
    """Batch norm and a nonlinearity on all but the last, and GoogLeNet's dropout."""
    pool = models.build(SMALL, "max_pool_fc4096", 10, 56, seed=0).head.get_submodule("pool")
    assert [type(layer) for layer in pool.children()][2:] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    dropout = models.build("inception_v1", "no_pooling", 10, 64, seed=0).head.get_submodule("classifier.0")
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.2


def test_shuffled_labels_are_the_same_labels_in_another_order() -> None:
    labels = torch.arange(100)
    shuffled = INTERVENTIONS["shuffled_labels"].relabel(labels, torch.Generator().manual_seed(0))
    assert sorted(shuffled.tolist()) == labels.tolist()
    assert not torch.equal(shuffled, labels)


def test_heads_that_tell_positions_apart_are_excluded_where_there_is_one_position() -> None:
    with torch.device("meta"):
        tiny = models.build("resnet50", "baseline", 10, 32, seed=0)
    assert tiny.map_shape == (2048, 1, 1)
    reason = INTERVENTIONS["no_pooling"].meaningless(tiny)
    assert reason == "the last map is 1x1: there are no positions to tell apart"
    assert INTERVENTIONS["rotate90"].meaningless(tiny) is None


def test_findings_are_the_articles() -> None:
    def found(intervention: str, architecture: str) -> list[str]:
        return [INTERVENTIONS[intervention].finding(architecture, position) for position in (1, 2)]

    assert found("x_pool", "simplified") == ["none", "horizontal"]
    assert found("no_pooling", "vgg19") == ["horizontal", "unknown"]
    assert found("baseline", "alexnet") == ["none", "unknown"]
    assert found("xy_pool", "simplified") == ["unknown", "unknown"]
