"""Small pictures on disk for the tests of data sets."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, side: int = 24) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8))


def fill(folder: Path, count: int, seed: int = 0, suffix: str = ".png") -> Path:
    """So many pictures in a folder, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise(seed + index).save(folder / f"p{index}{suffix}")
    return folder


def two_classes(root: Path, count: int = 5) -> Path:
    """Class folders a and b."""
    for offset, name in enumerate("ab"):
        fill(root / name, count, seed=100 * offset)
    return root


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def vast(side: int) -> bytes:
    """A small file whose header promises a 1-bit picture of so many pixels either way."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
