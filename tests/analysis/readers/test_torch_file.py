"""Files of torch.save and pickle with anything beside the weights: the weights are read, nothing is built or run."""

import argparse
import collections
import datetime
import decimal
import functools
import pathlib
import pickle
import random
import types
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from upath import UPath

from analysis.readers.convs import spatial_convs


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 4, 5), nn.Sequential(Block())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(x))


class Average:
    def __init__(self, module: nn.Module) -> None:
        self.module, self.decay = module, 0.9


class Attributes(dict):
    pass


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Net().state_dict()


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def require_those_weights(file: Path | UPath) -> None:
    convs = spatial_convs(file)
    assert [(conv.layer, conv.skipped) for conv in convs] == [("stem", None), ("blocks.0.conv", None)]
    assert all(torch.equal(conv.read(), weights()[f"{conv.layer}.weight"]) for conv in convs)


BESIDE = {
    "array": np.ones(3), "numbers": [np.float32(1), np.int64(1), np.bool_(1), np.str_("a")],
    "random states": [np.random.get_state(), np.random.default_rng(0).bit_generator.state, random.getstate()],  # noqa: NPY002
    "paths": argparse.Namespace(root=pathlib.PurePosixPath("/x")), "date": datetime.datetime(2026, 1, 1),
    "namespace": types.SimpleNamespace(a=1), "function": [functools.partial(max, 1), print, torch.nn.ReLU],
    "collections": [collections.Counter("ab"), collections.deque([1]), {1}, frozenset([1])],
    "types": [torch.float32, torch.device("cpu"), torch.Size([1]), np.dtype("f4")],
    "others": [1j, decimal.Decimal(1), uuid.UUID(int=1), slice(1), range(3), ..., b"a", bytearray(b"a"), 2**70, 0.5],
    "optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1),
}  # fmt: skip


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_lies_beside_the_weights_does_not_matter(tmp_path: Path, beside: str, zipped: bool) -> None:
    content = {"state_dict": weights(), "extra": BESIDE[beside]}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    require_those_weights(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "content",
    [
        net,
        lambda: nn.DataParallel(net()),
        lambda: {"model": net(), "optimizer": torch.optim.Adam(net().parameters())},
        lambda: {"model": net().double(), "ema": Average(net())},
        lambda: Attributes(weights()),
        lambda: {"epoch": 1, "model_state_dict": Attributes(weights())},
        lambda: collections.defaultdict(list, weights()),
        lambda: {name: nn.Parameter(value, requires_grad=False) for name, value in weights().items()},
        lambda: {name: value.numpy() for name, value in weights().items()},
        lambda: {"model": {name: np.asfortranarray(value.numpy()) for name, value in weights().items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules_and_dicts_of_all_kinds_are_read(tmp_path: Path, content, zipped: bool) -> None:
    torch.save(content(), tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    require_those_weights(tmp_path / "net.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    torch.save(weights(), tmp_path / "net.pt", pickle_protocol=protocol)
    require_those_weights(tmp_path / "net.pt")
    with (tmp_path / "plain.pkl").open("wb") as file:
        pickle.dump({"model": {name: value.numpy() for name, value in weights().items()}}, file, protocol)
    require_those_weights(tmp_path / "plain.pkl")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_program_is_read_and_a_frozen_one_named(tmp_path: Path) -> None:
    program = torch.jit.script(net().eval())
    program.save(str(tmp_path / "net.pt"))
    require_those_weights(tmp_path / "net.pt")
    torch.jit.freeze(program).save(str(tmp_path / "frozen.pt"))
    with pytest.raises(ValueError, match="frozen TorchScript"):
        spatial_convs(tmp_path / "frozen.pt")


def test_packed_anew_without_checksums_and_on_an_object_store(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "new.pt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    require_those_weights(tmp_path / "new.pt")
    damaged = (tmp_path / "net.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "net.pt") as archive:
        for info in archive.infolist():  # as torch.serialization.set_crc32_options(False) leaves them
            damaged = damaged.replace(info.CRC.to_bytes(4, "little"), bytes(4))
    place = UPath("memory://torch/net.pt")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(damaged)
    require_those_weights(place)


def test_the_highest_byte_first(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:
                width = 8 if len(data) == 8 else 4  # num_batches_tracked is an int64
                data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    require_those_weights(tmp_path / "big.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_views_transposes_and_expansions_have_their_own_numbers(tmp_path: Path, zipped: bool) -> None:
    base = torch.randn(10, 4, 3, 5)
    state = {
        "part.weight": base[5:],
        "turned.weight": base.transpose(2, 3),
        "last.weight": base.contiguous(memory_format=torch.channels_last),
        "one.weight": base[:1].expand(8, 4, 3, 5),
        "negative.weight": torch.complex(base, base).conj().imag,
        "sparse.weight": (base * (base > 0)).to_sparse(),
    }
    torch.save(state, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    for conv in spatial_convs(tmp_path / "net.pt"):
        assert conv.skipped is None
        assert torch.equal(conv.read(), state[f"{conv.layer}.weight"].to_dense())


def test_only_the_layer_that_is_asked_for_is_read(tmp_path: Path) -> None:
    state = {"big.weight": torch.zeros(256, 256, 3, 3), "small.weight": torch.ones(4, 4, 3, 3)}
    torch.save(state, tmp_path / "net.pt")
    content = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "net.pt").write_bytes(content.replace(bytes(1000), b"\xff" * 1000))  # the large one's bytes, now NaN
    small = next(conv for conv in spatial_convs(tmp_path / "net.pt") if conv.layer == "small")
    assert torch.equal(small.read(), state["small.weight"])
