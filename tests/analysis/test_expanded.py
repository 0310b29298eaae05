"""Two convolutions as one."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import conv2d
from typer.testing import CliRunner

from analysis.expanded import expand, expanded
from analysis.layers import chosen_convs
from sweep.cli import app


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_expanded_kernels_do_what_both_convolutions_do() -> None:
    first, second, images = random(6, 3, 5, 5), random(4, 6, 3, 7), random(2, 3, 15, 15)
    kernels = expand(second, first)
    assert kernels.shape == (4, 3, 7, 11)
    assert torch.allclose(conv2d(images, kernels), conv2d(conv2d(images, first), second))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    weights = {"a": (6, 3, 5, 5), "b": (8, 6, 5, 5), "point": (6, 8, 1, 1), "c": (8, 6, 3, 3), "line": (6, 6, 3)}
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file({f"{name}.weight": random(*shape).float() for name, shape in weights.items()}, path)
    return path


def test_a_layer_is_scored_and_drawn_through_the_one_before_it(file: Path, tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    command = ["analyze", str(file), "--layer", "b", "--through", "a", "--figure", str(figure)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert figure.stat().st_size > 0
    second, first = chosen_convs(file, ["b", "a"])
    both = expanded(second, first)
    assert (both.layer, both.shape, both.skipped) == ("b through a", (8, 3, 9, 9), None)
    assert torch.allclose(both.read(), expand(second.read(), first.read()))


def test_a_pointwise_convolution_before_keeps_the_kernels_size(file: Path) -> None:
    second, first = chosen_convs(file, ["c", "point"])
    assert expanded(second, first).shape == (8, 8, 3, 3)


@pytest.mark.parametrize(
    ("second", "first", "complaint"),
    [
        ("b", "c", "b takes 6 channels and c gives 8; name the convolution right before it"),
        ("b", "line", "line can't be expanded"),
    ],
)
def test_what_does_not_follow_on_is_refused(file: Path, second: str, first: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        expanded(*chosen_convs(file, [second, first]))


def test_through_needs_the_layer_after_it(file: Path) -> None:
    with pytest.raises(ValueError, match="--through a needs --layer"):
        CliRunner().invoke(app, ["analyze", str(file), "--through", "a"], catch_exceptions=False)
