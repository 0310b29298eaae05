"""Check names that users write."""

import difflib
from collections.abc import Iterable
from typing import Literal

Flip = Literal["none", "left_right", "top_bottom"]
"""How training images are mirrored, each with probability 1/2."""


def require_known(kind: str, name: str, allowed: Iterable[str]) -> None:
    """Raise a ValueError with the nearest and all allowed names unless `name` is one of them."""
    names = list(allowed)
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise ValueError(f"unknown {kind} {name!r}; did you mean {nearest[0]!r}? Allowed: {', '.join(names)}")
