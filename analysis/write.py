"""Write files whole or not at all, on a local disk or an object store. Knows no torch."""

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from upath import UPath

RESULTS = "layers.json"
"""Name of the file that holds a checkpoint's layer results; written last, so it says that all is there."""


def write_bytes(path: UPath, data: bytes) -> None:
    """Replace a file's content atomically: readers see the old bytes or the new ones, never a part.

    A local file is written beside its place, synced and renamed; on an object store a put is atomic by itself.
    """
    if path.protocol not in ("", "file"):
        path.write_bytes(data)
        return
    target = Path(path.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):  # the write's own error is the one to report
            unfinished.unlink(missing_ok=True)
        raise


def layer_file(folder: UPath, layer: str) -> UPath:
    """The file of a layer's reduced weights in the folder of a checkpoint's results."""
    return folder / f"{layer}.npz"
