"""Identify a file by its bytes, since its name may say anything. Kinds that can't be read are named with a cure.

Their `read_by` is empty.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from upath import UPath

from analysis.readers.entry import called_damaged, one_line

ENDINGS = (
    ".safetensors", ".safetensors.index.json", ".bin.index.json", ".pt", ".pth", ".pth.tar", ".th", ".bin", ".ckpt",
    ".onnx",
)  # fmt: skip
"""The usual endings of the files that can be read."""

_START = 512
_SSTABLE = bytes.fromhex("57fb808b247547db")  # a TensorFlow checkpoint's index ends with this
_DOWNLOAD = "download the weights again"
_TO_SAFETENSORS = "convert it to safetensors"
_UNPACK = "unpack it and give the file inside"


@dataclass(frozen=True)
class Kind:
    """How a file is read, or what it is and what to do instead."""

    read_by: str
    what: str = ""
    cure: str = ""


TORCH, SAFETENSORS, INDEX, ONNX = (Kind(name) for name in ("torch", "safetensors", "index", "onnx"))
_FROM_KERAS = "export it to ONNX (tf2onnx), or save its weights as safetensors"
UNKNOWN = Kind("")
_ONNX_FIELDS = {bytes([field << 3 | 2]) for field in (2, 3, 4, 6, 7, 8, 14)} | {b"\x28"}  # what may follow its version
_STARTS: list[tuple[bytes, Kind]] = [
    (b"version https://git-lfs", Kind("", "a Git LFS pointer", "run `git lfs pull` to fetch the file")),
    (b"\x89HDF\r\n\x1a\n", Kind("", "HDF5, as Keras saves it", _FROM_KERAS)),
    (b"\x93NUMPY", Kind("", "a NumPy array", _TO_SAFETENSORS)),
    (b"GGUF", Kind("", "a GGUF file, for llama.cpp", _TO_SAFETENSORS)),
    *((start, Kind("", "a GGML file, for llama.cpp", _TO_SAFETENSORS)) for start in (b"lmgg", b"fmgg", b"tjgg")),
    *(
        (start, Kind("", f"compressed with {tool}", _UNPACK))
        for start, tool in (
            (b"\x1f\x8b", "gzip"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"Rar!", "RAR"), (b"\x04\x22\x4d\x18", "LZ4"),
        )
    ),
    (b"\x89PNG", Kind("", "a picture", _DOWNLOAD)),
    (b"\xff\xd8\xff", Kind("", "a picture", _DOWNLOAD)),
    (b"%PDF", Kind("", "a PDF", _DOWNLOAD)),
    (b"\x7fELF", Kind("", "a program", _DOWNLOAD)),
]  # fmt: skip
_ZEROS = Kind("", "all zeros at its beginning, as after an interrupted download", _DOWNLOAD)
_WITHIN: list[tuple[int, bytes, Kind]] = [
    (4, b"TFL3", Kind("", "a TensorFlow Lite model", _FROM_KERAS)),
    (4, b"ET", Kind("", "an ExecuTorch program", "save its state_dict() as safetensors")),
    (257, b"ustar", Kind("", "a tar archive, of PyTorch before 0.1.2 or of files", _UNPACK)),
]
_ENDINGS = {
    ".msgpack": Kind("", "a Flax checkpoint (msgpack)", "save it as safetensors (safetensors.flax)"),
    ".index": Kind("", "part of a TensorFlow checkpoint", _FROM_KERAS),
    ".data-00000-of-00001": Kind("", "part of a TensorFlow checkpoint", _FROM_KERAS),
    ".pb": Kind("", "a TensorFlow graph", _FROM_KERAS),
    ".onnx": ONNX,
}


def kind_of_file(file: UPath) -> Kind:
    """What a file's bytes say it is; its name counts only where they say nothing.

    Raises:
        ValueError: it is empty.
    """
    if not file.stat().st_size:
        raise ValueError(f"{file} is empty")
    start = _beginning(file)
    if start.startswith(b"PK"):
        with file.open("rb") as stream:
            return _zipped(file, stream)
    return _by_start(start) or _by_text(start) or _by_name(file.name.lower()) or _by_the_rest(start, file)


def require_readable(file: UPath, kind: Kind) -> None:
    """Raise a ValueError with the cure for a kind that can't be read."""
    if kind is UNKNOWN and file.name.lower().endswith(ENDINGS):
        raise ValueError(f"{file} is damaged: its bytes match no known format; {_DOWNLOAD}")
    if kind is UNKNOWN:
        raise ValueError(f"{file} is not a checkpoint that can be read; known endings: {', '.join(ENDINGS)}")
    if not kind.read_by:
        raise ValueError(f"{file} is {kind.what}, not a checkpoint that can be read; {kind.cure}")


def _beginning(file: UPath) -> bytes:
    if file.protocol not in ("", "file"):
        return file.fs.cat_file(file.path, start=0, end=_START)  # opening it would read megabytes from an object store
    with file.open("rb") as stream:
        return stream.read(_START)


def _by_start(start: bytes) -> Kind | None:
    for opening, kind in _STARTS:
        if start.startswith(opening) or start.lstrip().startswith(opening):
            return kind
    if not start.strip(b"\0"):
        return _ZEROS
    for place, mark, kind in _WITHIN:
        if start[place : place + len(mark)] == mark:
            return kind
    if start[0] == 0x80 and start[1:2] and 2 <= start[1] <= 5:
        return TORCH  # a pickle
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**48:
        return SAFETENSORS
    return None


def _by_name(name: str) -> Kind | None:
    return next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)


def _by_text(start: bytes) -> Kind | None:
    """Web pages and server messages saved under a checkpoint's name."""
    text = _as_text(start)
    if text is None:
        return None
    opening = text.lstrip("\ufeff \t\r\n").lower()
    if opening.startswith("{") and '"weight_map"' in text:
        return INDEX
    if opening.startswith(("<!doctype html", "<html", "<head", "<body", "<script", "<!--")):
        return Kind("", "a web page", _DOWNLOAD)
    if opening.startswith("<"):
        return Kind("", "XML, a server's message or another tool's model", _DOWNLOAD)
    if opening.startswith("{"):
        return Kind("", f"JSON ({one_line(text.strip(), 60)})", f"give the file that holds the weights, or {_DOWNLOAD}")
    return Kind("", f"damaged: it holds text ({one_line(text.strip(), 60)})", _DOWNLOAD) if opening else None


def _as_text(start: bytes) -> str | None:
    for encoding in ("utf-8", "utf-16") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8",):
        text = start.decode(encoding, "ignore")
        if len(text.encode(encoding)) < len(start) - 4:  # a character may be cut at the end
            continue
        if all(mark.isprintable() or mark in "\ufeff\t\r\n\f" for mark in text):
            return text
    return None


def _by_the_rest(start: bytes, file: UPath) -> Kind:
    if start[0] == 8 and start[1:2] and start[1] < 32 and start[2:3] in _ONNX_FIELDS:
        return ONNX  # it has no magic number: it starts with a small number, its version
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(_SSTABLE)))
        if stream.read() == _SSTABLE:
            return _ENDINGS[".index"]
    return UNKNOWN


def _zipped(file: UPath, stream: Any) -> Kind:
    with called_damaged(file):
        try:
            with zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"a truncated zip archive ({error})") from error
    within: list[tuple[Callable[[str], bool], Kind]] = [
        (lambda name: name.rpartition("/")[2] == "data.pkl", TORCH),
        (lambda name: name == "model.weights.h5", Kind("", "a Keras model", _FROM_KERAS)),
        (lambda name: name.endswith(".npy"), Kind("", "a NumPy archive (.npz)", _TO_SAFETENSORS)),
        (lambda name: "archive_format" in name, Kind("", "a torch.export program", "save its state_dict()")),
    ]
    for holds, kind in within:
        if any(holds(name) for name in names):
            return kind
    return Kind("", f"a zip archive of {len(names)} files", _UNPACK)
