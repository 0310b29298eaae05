"""Read a picture file as a viewer shows it: rotated by its EXIF data, transparency over white.

Whatever Pillow decodes is read, whatever its suffix; what it can't decode, or what has levels of unknown range, is
unusable, with the reason.
Axis letters: `h w` image rows and columns.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow knows these by name but has no decoder of its own: for EPS, it runs Ghostscript on the file.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# Files that people consider pictures and Pillow does not decode (HEIC, JPEG XL need plug-ins; camera raw has none).
_FOREIGN = frozenset({
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".emf", ".eps", ".heic", ".heics", ".heif", ".hif", ".jxl", ".nef", ".orf",
    ".raf", ".raw", ".rw2", ".svg", ".wmf",
})  # fmt: skip
_MOST_PIXELS = 89_478_485  # Pillow's own limit, 256 MiB of RGB; it refuses twice as many by itself
_EXAMINED_SIDE = 64  # pixels; a large JPEG is decoded at a fraction of its size to see whether it can be
_CLEARLY_DIFFERENT = 16  # levels between the means of large parts
_WEB_PAGES = (b"<!doctype html", b"<html")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


@cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow decodes here, by its names, the usual ones first, in the order Pillow tries them."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED)


@cache
def suffixes() -> frozenset[str]:
    """Suffixes of pictures, in lower case: those of the formats that are decoded here, and of some that are not."""
    decoded = {suffix for suffix, name in Image.registered_extensions().items() if name in formats()}
    return frozenset(decoded | _FOREIGN)


@dataclass(frozen=True)
class Examined:
    """What a picture file holds: a digest of its bytes, why it can't be used (None: it can), whether it is flat.

    `levels` counts how often the way its levels are read has been fixed; it is part of a data set's fingerprint.
    """

    sha256: str
    unusable: str | None
    flat: bool = False
    levels: int = 0


@contextmanager
def decoders() -> Iterator[ThreadPoolExecutor]:
    """Threads that decode pictures. Pillow's warnings are hidden: those that matter become reasons."""
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
        warnings.simplefilter("ignore")  # here and not in each thread: the filters belong to the process
        yield pool


def open_picture(path: Path, side: int) -> Image.Image:
    """A picture in RGB; a JPEG may be decoded at a fraction of its size, with at least `side` pixels either way.

    Raises:
        Exception: Pillow can't read the file (its decoders raise anything), or `ValueError`: it is too large, or its
            levels have an unknown range.
    """
    return _opened(path, side)[0]


def reopen_picture(path: Path, side: int) -> Image.Image:
    """`open_picture` for one that could be read when it was examined.

    Raises:
        ValueError: it can no longer be read.
    """
    try:
        return open_picture(path, side)
    except Exception as error:
        raise ValueError(f"can no longer read {shown(path)} ({error}); fix or remove it and launch again") from error


def shown(name: object) -> str:
    """A file's name as a terminal may print it: control characters and bytes that aren't UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def examine(path: Path) -> Examined:
    """Hash a file and decode it.

    Raises:
        OSError: it can't be read at all, which may work the next time.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = file.read(512)
    try:
        picture, levels = _opened(path, _EXAMINED_SIDE)
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes make Pillow raise anything; the reason says what
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return Examined(digest, _reason(path, head, error))
    return Examined(digest, None, _is_flat(picture), levels)


def examine_square(data: bytes, name: str, square: UInt8[np.ndarray, "3 s s"]) -> Examined:
    """Hash a file's bytes and decode them once: returns what `examine` says, and fills in what is stored of a picture.

    That is the largest square in its middle, resized; it is left as it was for a picture that can't be used.
    """
    digest, side = hashlib.sha256(data).hexdigest(), square.shape[1]
    try:
        picture, levels = _opened(BytesIO(data), 2 * side)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # hostile bytes make Pillow raise anything; the reason says what
        return Examined(digest, _reason(Path(name), data[:512], error))
    fitted = ImageOps.fit(picture, (side, side))
    for plane, band in zip(square, fitted.split(), strict=True):
        plane[...] = np.asarray(band)
    flat = not _varies(fitted) and _is_flat(_opened(BytesIO(data), _EXAMINED_SIDE)[0])
    return Examined(digest, None, flat, levels)


def _varies(square: Image.Image) -> bool:
    """Whether large parts of a picture differ so much that it can't look flat at any scale."""
    means = square.reduce(max(1, square.width // 8))
    extremes = [band.getextrema() for band in means.split()]
    return any(most - least > _CLEARLY_DIFFERENT for least, most in extremes)  # type: ignore[operator]


def _is_flat(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels == pixels[0, 0]).all())


def _opened(source: Path | BytesIO, side: int) -> tuple[Image.Image, int]:
    """A picture in RGB, and how often the way its levels are read has been fixed."""
    with Image.open(source, formats=formats()) as file:
        if file.width * file.height > _MOST_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels; at most {_MOST_PIXELS:,} are decoded")
        file.draft("RGB", (side, side))
        picture = deep = _deep(file)
        mended = 0 if deep is None else 1
        if picture is None:
            file.load()
            ImageOps.exif_transpose(file, in_place=True)  # a copy would cost as much as decoding a small picture
            picture = file
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB"), mended
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), mended


def _deep(file: Image.Image) -> Image.Image | None:
    """A picture with more than 8 bits per level, in 8 bits; None where Pillow's own conversion keeps the levels.

    16-bit grey goes from 0 to 65535 (TIFF: to what its bits allow), floating-point grey up to 1 or up to 255.

    Raises:
        ValueError: nothing says which level is white.
    """
    if not file.mode.startswith(("I", "F")):
        return None
    levels = np.asarray(file).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ValueError("its levels are not all numbers")
    white = _white(file, levels)
    if white is None:
        return None
    if _tag(file, _PHOTOMETRIC) == _WHITE_IS_ZERO and file.mode.startswith("I;16"):
        levels = white - levels
    grey = _eight_bits(levels, white)
    transparent = file.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    turned = Image.fromarray(grey)
    turned.info["exif"] = file.getexif().tobytes()
    return ImageOps.exif_transpose(turned)


def _white(file: Image.Image, levels: Float[np.ndarray, "h w"]) -> float | None:
    """The level that is white; None where that is 255."""
    if file.mode.startswith("I;16"):
        bits = _tag(file, _BITS_PER_SAMPLE)
        return float(2**bits - 1) if isinstance(bits, int) and 8 < bits < 16 else 65535.0
    if file.mode == "I" and file.format == "PPM":  # Pillow has scaled them to 16 bits
        return 65535.0
    least, most = float(levels.min()), float(levels.max())
    if least < 0 or most > 255:
        raise ValueError(
            f"its levels go from {least:g} to {most:g}, and nothing says which is white; save it with 8 or 16 bits"
        )
    return 1.0 if file.mode == "F" and most <= 1 else None


def _tag(file: Image.Image, number: int) -> int | None:
    """A TIFF tag's first number."""
    value = getattr(file, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _eight_bits(levels: Float[np.ndarray, "h w"], white: float) -> UInt8[np.ndarray, "h w"]:
    return np.clip(np.rint(levels * (255 / white)), 0, 255).astype(np.uint8)


def _reason(path: Path, head: bytes, error: Exception) -> str:
    """Why a file can't be used, without its name and on one line."""
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture: run git lfs pull"
    if head.lstrip().lower().startswith(_WEB_PAGES):
        return "a web page, not a picture"
    if isinstance(error, UnidentifiedImageError):
        suffix = path.suffix.lower()
        return f"Pillow has no decoder for {suffix}: convert it to JPEG" if suffix in _FOREIGN else "not a picture"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * _MOST_PIXELS:,} pixels"
    return shown(" ".join(f"{error}".split())) or type(error).__name__
