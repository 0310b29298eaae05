"""Pictures of every kind keep their levels, or are left out for a stated reason; hostile bytes are no exception.

Each run tries 300 damaged files (`FUZZ_EXAMPLES=1000 make test`: 3,000).
"""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sweep.data.pictures import decoders, examine, examine_square, open_picture, suffixes
from tests.sweep.data.pictures_on_disk import noise, png_chunk, vast

RAMP = np.linspace(0, 1, 48 * 48).reshape(48, 48)  # the same ramp from black to white in every mode
GREY = np.rint(RAMP * 255)


def shown(path: Path) -> np.ndarray:
    """The grey levels of a picture as data sets see it."""
    rgb = np.asarray(open_picture(path, 48)).astype(int)
    assert (rgb == rgb[..., :1]).all()
    return rgb[..., 0]


def deep(white: int) -> np.ndarray:
    return np.rint(RAMP * white)


def big_endian_tiff(path: Path) -> None:
    """16-bit grey, most significant byte first, written by hand: Pillow writes its own machine's order only."""
    tags = [(256, 4, 48), (257, 4, 48), (258, 3, 16), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 48)]
    tags.append((279, 4, 48 * 48 * 2))
    directory = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    data = deep(65535).astype(">u2").tobytes()
    head = b"MM\0*" + struct.pack(">I", 8 + len(data))
    path.write_bytes(head + data + struct.pack(">H", len(tags)) + directory + b"\0\0\0\0")


def white_is_zero_tiff(path: Path) -> None:
    Image.fromarray((65535 - deep(65535)).astype(np.uint16)).save(path, tiffinfo={262: 0})


def sixteen_bit_rgb_png(path: Path) -> None:
    """16-bit colour, written by hand: Pillow can't."""
    rows = np.repeat(deep(65535).astype(">u2")[..., None], 3, axis=2)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 48, 48, 16, 2, 0, 0, 0)
    content = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


WRITERS: dict[str, Callable[[Path], None]] = {
    "16-bit.png": lambda path: Image.fromarray(deep(65535).astype(np.uint16)).save(path),
    "16-bit.tif": lambda path: Image.fromarray(deep(65535).astype(np.uint16)).save(path),
    "16-bit.jp2": lambda path: Image.fromarray(deep(65535).astype(np.uint16)).save(path, irreversible=False),
    "16-bit.pgm": lambda path: path.write_bytes(b"P5 48 48 65535\n" + deep(65535).astype(">u2").tobytes()),
    "12-bit.pgm": lambda path: path.write_bytes(b"P5 48 48 4095\n" + deep(4095).astype(">u2").tobytes()),
    "big-endian.tif": big_endian_tiff,
    "white-is-zero.tif": white_is_zero_tiff,
    "16-bit-colour.png": sixteen_bit_rgb_png,
    "32-bit.tif": lambda path: Image.fromarray(GREY.astype(np.int32)).save(path),
    "float.tif": lambda path: Image.fromarray(GREY.astype(np.float32)).save(path),
    "float-to-1.tif": lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path),
    "grey.png": lambda path: Image.fromarray(GREY.astype(np.uint8)).save(path),
    "grey-alpha.png": lambda path: Image.fromarray(GREY.astype(np.uint8)).convert("LA").save(path),
    "palette.gif": lambda path: Image.fromarray(GREY.astype(np.uint8)).save(path),
    "cmyk.tif": lambda path: Image.fromarray(GREY.astype(np.uint8)).convert("RGB").convert("CMYK").save(path),
    "bmp.bmp": lambda path: Image.fromarray(GREY.astype(np.uint8)).save(path),
    "misnamed.jpg": lambda path: Image.fromarray(GREY.astype(np.uint8)).save(path, "PNG"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_levels_are_kept_in_every_mode(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert np.abs(shown(tmp_path / name) - GREY).max() <= 1
    seen = examine(tmp_path / name)
    assert (seen.unusable, seen.flat) == (None, False)


def test_one_bit_and_transparent_palettes(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint8)).convert("1", dither=Image.Dither.NONE).save(tmp_path / "one.png")
    assert set(np.unique(shown(tmp_path / "one.png"))) == {0, 255}
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "clear.png", transparency=0)
    assert shown(tmp_path / "clear.png")[0].tolist() == [255, 90, 255, 255]
    deep_grey = np.full((4, 4), 300, np.uint16)
    deep_grey[0, 0] = 30000
    Image.fromarray(deep_grey).save(tmp_path / "deep.png", transparency=300)
    assert shown(tmp_path / "deep.png")[0].tolist() == [117, 255, 255, 255]


def test_a_deep_picture_is_turned_as_its_exif_data_says(tmp_path: Path) -> None:
    picture = Image.fromarray(deep(65535).astype(np.uint16))
    exif = picture.getexif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.abs(shown(tmp_path / "turned.png") - GREY[::-1, ::-1]).max() <= 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (deep(70000).astype(np.int32), "levels go from 0 to 70000"),
        ((RAMP - 1).astype(np.float32), "levels go from -1 to 0"),
        (np.full((8, 8), np.nan, np.float32), "not all numbers"),
    ],
)
def test_levels_of_unknown_range_are_named(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert reason in str(examine(tmp_path / "a.tif").unusable)


def test_only_pictures_whose_levels_were_mended_say_so(tmp_path: Path) -> None:
    mended = {}
    for name, write in WRITERS.items():
        write(tmp_path / name)
        mended[name] = examine(tmp_path / name).levels
    assert {name for name, levels in mended.items() if levels} == {
        "16-bit.png", "16-bit.tif", "16-bit.jp2", "16-bit.pgm", "12-bit.pgm", "big-endian.tif", "white-is-zero.tif",
        "float-to-1.tif",
    }  # fmt: skip


def test_the_first_frame_of_an_animation_is_seen(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (level,) * 3) for level in (50, 200)]
    for suffix in (".gif", ".png", ".webp", ".tiff"):
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        assert np.abs(shown(tmp_path / f"a{suffix}") - 50).max() <= 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"", "an empty file"),
        ("a.png", b"no picture", "not a picture"),
        ("a.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "a Git LFS pointer"),
        ("a.jpg", b"\n<!DOCTYPE html><html>not found</html>", "a web page"),
        ("a.HEIC", b"\0\0\0\x18ftypheic", "Pillow has no decoder for .heic: convert it to JPEG"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "Pillow has no decoder for .eps"),
    ],
)
def test_what_is_no_picture_is_told_by_its_content(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert str(examine(tmp_path / name).unusable).startswith(reason)


def test_a_picture_of_too_many_pixels_is_named_before_it_is_decoded(tmp_path: Path) -> None:
    for side, reason in ((10_000, "10000 x 10000 pixels"), (14_200, "more than 178,956,970 pixels")):
        (tmp_path / "bomb.png").write_bytes(vast(side))
        with decoders():
            assert str(examine(tmp_path / "bomb.png").unusable).startswith(reason)


def test_formats_are_known_by_suffix_and_none_that_would_run_a_program() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".heic"} <= suffixes()
    assert not {".pdf", ".ps", ".h5", ".hdf", ".mpg", ".txt", ".csv", ".npy", ""} & suffixes()


def encoded(kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    noise(0).save(buffer, kind, **options)
    return buffer.getvalue()


FORMATS = ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "QOI"]
GOOD = [encoded(kind) for kind in FORMATS] + [encoded("TIFF", compression=how) for how in ("tiff_lzw", "jpeg")]
HEADERS = [content[:64] for content in GOOD] + [b"8BPS\0\1", b"FORM", b"P6 9 9 255\n", b"II*\0\x08\0\0\0", b"SIMPLE  ="]


@given(data=st.data())
@settings(
    max_examples=3 * int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_damaged_pictures_are_read_or_named(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(GOOD)))
    if data.draw(st.booleans()):
        content = bytearray(data.draw(st.sampled_from(HEADERS)) + data.draw(st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 4))):  # most of what matters is in the header
        content[data.draw(st.integers(0, min(len(content), 256) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "picture.bin"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with decoders():
        seen = examine(path)
        assert examine_square(path.read_bytes(), path.name, np.empty((3, 16, 16), np.uint8)) == seen
        if seen.unusable is None:
            assert open_picture(path, 640).mode == "RGB"  # not at a fraction of its size, as it was examined
    if seen.unusable is not None:
        assert seen.unusable
        assert "\n" not in seen.unusable
        assert str(tmp_path) not in seen.unusable
