"""Make an INT8 file small: what still lies in it as float32 weights becomes 8 bits too, and names become short.

The products of attention and the last projection keep float32 inputs and outputs; their weights alone become int8 with
a scale a column, behind a DequantizeLinear. What ONNX Runtime makes of that is its own affair (a product with 8-bit
weights); the gate is what says that it is good enough.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.rewrite import FRONT

_SMALLEST = 2048  # numbers; less is not worth a node


def store_weights_in_bytes(proto: onnx.ModelProto) -> None:
    """Weights of float MatMul and Gemm nodes as int8, symmetric, a scale for each output; in place."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    added: dict[str, onnx.NodeProto] = {}
    for node in proto.graph.node:
        tensor = constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or node.name.startswith(FRONT):
            continue
        weights = numpy_helper.to_array(tensor)
        if weights.ndim != 2 or weights.size < _SMALLEST:
            continue
        if not any(a.name == "transB" and a.i for a in node.attribute):
            weights = weights.T  # an output a row
        scale = np.maximum(np.abs(weights).max(axis=1), 1e-12).astype(np.float32) / np.float32(127)
        bytes_ = np.rint(weights / scale[:, None]).astype(np.int8)
        names, back = [f"{tensor.name}_bytes", f"{tensor.name}_scale"], f"{tensor.name}_back"
        # Turned back by a node of its own: of a MatMul whose weights come from a DequantizeLinear ONNX Runtime makes a
        # MatMulNBits, which takes twice as long as the float product; turned weights it takes as they lie.
        node.input[1] = f"{back}_turned" if node.op_type == "MatMul" else back
        if node.input[1] in added:
            continue
        if back not in added:
            proto.graph.initializer.append(numpy_helper.from_array(bytes_, names[0]))
            proto.graph.initializer.append(numpy_helper.from_array(scale, names[1]))
            added[back] = helper.make_node("DequantizeLinear", names, [back], axis=0)
        if node.op_type == "MatMul":
            added[node.input[1]] = helper.make_node("Transpose", [back], [node.input[1]], perm=[1, 0])
    nodes = list(proto.graph.node)
    for node in nodes:
        if node.op_type == "DequantizeLinear" and _is_zero_bias(node, constants):
            del node.input[2]
    used = {name for node in (*added.values(), *nodes) for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend([*added.values(), *nodes])
    proto.graph.initializer.extend(kept)


def round_before_joining(proto: onnx.ModelProto) -> None:
    """What is joined and then rounded to bytes is rounded first: the same numbers, less copying; in place."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    uses = Counter(name for node in proto.graph.node for name in node.input)
    nodes = list(proto.graph.node)
    for rounding in [node for node in nodes if node.op_type == "QuantizeLinear"]:
        joint = producers.get(rounding.input[0])
        if joint is None or joint.op_type != "Concat" or uses[joint.output[0]] > 1:
            continue
        scale = list(rounding.input[1:])
        parts = {name: f"{name}_rounded_for_{rounding.output[0]}" for name in joint.input}
        at = nodes.index(rounding)
        joined = helper.make_node("Concat", [parts[n] for n in joint.input], list(rounding.output), joint.name)
        joined.attribute.extend(joint.attribute)
        first = [helper.make_node("QuantizeLinear", [name, *scale], [part]) for name, part in parts.items()]
        nodes[at : at + 1] = [*first, joined]
        nodes.remove(joint)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _is_zero_bias(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether a DequantizeLinear gives back an int32 bias, whose zero point is 0 without being said."""
    if len(node.input) < 3 or node.input[0] not in constants:
        return False
    zero = constants[node.input[2]]
    return zero.data_type == onnx.TensorProto.INT32 and not numpy_helper.to_array(zero).any()


def shorten_names(proto: onnx.ModelProto) -> None:
    """Inner tensors are numbered and shapes that can be inferred are left out: names were 8 % of the file. Nodes keep
    the names that a profile shows."""
    ports = {value.name for value in (*proto.graph.input, *proto.graph.output)} | {""}
    short: dict[str, str] = {}

    def of(name: str) -> str:
        return name if name in ports else short.setdefault(name, f"t{len(short)}")

    for tensor in proto.graph.initializer:
        tensor.name = of(tensor.name)
    for node in proto.graph.node:
        node.input[:], node.output[:] = [of(name) for name in node.input], [of(name) for name in node.output]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:]
