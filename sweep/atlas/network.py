"""Open a network by its address: the convolutions that can be scored, and what is known of the network around them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from analysis.readers.conv import Conv, why_skipped
from analysis.readers.convs import final_convs, spatial_convs
from analysis.readers.kinds import ONNX, kind_of_file
from analysis.readers.onnx_file import onnx_pooling
from analysis.readers.tensors import file_within
from models import libraries
from models.anatomy import Anatomy, anatomy, padding_of
from sweep.atlas.memory import free_bytes
from sweep.store.addresses import Named, named

_DENSE = "its kernel is as large as its map: a fully connected layer"
_BYTES = 4  # a weight


@dataclass(frozen=True, kw_only=True)
class Network:
    """`convs` that can be scored, the last one first; `padding` of each by name, where modules tell it."""

    convs: list[Conv]
    architecture: str | None
    pooling: str
    parameters: int | None
    padding: dict[str, str]


def open_network(address: str) -> Network:
    """The network at an address; one of a library is built, so its weights are in memory until it is let go.

    Raises:
        ValueError: it can't be read or built, its weights can't be had, or no convolution of it can be scored.
        OSError: its file or its weights can't be reached.
    """
    library = named(address)
    found = _of_file(address) if library is None else _of_library(library)
    if not found.convs:
        raise ValueError("no convolution that can be scored: none has a spatial kernel and more than one input channel")
    return found


def _of_file(address: str) -> Network:
    convs = spatial_convs(address)
    stated = final_convs(address) or []
    by_name = {conv.layer: conv for conv in convs}
    first = [by_name[name] for name in stated if name in by_name]
    rest = [conv for conv in reversed(convs) if conv.layer not in stated]
    chosen = [conv for conv in [*first, *rest] if conv.skipped is None]
    file = file_within(address)
    pooling = onnx_pooling(file) if kind_of_file(file) is ONNX else "unknown"  # others hold no graph
    return Network(convs=chosen, architecture=None, pooling=pooling, parameters=None, padding={})


def _of_library(address: Named) -> Network:
    bare = libraries.skeleton(address.library, address.name)
    seen = None if bare is None else anatomy(bare, libraries.image_shape(bare))
    if seen is not None:
        _require_memory(seen.parameters, copies=2 if address.trained else 1)
    net = _built(address)
    seen = seen or anatomy(net, libraries.image_shape(net))
    modules = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    convs = [_conv(name, modules[name], seen) for name in reversed(seen.convs)]
    return Network(
        convs=[conv for conv in convs if conv.skipped is None],
        architecture=address.name.partition(".")[0],
        pooling=seen.pooling,
        parameters=seen.parameters,
        padding={name: padding_of(module) for name, module in modules.items()},
    )


def _built(address: Named) -> nn.Module:
    try:
        return libraries.build(address.library, address.name, address.trained)
    except OSError as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"its weights are not in this machine's cache and can't be fetched ({type(error).__name__}: {said[:200]}); "
            "run this where there is a network, or copy the cache of a machine that has one"
        ) from error


def _conv(name: str, module: nn.Conv2d, seen: Anatomy) -> Conv:
    shape = tuple(module.weight.shape)
    skipped = _DENSE if name in seen.dense else why_skipped(shape, module.groups)
    return Conv(layer=name, shape=shape, skipped=skipped, groups=module.groups, read=_reader(module))


def _reader(module: nn.Conv2d) -> Callable[[], Tensor]:
    return lambda: module.weight.detach()


def _require_memory(parameters: int, copies: int) -> None:
    """Refuse a network that doesn't fit into the memory that is free now; loaders hold trained weights twice.

    Raises:
        ValueError: it doesn't.
    """
    needed, free = parameters * _BYTES * copies, free_bytes()
    if free is not None and needed > free:
        raise ValueError(
            f"building it takes {needed / 1e9:.0f} GB of memory, and {free / 1e9:.0f} GB are free; "
            "use a larger machine, or fewer --actors"
        )
