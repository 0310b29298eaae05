"""The files of torch.save, TorchScript and pickle, read without running anything in them (see inert).

There are two containers: a zip archive, and its predecessor, a row of pickles followed by the storages.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from upath import UPath

from analysis.readers.entry import Weights, called_damaged
from analysis.readers.inert import Bounded, Machine
from analysis.readers.names import tensors_by_name
from analysis.readers.stored import BUILDERS, Storage, storage_type

_PICKLE = "data.pkl"
_PICKLE_LIMIT = 256 * 2**20  # the numbers lie outside it; a large model's has 1 MiB
_RATIO_LIMIT = 100  # of a compressed storage; weights hardly compress, zeros a thousandfold
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = 30  # bytes before a zip entry's name

Fetch = Callable[[int, int], bytes]


def torch_weights(file: UPath) -> Weights:
    """The tensors of a torch.save file, a TorchScript program or a pickle; only what is asked for is read.

    Raises:
        ValueError: it is damaged, or has no tensors by name.
    """
    with _called_damaged(file), file.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
        stream.seek(0)
        content = _zipped(file, stream) if zipped else _in_a_row(file, stream)
    return Weights(entries=tensors_by_name(file, content), metadata={"format": "torch.save"})


@contextmanager
def _called_damaged(file: UPath) -> Iterator[None]:
    with called_damaged(file):
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:  # RuntimeError: a password
            if isinstance(error, RecursionError):
                raise
            raise ValueError(error or type(error).__name__) from error


def _zipped(file: UPath, stream: Any) -> Any:
    with ZipFile(stream) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
        if not pickles:
            raise ValueError(f"an archive without {_PICKLE}")
        folder = min(pickles, key=len).removesuffix(_PICKLE)
        pickled = _read(archive, entries[f"{folder}{_PICKLE}"])
        order = entries.get(f"{folder}byteorder")
        swapped = order is not None and _read(archive, order).strip() == b"big"

    def persistent(identity: Any) -> Storage:
        dtype, key, size, _ = _storage_id(identity)
        info = entries.get(f"{folder}data/{key}") or entries[f"{folder}tensors/{key}"]
        width = 1 if dtype is None else dtype.itemsize
        if size * width > info.file_size:
            raise ValueError(f"storage {key} has {info.file_size} bytes, not {size * width}")
        fetch = _stored(file, info) if info.compress_type == ZIP_STORED else _deflated(file, info)
        return Storage(dtype=dtype, size=size, fetch=_swapping(fetch, width) if swapped else fetch)

    return Machine(BUILDERS, persistent).load(BytesIO(pickled))


def _read(archive: ZipFile, info: ZipInfo) -> bytes:
    """A small entry. Its checksum is not checked: torch.save can be told to omit it."""
    if info.file_size > _PICKLE_LIMIT or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{info.filename} has {info.file_size} bytes, or is compressed in an unknown way")
    info.CRC = None  # type: ignore[assignment]  # so zipfile leaves it out
    return archive.read(info)


def _stored(file: UPath, info: ZipInfo) -> Fetch:
    def fetch(first: int, length: int) -> bytes:
        with _called_damaged(file), file.open("rb") as stream:
            stream.seek(info.header_offset)
            header = stream.read(_LOCAL_HEADER)
            name, extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
            stream.seek(info.header_offset + _LOCAL_HEADER + name + extra + first)
            return _whole(stream.read(length), length)

    return fetch


def _deflated(file: UPath, info: ZipInfo) -> Fetch:
    def fetch(first: int, length: int) -> bytes:
        with _called_damaged(file), file.open("rb") as stream, ZipFile(stream) as archive:
            if info.compress_type != ZIP_DEFLATED or info.file_size > _RATIO_LIMIT * info.compress_size + 2**20:
                raise ValueError(f"{info.filename} is compressed more than weights can be")
            with archive.open(info) as unpacked:
                unpacked.seek(first)
                return _whole(unpacked.read(length), length)

    return fetch


def _in_a_row(file: UPath, stream: Any) -> Any:
    """A single pickle, or five of them, the fourth being the value, followed by each storage's size and bytes."""
    size = file.stat().st_size
    rest = Bounded(stream, min(size, _PICKLE_LIMIT))
    places: dict[Any, tuple[int, int]] = {}
    swapped = False

    def fetch_from(key: Any, width: int, shift: int) -> Fetch:
        def fetch(first: int, length: int) -> bytes:
            with _called_damaged(file), file.open("rb") as again:
                place, end = places[key]
                again.seek(place + shift * width + first)
                return _whole(again.read(min(length, end - place)), length)

        return _swapping(fetch, width) if swapped else fetch

    widths: dict[Any, int] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",):
            return identity[1]  # a class, followed by its source code
        dtype, key, count, view = _storage_id(identity)
        width = widths.setdefault(key, 1 if dtype is None else dtype.itemsize)
        shift = 0
        if isinstance(view, tuple):
            _, shift, count = view
            if type(shift) is not int or type(count) is not int or min(shift, count) < 0:
                raise ValueError("it has an invalid view of a storage")
        if (shift + count) * width > size:
            raise ValueError(f"storage {key} is longer than the file")
        return Storage(dtype=dtype, size=count, fetch=fetch_from(key, width, shift))

    def following() -> Any:
        return Machine(BUILDERS, persistent).load(rest)

    value = following()
    if type(value) is not int or value != _LEGACY_MAGIC:
        return value
    if following() != _LEGACY_PROTOCOL:
        raise ValueError("its protocol is unknown")
    system = following()
    swapped = isinstance(system, dict) and system.get("little_endian") is False
    value, keys = following(), following()
    places |= _places(stream, size, keys, widths)
    return value


def _places(stream: Any, size: int, keys: Any, widths: dict[Any, int]) -> dict[Any, tuple[int, int]]:
    """Where each storage's bytes begin and end: after 8 bytes that count its numbers, in the order of the keys."""
    if not isinstance(keys, list):
        raise ValueError("it doesn't list its storages")
    places = {}
    place = stream.tell()
    for key in keys:
        stream.seek(place)
        count = int.from_bytes(_whole(stream.read(8), 8), "little", signed=True)
        end = place + 8 + count * widths[key]
        if not place + 8 <= end <= size:
            raise ValueError(f"storage {key} is truncated")
        places[key] = (place + 8, end)
        place = end
    return places


def _storage_id(identity: Any) -> tuple[Any, str, int, Any]:
    """The type, key, length and view of a persistent id ("storage", type, key, device, length[, view])."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] not in ("storage", b"storage"):
        raise ValueError("it refers to something outside that is not a storage")
    _, kind, key, _, size, *view = identity
    if not isinstance(key, str | int) or type(size) is not int or size < 0:
        raise ValueError("it refers to a storage without a size")
    return storage_type(kind), str(key), size, view[0] if view else None


def _swapping(fetch: Fetch, width: int) -> Fetch:
    """For files of big-endian machines."""

    def swapped(first: int, length: int) -> bytes:
        data = fetch(first, length)
        return b"".join(data[place : place + width][::-1] for place in range(0, length, width))

    return swapped


def _whole(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise ValueError("it is truncated")
    return data
