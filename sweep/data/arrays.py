"""Images as arrays: what a data set is once it is prepared.

Axis letters: `n` images, `h w` image.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

_CHUNK = 512


@dataclass(frozen=True)
class Pictures:
    """Images that are read one by one, since all at once may not fit in memory; `shape` is that of each."""

    paths: list[Path]
    shape: tuple[int, int, int]
    load: Callable[[Path], np.ndarray]

    def write(self, file: Path, advance: Callable[[int], None]) -> None:
        """Decode all into one file that can be memory-mapped; `advance` is told how many more are done."""
        array = np.lib.format.open_memmap(file, "w+", np.uint8, (len(self.paths), *self.shape))
        with ThreadPoolExecutor() as pool:  # decoding and resizing release the GIL
            for start in range(0, len(self.paths), _CHUNK):
                chunk = self.paths[start : start + _CHUNK]
                for index, image in enumerate(pool.map(self.load, chunk), start=start):
                    array[index] = image
                advance(len(chunk))
        array.flush()


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Training and validation images with their labels; classes are numbered from 0."""

    train_images: UInt8[np.ndarray, "n 3 h w"] | Pictures
    train_labels: Int64[np.ndarray, " n"]
    val_images: UInt8[np.ndarray, "m 3 h w"] | Pictures
    val_labels: Int64[np.ndarray, " m"]
    class_names: list[str]


Batch = tuple[Float[Tensor, "b 3 h w"], Int64[Tensor, " b"]]
