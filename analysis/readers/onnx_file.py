"""Convolution weights of ONNX files; only they need the package onnx (the extra `onnx`)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from upath import UPath

from analysis.readers.conv import Conv, why_skipped
from analysis.readers.entry import called_damaged, one_line

_NODES = {
    "Conv": None,
    "FusedConv": None,  # ONNX Runtime's, activation included
    "ConvTranspose": "a transposed convolution",
    "QLinearConv": "quantised",
    "ConvInteger": "quantised",
}
_GLOBAL = {"GlobalAveragePool": "global average", "GlobalMaxPool": "global max"}
_REDUCTIONS = {"ReduceMean": "global average", "ReduceMax": "global max"}
_POSITIONS: tuple[set[int], ...] = ({2, 3}, {-1, -2}, {1, 2}, {1})  # of maps n c h w and n h w c, of n tokens c
_NODES_LIMIT = 1_000_000
_CALLS_LIMIT = 100


def onnx_convs(file: UPath) -> list[Conv]:
    """The convolutions of a graph in its order, subgraphs included.

    A layer is named after its weight where that is a module's (`layer.weight`), else after its node. Weights that the
    graph computes, and transposed and quantised convolutions, come with the reason why they can't be scored.

    Raises:
        ValueError: onnx is not installed, or the file is damaged.
    """
    folder = str(file.parent.path) if file.protocol in ("", "file") else ""
    found: dict[tuple[str, str], Conv] = {}
    with called_damaged(file):
        for node, constants in _nodes(_graph(file), {}):
            if node.op_type in _NODES:
                conv = _conv(node, constants, folder)
                found.setdefault((conv.layer, _weight_of(node)), conv)  # a weight that several nodes share is one layer
    return list(found.values())


def onnx_pooling(file: UPath) -> str:
    """What gathers the last map of a graph: `global average`, `global max`, `flatten`, `attention` or `unknown`.

    Nodes alone tell, without shapes: an average pool of one size is unknown.

    Raises:
        ValueError: onnx is not installed, or the file is damaged.
    """
    pooling = "unknown"
    shares: set[str] = set()  # outputs of softmax, which are attention if something is multiplied by them
    with called_damaged(file):
        for node, constants in _nodes(_graph(file), {}):
            if node.op_type == "Softmax":
                shares.update(node.output)
            elif node.op_type == "MatMul" and shares & set(node.input):
                pooling = "attention"
            else:
                pooling = _gathers(node, constants, pooling)
    return pooling


def _gathers(node: Any, constants: dict[str, Any], before: str) -> str:
    """What gathers the last map once a node has run."""
    if node.op_type in _NODES:
        return "unknown"
    if node.op_type in _GLOBAL:
        return _GLOBAL[node.op_type]
    if node.op_type in _REDUCTIONS and _axes(node, constants) in _POSITIONS:
        return _REDUCTIONS[node.op_type]
    return "flatten" if node.op_type in ("Flatten", "Reshape") and before == "unknown" else before


def _axes(node: Any, constants: dict[str, Any]) -> set[int]:
    """The axes of a reduction: an attribute, or since opset 18 a constant."""
    from onnx import numpy_helper

    given = [value for attribute in node.attribute if attribute.name == "axes" for value in attribute.ints]
    if not given and len(node.input) > 1 and node.input[1] in constants:
        given = numpy_helper.to_array(constants[node.input[1]]).ravel().tolist()
    return set(given)


def _graph(file: UPath) -> Any:
    """A file's graph, its functions inlined."""
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"to read {file}, install onnx: pip install onnx") from error
    from google.protobuf.message import DecodeError
    from onnx.inliner import inline_local_functions

    try:
        model = onnx.load_model_from_string(file.read_bytes())
        if model.functions:
            _require_bounded(model)
            model = inline_local_functions(model)
    except (DecodeError, RuntimeError) as error:
        raise ValueError(error) from error
    return model.graph


def _require_bounded(model: Any) -> None:
    """Refuse functions whose inlining would never end.

    Raises:
        ValueError: they call each other in a cycle, or expand to more nodes than any network has.
    """
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(nodes: Any, calling: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            called = (node.domain, node.op_type)
            if called in calling or len(calling) > _CALLS_LIMIT:
                raise ValueError("its functions call each other endlessly")
            if called in bodies and called not in sizes:
                sizes[called] = size_of(bodies[called], (*calling, called))
            total += max(1, sizes.get(called, 0)) + sum(size_of(graph.node, calling) for graph in _subgraphs(node))
        return total

    if size_of(model.graph.node, ()) > _NODES_LIMIT:
        raise ValueError(f"its functions expand to more than {_NODES_LIMIT:,} nodes")


def _nodes(graph: Any, outer: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """All nodes of a graph and its subgraphs, each with the constants it can see by name."""
    constants = outer | {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            constants |= dict(zip(node.output, values, strict=False))  # none where the constant is not a tensor
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        yield node, constants
        for subgraph in _subgraphs(node):
            yield from _nodes(subgraph, constants)


def _subgraphs(node: Any) -> list[Any]:
    own = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return own + [graph for attribute in node.attribute for graph in attribute.graphs]


def _weight_of(node: Any) -> str:
    """The name of a node's weight."""
    return str(node.input[3] if node.op_type == "QLinearConv" else node.input[1])


def _conv(node: Any, constants: dict[str, Any], folder: str) -> Conv:
    source = _weight_of(node)
    name = source.removesuffix(".weight") if source.endswith(".weight") else node.name or source
    tensor = constants.get(source)
    if tensor is None:
        reason = _NODES[node.op_type] or f"its weight {source} is computed by the graph"
        return Conv(layer=name, shape=(), skipped=reason, groups=None, read=_nothing_to_read)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    shape = tuple(tensor.dims)
    return Conv(
        layer=name,
        shape=shape,
        skipped=_NODES[node.op_type] or why_skipped(shape, groups),
        groups=groups,
        read=_reader(tensor, folder),
    )


def _reader(tensor: Any, folder: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        from onnx import checker, numpy_helper

        try:
            array = numpy_helper.to_array(tensor, folder)
        except checker.ValidationError as error:  # its numbers are in a file of their own
            raise ValueError(one_line(error)) from error
        except Exception as error:  # damaged bytes make onnx raise nearly anything
            raise ValueError(f"its weight is damaged: {one_line(error)}") from error
        return torch.from_numpy(array.astype(np.float32))

    return read


def _nothing_to_read() -> Tensor:
    raise ValueError("this convolution's weight is not in the file")
