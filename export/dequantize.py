"""The float32 model inside an INT8 one: the same weights, no rounding of activations.

A stand-in for the float parent where that was not kept: its weights are exactly the numbers that fly, already rounded
to 8 bits, so INT8 held against it shows what rounding the activations costs, not what rounding the weights did.
`pilotage export model` of a checkpoint gives the true parent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.facts import set_facts, sha256_of
from onboard.errors import EngineError


def float_model(path: Path) -> onnx.ModelProto:
    """The model of a QDQ file without its QuantizeLinear and DequantizeLinear nodes, all in float32.

    ONNX Runtime's quantizer leaves out a ReLU before a uint8 tensor whose zero point is 0, since rounding clips there;
    it is put back. Raises EngineError for a file that is not quantized.
    """
    proto = onnx.load(path)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    if not any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        raise EngineError("nothing to dequantize", path, "an INT8 model with QuantizeLinear nodes")
    same_as: dict[str, str] = {}  # what a rounded tensor was before
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same_as.get(name, name)
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            weights = _dequantized(node, constants)
            proto.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        elif node.op_type == "DequantizeLinear":
            same_as[node.output[0]] = node.input[0]
        elif node.op_type == "QuantizeLinear":
            same_as[node.output[0]] = _unrounded(node, constants, nodes)
        else:
            nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]
    _drop_unused(proto)
    set_facts(proto, {"precision": "float32", "dequantized_from_sha256": sha256_of(path)})
    onnx.checker.check_model(proto)
    return proto


def _dequantized(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> np.ndarray:
    """float32 weights; scale and zero point are one number, or one for each index of the node's axis."""
    values, scale = constants[node.input[0]], constants[node.input[1]]
    zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale, dtype=np.int32)
    if scale.ndim:
        axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((values.astype(np.int32) - zero.astype(np.int32)) * scale).astype(np.float32)


def _unrounded(node: onnx.NodeProto, constants: dict[str, np.ndarray], nodes: list[onnx.NodeProto]) -> str:
    """The name of what a QuantizeLinear rounds, through a ReLU where rounding clipped at zero."""
    source = node.input[0]
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    clips = zero is not None and zero.dtype == np.uint8 and not zero.any()
    if not clips or any(n.op_type == "Relu" and source in n.output for n in nodes):
        return source
    nodes.append(helper.make_node("Relu", [source], [f"{source}_unrounded"], f"{source}_relu"))
    return f"{source}_unrounded"


def _drop_unused(proto: onnx.ModelProto) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
