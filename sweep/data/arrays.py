"""Images as arrays: what a data set is once it is prepared.

Axis letters: `n` images, `h w` image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from sweep.data.pictures import decoders

_CHUNK = 512


@dataclass(frozen=True)
class Pictures:
    """Images that are read one by one, since together they may not fit in memory; `shape` is the shape of each."""

    paths: list[Path]
    shape: tuple[int, int, int]
    load: Callable[[Path], np.ndarray]

    def chunks(self, advance: Callable[[int], None]) -> Iterator[UInt8[np.ndarray, "n 3 h w"]]:
        """All images in order; calls `advance` with the number of images just read."""
        with decoders() as pool:
            for start in range(0, len(self.paths), _CHUNK):
                chunk = self.paths[start : start + _CHUNK]
                yield np.stack(list(pool.map(self.load, chunk)))
                advance(len(chunk))


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Training and validation images with their labels; classes are numbered from 0.

    `fingerprints` are those of the list of pictures they are read from: the current one, then by earlier definitions.
    """

    train_images: UInt8[np.ndarray, "n 3 h w"] | Pictures
    train_labels: Int64[np.ndarray, " n"]
    val_images: UInt8[np.ndarray, "m 3 h w"] | Pictures
    val_labels: Int64[np.ndarray, " m"]
    class_names: list[str]
    fingerprints: tuple[str | None, ...] = (None,)


Batch = tuple[Float[Tensor, "b 3 h w"], Int64[Tensor, " b"]]
