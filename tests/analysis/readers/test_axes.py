"""The order of axes is what the file says or what shapes tell; where they differ, no layer is scored."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from analysis.readers.axes import layout_of, order_told_by
from analysis.readers.convs import spatial_convs

STEM, INNER = torch.randn(16, 3, 5, 5), torch.randn(32, 16, 3, 3)
TO = {"ncyx": (0, 1, 2, 3), "nyxc": (0, 2, 3, 1), "yxcn": (2, 3, 1, 0)}


def saved(folder: Path, state: dict[str, torch.Tensor], **metadata: str) -> Path:
    file = folder / "net.safetensors"
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, file, metadata or None)
    return file


@pytest.mark.parametrize(
    ("order", "metadata", "leaf"),
    [
        ("ncyx", {}, "weight"),
        ("ncyx", {"format": "pt"}, "weight"),
        ("ncyx", {"format": "np"}, "weight"),
        ("nyxc", {"format": "mlx"}, "weight"),
        ("nyxc", {}, "weight"),
        ("yxcn", {"format": "tf"}, "kernel"),
        ("yxcn", {"format": "flax"}, "kernel"),
        ("yxcn", {"format": "tf"}, "weight"),
        ("yxcn", {}, "weight"),
        ("yxcn", {}, "kernel"),
        ("ncyx", {"final_convs": "[]"}, "weight"),
    ],
)
def test_the_same_weights_are_read_from_every_order(tmp_path: Path, order: str, metadata, leaf: str) -> None:
    state = {f"a.{leaf}": STEM.permute(TO[order]), f"b.{leaf}": INNER.permute(TO[order]), "b.bias": torch.zeros(32)}
    convs = spatial_convs(saved(tmp_path, state, **metadata))
    assert [(conv.layer, conv.shape, conv.skipped) for conv in convs] == [
        ("a", tuple(STEM.shape), None),
        ("b", tuple(INNER.shape), None),
    ]
    assert torch.equal(convs[0].read(), STEM)
    assert torch.equal(convs[1].read(), INNER)


def test_names_with_slashes_are_those_of_tensorflow(tmp_path: Path) -> None:
    state = {"net/conv/kernel:0": STEM.permute(2, 3, 1, 0), "net/up/kernel:0": torch.zeros(4, 4, 8, 16)}
    state |= {"net/conv/bias:0": torch.zeros(16), "net/up/bias:0": torch.zeros(8)}
    conv, up = spatial_convs(saved(tmp_path, state, format="tf"))
    assert (conv.layer, conv.skipped) == ("net/conv", None)
    assert "its bias of 8" in str(up.skipped)


def test_a_file_that_says_one_order_and_shows_another_is_not_scored(tmp_path: Path) -> None:
    (conv,) = spatial_convs(saved(tmp_path, {"a.weight": INNER.permute(0, 2, 3, 1)}, format="pt"))
    assert "says pt, so its axes should be PyTorch's, but they look like MLX's" in str(conv.skipped)
    (conv,) = spatial_convs(saved(tmp_path, {"a.weight": INNER}, format="mlx"))
    assert "look like PyTorch's" in str(conv.skipped)


def test_a_file_of_torch_is_pytorchs_or_not_scored(tmp_path: Path) -> None:
    turned = INNER.permute(0, 2, 3, 1).contiguous()
    torch.save({"a.weight": turned}, tmp_path / "net.pt")
    (conv,) = spatial_convs(tmp_path / "net.pt")
    assert "says torch.save" in str(conv.skipped)
    torch.save({"a.weight": turned, "b.weight": STEM}, tmp_path / "net.pt")  # one odd layer may be just that
    assert [conv.skipped for conv in spatial_convs(tmp_path / "net.pt")] == [None, None]


def test_a_layer_that_differs_from_the_others_is_not_scored(tmp_path: Path) -> None:
    state = {"a.weight": STEM, "b.weight": INNER, "c.weight": INNER.permute(0, 2, 3, 1)}
    reasons = [conv.skipped for conv in spatial_convs(saved(tmp_path, state))]
    assert reasons[:2] == [None, None]
    assert "ambiguous" in str(reasons[2])


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((64, 3, 7, 7), "ncyx"),
        ((16, 16, 3, 3), "ncyx"),
        ((512, 512, 2, 2), "ncyx"),
        ((768, 3, 32, 32), "ncyx"),
        ((64, 7, 7, 32), "nyxc"),
        ((3, 3, 64, 128), "yxcn"),
        ((5, 5, 32, 32), "yxcn"),
        ((64, 3, 3, 3), None),
        ((3, 3, 3, 3), None),
        ((3, 3, 3, 64), None),
        ((64, 64, 1, 7), None),
        ((32, 3, 3, 7), None),
        ((64, 64, 1, 1), None),
        ((1, 1, 64, 64), None),
        ((0, 3, 3, 3), None),
        ((16, 16, 1, 9), None),
    ],
)
def test_what_a_shape_tells(shape: tuple[int, ...], order: str | None) -> None:
    assert order_told_by(shape) == order


def test_shapes_that_tell_nothing_are_read_as_pytorchs_unless_the_file_says_otherwise() -> None:
    assert layout_of(None, [(64, 3, 3, 3)], kernels=False).order == "ncyx"
    assert layout_of("mlx", [(64, 3, 3, 3)], kernels=False).order == "nyxc"
    assert layout_of(None, [(64, 3, 3, 3), (64, 3, 3, 64)], kernels=False).order == "nyxc"


def test_the_order_is_that_of_the_shards(tmp_path: Path) -> None:
    for name, value in (("a", STEM), ("b", INNER)):
        turned = {f"{name}.weight": value.permute(0, 2, 3, 1).contiguous()}
        safetensors.torch.save_file(turned, tmp_path / f"{name}.safetensors", {"format": "mlx"})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}}))
    assert [conv.shape for conv in spatial_convs(index)] == [tuple(STEM.shape), tuple(INNER.shape)]
