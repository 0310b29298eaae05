"""Convolutions of ONNX graphs: found through the nodes, their groups known."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from upath import UPath

from analysis.layers import analyze_file
from analysis.readers.convs import spatial_convs
from analysis.readers.onnx_file import onnx_pooling

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")

WEIGHT = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)


def saved(path: Path, nodes: list, initializers: dict[str, np.ndarray], **options) -> Path:
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None)
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [image], [out], tensors)), path, **options)
    return path


def node(kind: str, weight: str, name: str = "", **attributes):
    return onnx.helper.make_node(kind, ["image", weight], [f"{name or weight}_out"], name, **attributes)


def test_layers_are_named_by_module_or_node_and_their_groups_are_known(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "features.0.weight", "/features/0/Conv"),
        node("Conv", "onnx::Conv_12", "/features/1/Conv", group=2),
        node("Conv", "onnx::Conv_13", "/features/2/Conv", group=8),
        node("Conv", "features.3.weight"),
        node("ConvTranspose", "up.weight"),
        node("Conv", "computed"),
        node("Conv", "features.0.weight", "again"),
        node("Gemm", "table"),
    ]
    state = {"features.0.weight": WEIGHT, "onnx::Conv_12": WEIGHT, "onnx::Conv_13": WEIGHT[:, :1]}
    state |= {"features.3.weight": WEIGHT[:, :, :1], "up.weight": WEIGHT, "table": WEIGHT}
    convs = {conv.layer: conv for conv in spatial_convs(saved(tmp_path / "net.onnx", nodes, state))}
    assert list(convs) == ["features.0", "/features/1/Conv", "/features/2/Conv", "features.3", "up", "computed"]
    assert torch.equal(convs["features.0"].read(), torch.from_numpy(WEIGHT))
    assert (convs["features.0"].skipped, convs["features.0"].groups) == (None, 1)
    assert (convs["/features/1/Conv"].skipped, convs["/features/1/Conv"].groups) == (None, 2)
    assert "depthwise (8 neurons)" in str(convs["/features/2/Conv"].skipped)
    assert "1x3" in str(convs["features.3"].skipped)
    assert "transposed" in str(convs["up"].skipped)
    assert "computed by the graph" in str(convs["computed"].skipped)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_weights_in_constant_nodes_and_of_other_kinds_are_read(tmp_path: Path, kind: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = WEIGHT.astype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    constant = onnx.helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(value))
    copy = onnx.helper.make_node("Identity", ["w"], ["v"])
    (conv,) = spatial_convs(saved(tmp_path / "net.onnx", [constant, copy, node("Conv", "v", "conv")], {}))
    assert np.array_equal(conv.read().numpy(), value.astype(np.float32))


def test_scores_are_those_of_the_same_weights_in_a_state_dict(tmp_path: Path) -> None:
    torch.save({"c.weight": torch.from_numpy(WEIGHT)}, tmp_path / "net.pt")
    (theirs,) = analyze_file(tmp_path / "net.pt")
    (ours,) = analyze_file(saved(tmp_path / "net.onnx", [node("Conv", "c.weight")], {"c.weight": WEIGHT}))
    assert ours.layer == theirs.layer
    assert ours.scores == theirs.scores


def test_weights_beside_the_file_are_read_and_their_absence_is_told_by_the_layer(tmp_path: Path) -> None:
    beside = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    file = saved(tmp_path / "net.onnx", [node("Conv", "c.weight")], {"c.weight": WEIGHT}, **beside)
    (conv,) = spatial_convs(file)
    assert np.array_equal(conv.read().numpy(), WEIGHT)
    (tmp_path / "weights.bin").unlink()
    (result,) = analyze_file(file)
    assert "weights.bin" in str(result.skipped)


def test_a_damaged_file_and_one_without_convs_say_so(tmp_path: Path) -> None:
    file = saved(tmp_path / "net.onnx", [node("Gemm", "w")], {"w": WEIGHT})
    with pytest.raises(ValueError, match="holds no convolution"):
        spatial_convs(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        spatial_convs(file)
    with pytest.raises(ValueError, match="no file"):
        spatial_convs(tmp_path / "gone.onnx")


def test_without_the_package_the_cure_is_one_line(tmp_path: Path, monkeypatch) -> None:
    file = saved(tmp_path / "net.onnx", [node("Conv", "w")], {"w": WEIGHT})
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match="pip install onnx"):
        spatial_convs(file)


def test_the_convolutions_of_local_functions_and_of_onnx_runtime_are_found(tmp_path: Path) -> None:
    body = [onnx.helper.make_node("Conv", ["x", "w"], ["y"], "inner")]
    opset = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    block = onnx.helper.make_function("local", "Block", ["x", "w"], ["y"], body, opset[:1])
    nodes = [
        onnx.helper.make_node("Block", ["image", "a.weight"], ["h"], "block", domain="local"),
        onnx.helper.make_node("FusedConv", ["h", "b.weight"], ["out"], "fused", domain="com.microsoft"),
    ]
    file = saved(tmp_path / "net.onnx", nodes, {"a.weight": WEIGHT, "b.weight": WEIGHT})
    model = onnx.load(file)
    model.functions.append(block)
    del model.opset_import[:]
    model.opset_import.extend([*opset, onnx.helper.make_opsetid("com.microsoft", 1)])
    onnx.save(model, file)
    assert [(conv.layer, conv.skipped) for conv in spatial_convs(file)] == [("a", None), ("b", None)]


def test_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    nodes = [node("Conv", "1", "conv"), node("Conv", "2", "conv")]
    convs = spatial_convs(saved(tmp_path / "net.onnx", nodes, {"1": WEIGHT, "2": 2 * WEIGHT}))
    assert [conv.layer for conv in convs] == ["conv", "conv#2"]
    assert torch.equal(convs[1].read(), 2 * convs[0].read())


@pytest.mark.parametrize("circle", [True, False])
def test_functions_that_unfold_without_end_are_refused_before_they_do(tmp_path: Path, circle: bool) -> None:
    """Each of 60 functions calls the next one twice, the last one a Relu, or the first."""
    file = saved(tmp_path / "net.onnx", [node("Conv", "c.weight")], {"c.weight": WEIGHT})
    model = onnx.load(file)
    opset = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
    for i in range(60):
        end = ("F0", "local") if circle else ("Relu", "")
        kind, domain = (f"F{i + 1}", "local") if i < 59 else end
        calls = [onnx.helper.make_node(kind, ["x"], [out], domain=domain) for out in ("y", "z")]
        model.functions.append(onnx.helper.make_function("local", f"F{i}", ["x"], ["y"], calls, opset))
    model.graph.node.append(onnx.helper.make_node("F0", ["image"], ["unfolded"], domain="local"))
    onnx.save(model, file)
    with pytest.raises(ValueError, match=r"call each other endlessly|expand to more than 1,000,000 nodes"):
        spatial_convs(file)


@pytest.mark.parametrize(
    ("after", "pooling"),
    [
        ([("GlobalAveragePool", {}), ("Flatten", {})], "global average"),
        ([("GlobalMaxPool", {}), ("Reshape", {})], "global max"),
        ([("ReduceMean", {"axes": [2, 3]})], "global average"),
        ([("ReduceMax", {"axes": [-1, -2]})], "global max"),
        ([("Flatten", {}), ("Softmax", {})], "flatten"),
        ([("Reshape", {}), ("Softmax", {}), ("MatMul", {}), ("Reshape", {})], "attention"),
        ([("GlobalAveragePool", {}), ("Conv", {}), ("Flatten", {})], "flatten"),  # the channels' weights, not the map's
        ([("ReduceMean", {"axes": [1, 2, 3]})], "unknown"),
        ([("AveragePool", {"kernel_shape": [7, 7]})], "unknown"),
    ],
)
def test_what_gathers_the_last_map_is_read_from_the_nodes(
    tmp_path: Path, after: list[tuple[str, dict[str, list[int]]]], pooling: str
) -> None:
    nodes, last = [node("Conv", "c.weight")], "c.weight_out"
    for number, (kind, attributes) in enumerate(after):
        nodes.append(onnx.helper.make_node(kind, [last, "c.weight"], [f"out{number}"], **attributes))
        last = f"out{number}"
    assert onnx_pooling(UPath(saved(tmp_path / "net.onnx", nodes, {"c.weight": WEIGHT}))) == pooling


def test_axes_of_a_reduction_may_be_a_constant(tmp_path: Path) -> None:
    nodes = [node("Conv", "c.weight"), onnx.helper.make_node("ReduceMean", ["c.weight_out", "axes"], ["out"])]
    weights = {"c.weight": WEIGHT, "axes": np.array([2, 3])}
    assert onnx_pooling(UPath(saved(tmp_path / "net.onnx", nodes, weights))) == "global average"
