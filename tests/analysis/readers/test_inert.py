"""Hostile pickles: nothing of them is run, and none takes the machine's memory or time."""

import io
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.readers.convs import spatial_convs
from analysis.readers.inert import Global, Machine, Standin
from analysis.readers.stored import BUILDERS

PROTO = b"\x80\x04"


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def loaded(content: bytes, persistent: Callable[[Any], Any] = lambda identity: identity) -> Any:
    return Machine(BUILDERS, persistent).load(io.BytesIO(content))


def in_zip(file: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        for name, data in storages.items():
            archive.writestr(f"net/data/{name}", data)
    return file


TOUCH = text("ran")  # the file that every one of these would make
RUNS = {
    "reduce by name": b"cpathlib\nPath\n\x8c\x03ran\x85Rcpathlib\nPath.touch\n\x8c\x03ran\x85R.",
    "system": b"cposix\nsystem\n\x8c\x09touch ran\x85R.",
    "open": b"cbuiltins\nopen\n\x8c\x03ran\x8c\x01w\x86R.",
    "eval": b"cbuiltins\neval\n" + text("open('ran', 'w')") + b"\x85R.",
    "stack global": PROTO + text("builtins") + text("open") + b"\x93\x8c\x03ran\x8c\x01w\x86R.",
    "dotted global": PROTO + text("builtins") + text("open.__call__") + b"\x93\x8c\x03ran\x8c\x01w\x86R.",
    "inst": b"(" + TOUCH + text("w") + b"ibuiltins\nopen\n.",
    "obj": b"(cbuiltins\nopen\n" + TOUCH + text("w") + b"o.",
    "newobj": PROTO + b"cbuiltins\nopen\n" + TOUCH + text("w") + b"\x86\x81.",
    "newobj ex": PROTO + b"cbuiltins\nopen\n" + TOUCH + text("w") + b"\x86}\x92.",
    "getattr": b"cbuiltins\ngetattr\ncbuiltins\n__dict__\n\x8c\x04open\x86R\x8c\x03ran\x8c\x01w\x86R.",
    "chain": b"coperator\nmethodcaller\n\x8c\x05touch\x85Rcpathlib\nPath\n\x8c\x03ran\x85R\x85R.",
    "build": b"cpathlib\nPath\n)\x81}" + text("__setstate__") + b"cbuiltins\nopen\ns" + b"b" + TOUCH + b"b.",
    "build of slots": b"cpathlib\nPath\n)\x81N}" + text("__reduce__") + b"cbuiltins\nopen\ns\x86b.",
    "extension": PROTO + b"\x82\x01" + TOUCH + b"\x85R.",
    "import": b"cran_module\nvalue\n.",
    "set item": b"cos\nenviron\n)R\x8c\x03ran\x8c\x01ws.",
    "tensor class": b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nopen\nN(\x8c\x03ran\x8c\x01wtNtR.",
    "of itself": b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR.",
    "parameter": b"ctorch._utils\n_rebuild_parameter\n(cbuiltins\nopen\n\x8c\x03ran\x85RNNtR.",
    "dict factory": b"ccollections\ndefaultdict\ncbuiltins\nopen\n\x85R\x8c\x03ran\x8c\x01ws.",
    "codec": b"c_codecs\nencode\n\x8c\x03ran\x8c\x04rot1\x86R.",
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
def test_nothing_is_run_or_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, container: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ran_module.py").write_text("open('ran', 'w')")
    file = tmp_path / "net.pt"
    pickled = RUNS[name] if RUNS[name].startswith(b"\x80") else b"\x80\x02" + RUNS[name]
    if container == "zip":
        in_zip(file, pickled)
    elif container == "legacy":
        system = pickle.dumps({"little_endian": True}, 2)
        opening = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + system
        file.write_bytes(opening + pickled + b"\x80\x02].")
    else:
        file.write_bytes(pickled)
    with pytest.raises(ValueError, match=r"net\.pt"):
        spatial_convs(file)
    assert not (tmp_path / "ran").exists()
    if name not in ("codec", "of itself"):  # which end with an error
        assert isinstance(loaded(RUNS[name]), Standin | Global | dict)


def test_classes_and_calls_are_kept_as_names() -> None:
    value = loaded(RUNS["system"])
    assert (value.of, value.args) == ("posix.system", ("touch ran",))
    assert loaded(RUNS["import"]) == Global("ran_module.value")


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return PROTO + opening * depth + closing * depth + b"."


DEEP = 5_000  # five times what Python lets recurse
BOMBS = {
    "nested tuples as a key": PROTO + b"}N" + b"\x85" * DEEP + b"Ns.",
    "a tree of tuples as a key": PROTO + b"}N" + b"2\x86" * 200 + b"Ns.",
    "nested lists": nested(DEEP, b"]", b"a")[:-2] + b".",
    "nested dicts": PROTO + b"}N" * DEEP + b"N" + b"s" * DEEP + b".",
    "dicts that hold each other": PROTO + b"}q\x00" + text("a") + b"h\x00s.",
    "a tree of dicts": PROTO + b"}" + 99 * (b"q\x00}" + text("a") + b"h\x00s" + text("b") + b"h\x00s") + b".",
    "a memo's number": PROTO + b"Nr\xff\xff\xff\xff.",
    "a string's length": PROTO + b"X\xff\xff\xff\x7f.",
    "bytes' length": PROTO + b"\x8e" + struct.pack("<Q", 2**40) + b".",
    "a frame's length": PROTO + b"\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a whole number's length": PROTO + b"\x8b\xff\xff\xff\x7f.",
    "a number of many digits": PROTO + b"L" + b"9" * 100_000 + b"L\n.",
    "marks": PROTO + b"(" * DEEP + b".",
    "a module in itself": PROTO + b"cm\nNet\n)\x81q\x00}" + text("_modules") + b"h\x00sb.",
    "out-of-band buffers": PROTO + b"\x97.",
    "a persistent id in words": b"Pos.system\n.",
    "a stack that is empty": PROTO + b"R.",
    "no end": PROTO + b"N",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("container", ["zip", "plain"])
def test_bombs_end_in_one_line_and_soon(tmp_path: Path, name: str, container: str) -> None:
    file = tmp_path / "net.pt"
    began = time.perf_counter()
    if container == "zip":
        in_zip(file, BOMBS[name])
    else:
        file.write_bytes(BOMBS[name])
    with pytest.raises(ValueError, match=r"net\.pt") as refused:
        spatial_convs(file)
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - began < 5


def tensor(storage: tuple[Any, ...], offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"c.weight": a tensor}, with the numbers as given."""

    def number(value: int) -> bytes:
        data = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + data

    kind, key, count = storage
    identity = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"
    lengths = b"(" + b"".join(map(number, size)) + b"t" + b"(" + b"".join(map(number, stride)) + b"t"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + number(offset) + lengths + b"\x89)tR"
    return b"\x80\x02}" + text("c.weight") + made + b"s."


FLOATS = (b"FloatStorage", "0", 300)


@pytest.mark.parametrize(
    "pickled",
    [
        tensor((b"FloatStorage", "0", 2**60), 0, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor((b"FloatStorage", "0", -1), 0, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor((b"FloatStorage", "../0", 300), 0, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor((b"NoStorage", "1", 300), 0, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor((b"FloatTensor", "0", 300), 0, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor(FLOATS, 1, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor(FLOATS, -1, (4, 3, 5, 5), (75, 25, 5, 1)),
        tensor(FLOATS, 0, (4, 3, 5, 6), (75, 25, 5, 1)),
        tensor(FLOATS, 0, (4, 3, 5, 5), (75, 25, 5, -1)),
        tensor(FLOATS, 0, (-4, -3, 5, 5), (75, 25, 5, 1)),
        tensor(FLOATS, 0, (4, 3, 5, 5), (75, 25, 5)),
        tensor(FLOATS, 0, (1,) * 70, (1,) * 70),
        tensor(FLOATS, 0, (2**62, 2**62, 2, 2), (0, 0, 1, 2**62)),
    ],
)
def test_a_tensor_that_is_not_in_its_file_is_refused(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        spatial_convs(in_zip(tmp_path / "net.pt", pickled, **{"0": bytes(1200)}))


def test_few_numbers_repeated_without_end_are_not_filled_in(tmp_path: Path) -> None:
    pickled = tensor(FLOATS, 0, (2**31, 2**31, 3, 3), (0, 0, 3, 1))
    (conv,) = spatial_convs(in_zip(tmp_path / "net.pt", pickled, **{"0": bytes(1200)}))
    with pytest.raises(ValueError, match="of which the file holds 300"):
        conv.read()


def test_the_hand_made_tensor_itself_is_read(tmp_path: Path) -> None:
    weights = torch.arange(300.0)
    pickled = tensor(FLOATS, 0, (4, 3, 5, 5), (75, 25, 5, 1))
    (conv,) = spatial_convs(in_zip(tmp_path / "net.pt", pickled, **{"0": weights.numpy().tobytes()}))
    assert torch.equal(conv.read(), weights.reshape(4, 3, 5, 5))


def test_a_storage_packed_a_thousandfold_is_refused_when_it_is_read(tmp_path: Path) -> None:
    pickled = tensor((b"FloatStorage", "0", 10**7), 0, (1000, 1000, 2, 5), (10**4, 10, 5, 1))
    with zipfile.ZipFile(tmp_path / "net.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/data/0", bytes(4 * 10**7))
    (conv,) = spatial_convs(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="compressed more than weights can be"):
        conv.read()
