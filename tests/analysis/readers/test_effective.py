"""What a file keeps is not always what a layer works with: weights are compared with those of PyTorch's own modules."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from analysis.readers.conv import Conv
from analysis.readers.convs import spatial_convs

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated", "ignore:.*spectral_norm.*is deprecated")


def conv(groups: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 8, (5, 3), groups=groups)


def shaken(layer: nn.Module) -> nn.Module:
    """With all its parameters changed, so that nothing is as it was made."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(torch.randn(parameter.shape) + 0.1)
    return layer.eval()


def read(folder: Path, state: dict[str, torch.Tensor]) -> list[Conv]:
    torch.save(state, folder / "net.pt")
    return spatial_convs(folder / "net.pt")


def only(folder: Path, layer: nn.Module) -> Conv:
    (found,) = read(folder, {f"block.0.{name}": value for name, value in layer.state_dict().items()})
    assert found.layer == "block.0"
    return found


@pytest.mark.parametrize(
    "made",
    [
        *(lambda dim=dim: weight_norm(conv(), dim=dim) for dim in (0, 1, 2, 3, None)),
        *(lambda dim=dim: parametrizations.weight_norm(conv(), dim=dim) for dim in (0, 1, 2, 3, -1)),
        lambda: weight_norm(conv(groups=2)),
        lambda: spectral_norm(conv()),
        lambda: spectral_norm(conv(), dim=1),
        lambda: parametrizations.spectral_norm(conv()),
        lambda: prune.l1_unstructured(conv(), "weight", 0.5),
        lambda: prune.ln_structured(conv(), "weight", 2, n=2, dim=1),
    ],
)
def test_the_effective_weight_is_computed(tmp_path: Path, made: Callable[[], nn.Conv2d]) -> None:
    layer = shaken(made())
    layer(torch.zeros(1, 6, 9, 9))  # old hooks compute the weight before each forward pass
    found = only(tmp_path, layer)
    assert found.skipped is None
    assert found.shape == tuple(layer.weight.shape)
    assert torch.allclose(found.read(), layer.weight, rtol=1e-5, atol=1e-6)


def test_old_spectral_norm_without_its_second_vector(tmp_path: Path) -> None:
    weight, u = torch.randn(4, 3, 5, 5), nn.functional.normalize(torch.randn(4), dim=0)
    (found,) = read(tmp_path, {"a.weight_orig": weight, "a.weight_u": u})
    v = nn.functional.normalize(weight.flatten(1).T @ u, dim=0)
    assert torch.allclose(found.read(), weight / (u @ weight.flatten(1) @ v), rtol=1e-5)


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(1))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.shift


def parametrized(*kinds: Callable[[], nn.Module]) -> nn.Conv2d:
    layer = conv()
    for kind in kinds:
        parametrize.register_parametrization(layer, "weight", kind())
    return layer


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: parametrized(Doubled), "a function that isn't in the file"),
        (lambda: parametrized(Shifted), r"from 0\.shift"),
        (lambda: parametrized(Doubled, Shifted), r"from 1\.shift"),
        (lambda: parametrizations.orthogonal(conv()), "by an unknown rule|a function that isn't"),
    ],
)
def test_other_parametrizations_are_not_scored(tmp_path: Path, made: Callable[[], nn.Conv2d], reason: str) -> None:
    assert re.search(reason, str(only(tmp_path, made()).skipped))


WEIGHT = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight_v": WEIGHT}, "from weight_v"),
        ({"weight_orig": WEIGHT}, "from weight_orig"),
        ({"weight_orig": WEIGHT, "weight_mask": WEIGHT[:1]}, "another shape"),
        ({"weight_orig": WEIGHT, "weight_mask": WEIGHT, "weight_u": torch.ones(8)}, "an unknown rule"),
        ({"weight": WEIGHT, "weight_mask": WEIGHT}, "from weight, weight_mask"),
        ({"weight_v": WEIGHT, "weight_g": WEIGHT[:, :, :1, :1]}, "which isn't PyTorch's"),
        ({"weight_v": WEIGHT, "weight_g": torch.ones(8)}, "which isn't PyTorch's"),
        ({"weight_orig": WEIGHT, "weight_u": torch.ones(7)}, "don't fit"),
        ({"weight": WEIGHT, "weight_scale": torch.ones(1, 4, 1, 1)}, "quantised with scales"),
    ],
)
def test_parts_that_do_not_make_a_weight_are_told(tmp_path: Path, state: dict[str, torch.Tensor], reason: str) -> None:
    (found,) = read(tmp_path, {f"a.{name}": value for name, value in state.items()})
    assert found.layer == "a"
    assert reason in str(found.skipped)


def test_masks_scales_and_gains_beside_a_weight_take_part(tmp_path: Path) -> None:
    mask = (WEIGHT > 0).float()
    gain = torch.rand(8, 1, 1, 1) + 0.5
    scale = torch.rand(8)
    state = {"a.weight": WEIGHT, "a.mask": mask, "b.weight": WEIGHT, "b.gain": gain}
    state |= {
        "c.weight": WEIGHT.to(torch.float8_e4m3fn),
        "c.weight_scale": scale,
        "d.weight": WEIGHT,
        "d.mask": mask[0],
    }
    a, b, c, d = read(tmp_path, state)
    assert torch.equal(a.read(), WEIGHT * mask)
    standard = nn.functional.batch_norm(WEIGHT.flatten(1)[None], None, None, gain.flatten(), training=True, eps=1e-6)
    assert torch.allclose(b.read(), standard.reshape(WEIGHT.shape) / 6, atol=1e-6)  # fan-in 36
    assert torch.equal(c.read(), WEIGHT.to(torch.float8_e4m3fn).float() * scale[:, None, None, None])
    assert torch.equal(d.read(), WEIGHT)
    (found,) = read(tmp_path, {"a.weight": WEIGHT, "a.mask": WEIGHT})
    with pytest.raises(ValueError, match="numbers other than 0 and 1"):
        found.read()


DOWN, UP = torch.randn(2, 4, 3, 3), torch.randn(8, 2, 1, 1)
MERGED = WEIGHT + 4 / 2 * torch.einsum("nr,rcyx->ncyx", UP[:, :, 0, 0], DOWN)


@pytest.mark.parametrize(
    ("base", "down", "up", "alpha"),
    [
        ("a.weight", "a.lora_down.weight", "a.lora_up.weight", "a.alpha"),
        ("a.base_layer.weight", "a.lora_A.default.weight", "a.lora_B.default.weight", "a.lora_alpha"),
        ("a.weight", "a.lora_A", "a.lora_B", "a.alpha"),
    ],
)
def test_lora_is_added_where_the_file_has_all_of_it(tmp_path: Path, base: str, down: str, up: str, alpha: str) -> None:
    state = {base: WEIGHT, down: DOWN, up: UP, alpha: torch.tensor(4.0)}
    (found,) = read(tmp_path, state)
    assert (found.layer, found.skipped) == ("a", None)
    assert torch.allclose(found.read(), MERGED, atol=1e-5)
    del state[alpha]
    (found,) = read(tmp_path, state)
    assert "alpha isn't in the file" in str(found.skipped)


def test_loras_parts_alone_and_other_adapters_are_not_scored(tmp_path: Path) -> None:
    parts = {"a.lora_down.weight": DOWN, "a.lora_up.weight": UP, "a.alpha": torch.tensor(4.0)}
    assert all("whose base weight isn't in this file" in str(found.skipped) for found in read(tmp_path, parts))
    for name in ("a.lora_mid.weight", "a.lora_up.other.weight"):
        (found,) = read(tmp_path, parts | {"a.weight": WEIGHT, name: UP})
        assert "unknown kind of LoRA" in str(found.skipped)
    (found,) = read(tmp_path, parts | {"a.weight": WEIGHT[:, :2]})
    assert "don't fit" in str(found.skipped)
    (found,) = read(tmp_path, {"a.weight": WEIGHT, "a.hada_w1_a": torch.ones(8, 2)})
    assert "unknown kind of adapter" in str(found.skipped)


def test_a_part_of_an_unknown_type_is_told(tmp_path: Path) -> None:
    content = safetensors.torch.save({"a.weight_v": WEIGHT, "a.weight_g": torch.ones(8, 1, 1, 1)})
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["a.weight_g"]["dtype"] = "G32"
    written = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    (tmp_path / "net.safetensors").write_bytes(content[:8] + written + content[8 + length :])
    (found,) = spatial_convs(tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match="holds G32 numbers"):
        found.read()


def test_layers_without_any_of_it_are_read_bit_for_bit(tmp_path: Path) -> None:
    state = {
        "weight": WEIGHT,
        "a.weight": WEIGHT,
        "gain": torch.ones(1),
        "a.gain": torch.ones(3),
        "b.mask": torch.ones(2),
    }
    found = read(tmp_path, state)
    assert [one.layer for one in found] == ["weight", "a"]
    assert all(torch.equal(one.read(), WEIGHT) for one in found)
