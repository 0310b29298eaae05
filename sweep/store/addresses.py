"""Addresses of networks: `timm:resnet18.a1_in1k`, `random:torchvision:vgg16`, or a path. Knows no torch."""

from dataclasses import dataclass
from typing import Literal

from sweep.store.files import absolute

LIBRARIES = ("timm", "torchvision")
_RANDOM = "random:"
Weights = Literal["trained", "random"]


@dataclass(frozen=True)
class Named:
    """Networks of a library, by a name, a pattern or, without one, all: with trained weights or the constructors'."""

    library: str
    name: str
    weights: Weights

    def __str__(self) -> str:
        return (_RANDOM if self.weights == "random" else "") + ":".join(filter(None, (self.library, self.name)))

    @property
    def trained(self) -> bool:
        return self.weights == "trained"


def named(address: str) -> Named | None:
    """What an address says of a library; None if it is a path."""
    library, _, name = address.removeprefix(_RANDOM).partition(":")
    if library not in LIBRARIES:
        return None
    return Named(library, name, "random" if address.startswith(_RANDOM) else "trained")


def absolute_source(source: str) -> str:
    """A source that means the same wherever it is read: paths are made absolute.

    Raises:
        ValueError: there is no such library, file or folder.
    """
    if named(source) is not None:
        return source
    path = absolute(source)
    if not path.exists():
        known = ", ".join(LIBRARIES)
        raise ValueError(f"{source} is neither a file or folder nor of a library; libraries: {known}")
    return str(path)
