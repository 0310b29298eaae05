"""Read a picture file as a viewer shows it: turned as its EXIF data says, transparency over white."""

from pathlib import Path

from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def open_picture(path: Path, side: int) -> Image.Image:
    """A picture in RGB; a JPEG may be decoded at a fraction of its size, with at least `side` pixels either way.

    Raises:
        OSError, SyntaxError, ValueError: Pillow can't read the file.
    """
    with Image.open(path) as file:
        file.draft("RGB", (side, side))
        picture = ImageOps.exif_transpose(file)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
