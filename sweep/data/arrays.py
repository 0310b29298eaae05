"""Images as arrays: what a data set is before it is prepared, where it fits in memory.

Axis letters: `n` images, `h w` image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Training and validation images with their labels; classes are numbered from 0.

    `fingerprint` is that of the pictures they are read from, if any.
    """

    train_images: UInt8[np.ndarray, "n 3 h w"]
    train_labels: Int64[np.ndarray, " n"]
    val_images: UInt8[np.ndarray, "m 3 h w"]
    val_labels: Int64[np.ndarray, " m"]
    class_names: list[str]
    fingerprint: str | None = None


Batch = tuple[Float[Tensor, "b 3 h w"], Int64[Tensor, " b"]]
