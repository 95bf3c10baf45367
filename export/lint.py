"""What in an ONNX graph TensorRT will refuse or run badly, found in seconds instead of in the middle of a build.

Every rule is one that NVIDIA's parser or builder enforces (or, for LayerNormalization, that costs accuracy in half
precision), and every finding is a sentence that names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

OPSET = 18
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


class Graph:
    """The nodes of a model, who makes each value, and the constants among the values."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.nodes = list(proto.graph.node)
        self.byte_inputs = {
            value.name for value in proto.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        }
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        for node in self.nodes:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self.tensors[node.output[0]] = attribute.t

    def constant(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None

    def maker(self, name: str, *kinds: str) -> NodeProto | None:
        """The node that makes a value, if it is of one of these kinds."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds else None


def lint(proto: onnx.ModelProto) -> list[str]:
    """Sentences, one for each thing that has to change before TensorRT builds it; empty when it is fit."""
    graph = Graph(proto)
    rules: tuple[Callable[[Graph], Iterator[str]], ...] = (
        bytes_cast_late,
        integer_dequantization,
        asymmetric_quantization,
        antialiased_resize,
        layer_norm_in_parts,
    )
    return [*opset(proto), *(finding for rule in rules for finding in rule(graph))]


def opset(proto: onnx.ModelProto) -> Iterator[str]:
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            if entry.version != OPSET:
                yield f"The file is of opset {entry.version}; TensorRT 10.3 to 11 were tried with opset {OPSET}."
        elif used := [node for node in proto.graph.node if node.domain == entry.domain]:
            yield f"{title(used[0])} is of the domain {entry.domain}, which TensorRT does not know."


def bytes_cast_late(graph: Graph) -> Iterator[str]:
    """TensorRT takes bytes in, and does nothing with them but cast."""
    for node in graph.nodes:
        if node.op_type != "Cast" and (found := graph.byte_inputs.intersection(node.input)):
            yield f"{title(node)} works on the bytes of {found.pop()}: cast them to float before anything else."


def integer_dequantization(graph: Graph) -> Iterator[str]:
    """ONNX Runtime's default makes INT32 biases; TensorRT adds biases in float."""
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        tensor = graph.tensors.get(node.input[0])
        if tensor is not None and tensor.data_type == onnx.TensorProto.INT32:
            yield f"{title(node)} dequantizes INT32 (a bias): quantize with QuantizeBias=False."


def asymmetric_quantization(graph: Graph) -> Iterator[str]:
    """TensorRT quantizes symmetrically, in int8."""
    for node in graph.nodes:
        if node.op_type not in _QUANTIZED or len(node.input) < 3 or not node.input[2]:
            continue
        zero_point = graph.constant(node.input[2])
        if zero_point is None:
            yield f"{title(node)} has a zero point that is computed: TensorRT wants the constant 0."
        elif zero_point.any():
            found = int(zero_point.flat[int(np.flatnonzero(zero_point)[0])])
            yield f"{title(node)} has zero point {found}: TensorRT wants 0 (symmetric quantization)."
        elif zero_point.dtype == np.uint8:
            yield f"{title(node)} is uint8: TensorRT wants int8."


def antialiased_resize(graph: Graph) -> Iterator[str]:
    """Position embeddings must be resized when the model is exported, not when it runs."""
    for node in graph.nodes:
        if node.op_type == "Resize" and any(a.name == "antialias" and a.i for a in node.attribute):
            yield f"{title(node)} resizes with antialias: bake its result into the file."


def layer_norm_in_parts(graph: Graph) -> Iterator[str]:
    """A mean, squares and a root one by one lose their accuracy in half precision; as one op they are kept in float."""
    for node in graph.nodes:
        if node.op_type == "Div" and len(node.input) == 2 and _is_layer_norm(graph, node):
            yield f"{title(node)} ends a layer norm made of parts: export it as one LayerNormalization."


def _is_layer_norm(graph: Graph, division: NodeProto) -> bool:
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon), both means over the last axis."""
    difference = graph.maker(division.input[0], "Sub")
    root = graph.maker(division.input[1], "Sqrt")
    if difference is None or root is None:
        return False
    total = graph.maker(root.input[0], "Add")
    means = [graph.maker(name, "ReduceMean") for name in total.input] if total is not None else []
    variance = next((mean for mean in means if mean is not None), None)
    mean = graph.maker(difference.input[1], "ReduceMean")
    if variance is None or mean is None or mean.input[0] != difference.input[0]:
        return False
    square = graph.maker(variance.input[0], "Pow", "Mul")
    if square is None or square.input[0] != difference.output[0]:
        return False
    return _over_last_axis(graph, mean) and _over_last_axis(graph, variance)


def _over_last_axis(graph: Graph, mean: NodeProto) -> bool:
    told = [list(a.ints) for a in mean.attribute if a.name == "axes"]  # an attribute before opset 18, then an input
    axes = graph.constant(mean.input[1]) if len(mean.input) > 1 else None
    found = told[0] if told else [] if axes is None else axes.tolist()
    return len(found) == 1 and (found[0] == -1 or found[0] >= 2)


def title(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"
