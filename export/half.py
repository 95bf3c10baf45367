"""FP16 with the casts in the ONNX: convolutions and products in float16, normalisation, norms and softmax in float32.

A strongly typed runtime (TensorRT) then computes exactly this and chooses no precision by itself. ONNX Runtime on a
CPU has no float16 convolution and casts back and forth: there the file shows accuracy, not speed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.facts import read_model, save_model, set_facts, sha256_of
from export.rewrite import FRONT

HALF_OPS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Relu", "Resize")  # and the additions between them
_LARGEST = 65504.0


def half_model(model: Path, out: Path) -> Path:
    """Write the FP16 file of a float32 model (beside, then renamed). Inputs and outputs keep their types."""
    proto = read_model(model)
    _Halving(proto).run()
    set_facts(proto, {"precision": "float16, norms and softmax float32", "float_parent_sha256": sha256_of(model)})
    return save_model(proto, out)


class _Halving:
    """One pass over the nodes in order; a tensor that is needed in both types is cast once."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = proto.graph
        self.constants = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.halves: set[str] = set()  # tensors that are float16
        self.cast: dict[str, str] = {}  # a tensor -> the same one in the other type
        self.nodes: list[onnx.NodeProto] = []
        self.outputs = {value.name for value in proto.graph.output}

    def run(self) -> None:
        for node in self.graph.node:
            half = self._is_half(node)
            for index, name in enumerate(node.input):
                carries = name in self.halves or self._is_weight(name)
                if half and self._takes_data(node, index):
                    node.input[index] = self._in_half(name)
                elif not half and carries and name in self.halves:
                    node.input[index] = self._in_float(name)
            self.nodes.append(node)
            if half:
                self._result(node)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if node.name.startswith(FRONT):
            return False
        if node.op_type == "Add":  # of two features; not of a small constant, which float16 would lose
            return all(name in self.halves for name in node.input)
        return node.op_type in HALF_OPS

    def _takes_data(self, node: onnx.NodeProto, index: int) -> bool:
        return bool(node.input[index]) and not (node.op_type == "Resize" and index > 0)  # scales stay float32

    def _is_weight(self, name: str) -> bool:
        return name in self.constants and self.constants[name].data_type == TensorProto.FLOAT

    def _in_half(self, name: str) -> str:
        if name in self.halves:
            return name
        if name not in self.cast:
            self.cast[name] = f"{name}_half"
            if self._is_weight(name):
                value = np.clip(numpy_helper.to_array(self.constants[name]), -_LARGEST, _LARGEST).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(value, self.cast[name]))
            else:
                self._add_cast(name, self.cast[name], TensorProto.FLOAT16)
        return self.cast[name]

    def _in_float(self, name: str) -> str:
        if name not in self.cast:
            self.cast[name] = f"{name}_float"
            self._add_cast(name, self.cast[name], TensorProto.FLOAT)
        return self.cast[name]

    def _result(self, node: onnx.NodeProto) -> None:
        """Mark what a float16 node makes; an output of the model is cast back under its own name."""
        for index, name in enumerate(node.output):
            if name in self.outputs:
                node.output[index] = f"{name}_half"
                self._add_cast(f"{name}_half", name, TensorProto.FLOAT)
            else:
                self.halves.add(name)

    def _add_cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast/{target}", to=to))
