"""Bytes of others, harmed at random: convolutions or one line that says what is wrong, and nothing is ever run.

Each run tries 100 inputs a test, 700 in all (`FUZZ_EXAMPLES=1500 make test`: 10,500).
"""

import json
import os
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.readers.convs import final_convs, spatial_convs
from analysis.readers.inert import Machine
from analysis.readers.stored import BUILDERS

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

STATE = {"a.weight": torch.ones(2, 2, 3, 3), "a.bias": torch.zeros(2), "b.weight_g": torch.ones(2, 1, 1, 1)}
STATE |= {"b.weight_v": torch.ones(2, 2, 2, 2)}
WATCHED = ("open", "os.system", "subprocess.Popen", "exec", "compile", "import")


@pytest.fixture(scope="module")
def ran() -> list[str]:
    """What Python runs on behalf of a pickle, as its audit hook tells, while `loud` is in the list."""
    events: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if events and events[0] == "loud" and event in (*WATCHED, "pickle.find_class"):
            events.append(f"{event} {arguments[:1]}")

    sys.addaudithook(hook)  # which can't be taken off again, and does nothing outside of this module
    return events


def tried(file: Path) -> None:
    """Read all that can be read; a refusal is one line that names the file or the layer."""
    try:
        final_convs(file)
        for conv in spatial_convs(file):
            assert conv.layer.isprintable()
            if conv.skipped is None:
                try:
                    assert conv.read().ndim == 4
                except ValueError as error:
                    assert "\n" not in str(error)  # noqa: PT017
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017


def harmed(content: bytes, draw: Callable[..., Any]) -> bytes:
    """A file cut, lengthened, or with some of its bytes changed, rather those at its beginning."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(result)) | st.integers(0, min(len(result), 200)))
        how = draw(st.sampled_from(["flip", "flip", "cut", "insert", "remove"]))
        if how == "flip" and where < len(result):
            result[where] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del result[where:]
        elif how == "insert":
            result[where:where] = draw(st.binary(min_size=1, max_size=12))
        else:
            del result[where : where + draw(st.integers(1, 12))]
    return bytes(result)


def saved(legacy: bool) -> bytes:
    buffer = BytesIO()
    torch.save({"state_dict": STATE, "epoch": 1}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


ZIPPED, LEGACY, SAFE = (
    saved(False),
    saved(True),
    safetensors.torch.save(STATE, {"final_convs": '["a"]', "format": "pt"}),
)
PICKLED = zipfile.ZipFile(BytesIO(ZIPPED)).read("archive/data.pkl")

NAMES = ["os system", "builtins eval", "builtins getattr", "posix system", "operator attrgetter", "a b", "torch Size"]
NAMES += [name.replace("._", " _", 1) if "._" in name else name.replace(".", " ", 1) for name in BUILDERS]
PIECES = st.sampled_from(
    [
        *(f"c{name.replace(' ', chr(10), 1)}\n".encode() for name in NAMES),
        *(f"({name}".encode() for name in "N])}"),
        *(b"i" + name.replace(" ", "\n", 1).encode() + b"\n" for name in NAMES[:4]),
        *(opcode.code.encode("latin1") for opcode in pickletools.opcodes if opcode.arg is None),
        b"K\x01", b"K\x05", b"I7\n", b"q\x00", b"h\x00", b"\x82\x01", b"X\x01\x00\x00\x00a", b"\x8c\x06system",
        b"\x8c\x02os", b"\x8c\x07storage", b"C\x04\x00\x00\x80\x3f", b"G?\xf0\x00\x00\x00\x00\x00\x00",
        b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00", b"J\xff\xff\xff\xff", b"P1\n",
        b"B\xff\xff\xff\xff", b"r\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f",
    ]
)  # fmt: skip


@quick
@given(pieces=st.lists(PIECES, max_size=40))
def test_any_program_of_a_pickle_is_a_value_or_an_error_and_runs_nothing(ran: list[str], pieces: list[bytes]) -> None:
    content = b"\x80\x04" + b"".join(pieces) + b"."
    ran[:] = ["loud"]
    try:
        Machine(BUILDERS, lambda identity: identity).load(BytesIO(content))
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError):
        pass
    finally:
        told, ran[:] = ran[1:], []
    assert not [event for event in told if "beartype" not in event and "jaxtyping" not in event]


@quick
@given(data=st.data())
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle in a zip", "safetensors"])
def test_harmed_checkpoints_are_read_or_refused(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    file = tmp_path / "net.bin"
    if kind == "pickle in a zip":
        with zipfile.ZipFile(BytesIO(ZIPPED)) as old, zipfile.ZipFile(file, "w") as new:
            for name in old.namelist():
                new.writestr(name, harmed(PICKLED, data.draw) if name.endswith("data.pkl") else old.read(name))
    else:
        file.write_bytes(harmed({"zip": ZIPPED, "legacy": LEGACY, "safetensors": SAFE}[kind], data.draw))
    tried(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
LENGTHS = st.lists(st.integers(-2, 4) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30]), max_size=6)
HEADER = st.dictionaries(
    st.sampled_from(["a.weight", "b.weight", "b.bias", "b.weight_g", "b.weight_v", "\n", "__metadata__"]),
    JSON
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "F8_E4M3", "I8", "F4", ""]) | JSON,
            "shape": LENGTHS | JSON,
            "data_offsets": LENGTHS | st.just([0, 144]) | JSON,
        }
    ),
    max_size=4,
)


@quick
@given(header=HEADER | JSON, length=st.none() | st.integers(0, 2**64 - 1))
def test_any_safetensors_header_is_read_or_refused(tmp_path: Path, header: Any, length: int | None) -> None:
    written = json.dumps(header).encode()
    file = tmp_path / "net.safetensors"
    file.write_bytes((len(written) if length is None else length).to_bytes(8, "little") + written + bytes(144))
    tried(file)


FILES = st.sampled_from(["net.safetensors", "m.index.json", "..", ".", "", "/", "\0", "a/b", "no"])
INDEX = st.fixed_dictionaries({"weight_map": JSON | st.dictionaries(st.text(max_size=3), FILES | JSON)})


@quick
@given(index=JSON | INDEX, cut=st.integers(0, 30))
def test_any_index_is_read_or_refused(tmp_path: Path, index: Any, cut: int) -> None:
    (tmp_path / "net.safetensors").write_bytes(SAFE)
    written = json.dumps(index).encode()
    (tmp_path / "m.index.json").write_bytes(written[: max(0, len(written) - cut)])
    tried(tmp_path / "m.index.json")


@quick
@given(data=st.data())
def test_harmed_onnx_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    from tests.analysis.readers.test_onnx_file import node, saved

    whole = tmp_path / "whole.onnx"
    if not whole.exists():
        saved(
            whole,
            [node("Conv", "a.weight"), node("ConvTranspose", "a.weight")],
            {"a.weight": STATE["a.weight"].numpy()},
        )
        assert onnx.load(whole)
    (tmp_path / "net.onnx").write_bytes(harmed(whole.read_bytes(), data.draw))
    tried(tmp_path / "net.onnx")


def test_the_hook_would_tell(ran: list[str]) -> None:
    ran[:] = ["loud"]
    pickle.loads(b"cbuiltins\neval\n\x8c\x011\x85R.")
    Path(os.devnull).open().close()
    told, ran[:] = ran[1:], []
    assert any("find_class" in event for event in told)
    assert any("open" in event for event in told)
