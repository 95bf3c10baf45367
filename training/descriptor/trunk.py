"""The frozen encoder of a shipped model: its INT8 features at stride 8, bit for bit what the heads see in flight.

The trunk is the last tensor that both the descriptor and the detail features are made of. It is found by walking the
graph, not by name, so that any file that `pilotage export quantize` wrote will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from onboard.engine.base import INPUTS, OUTPUTS
from onboard.errors import EngineError

THREADS = 1


@dataclass(frozen=True)
class Rounding:
    """How the trunk's bytes become numbers: (byte - zero) * scale."""

    scale: float
    zero: int


class FrozenTrunk:
    """The encoder alone: pictures in, bytes (B, C, N / 8, N / 8) out."""

    def __init__(self, model: Path, threads: int = THREADS) -> None:
        proto = onnx.load(model)
        tensor, self.rounding = trunk_of(proto)
        constants = {t.name: t for t in proto.graph.initializer}
        self.channels = _channels(proto, tensor, constants)
        inner = onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None)
        del proto.graph.output[:]
        proto.graph.output.append(inner)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def features(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """images uint8 (B, N, N, 3), masks bool (B, N, N) -> uint8 (B, C, N / 8, N / 8)."""
        feed = dict(zip(INPUTS, (images, masks.astype(np.uint8)), strict=True))
        return np.asarray(self._session.run(None, feed)[0])


def trunk_of(proto: onnx.ModelProto) -> tuple[str, Rounding]:
    """Name of the bytes that the trunk leaves, and their rounding. Raises EngineError where there are none."""
    shared = ancestors(proto, OUTPUTS[0]) & ancestors(proto, OUTPUTS[1])
    last = [node for node in proto.graph.node if node.op_type == "QuantizeLinear" and node.output[0] in shared]
    if not last:
        raise EngineError("no INT8 trunk", "a float model", "a file of `pilotage export quantize`")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    scale, zero = (constants[name] for name in last[-1].input[1:3])
    return last[-1].output[0], Rounding(float(scale), int(zero))


def ancestors(proto: onnx.ModelProto, output: str) -> set[str]:
    """Names of all tensors that an output is made of, itself included."""
    needed = {output}
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    return needed


def _channels(proto: onnx.ModelProto, tensor: str, constants: dict[str, onnx.TensorProto]) -> int:
    """Channels of the trunk, from the weights of the first convolution that reads it."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        source = producers.get(node.input[0]) if node.input else None
        if node.op_type == "Conv" and source is not None and source.input[0] == tensor:
            return int(constants[producers[node.input[1]].input[0]].dims[1])
    raise EngineError("no head on the trunk", tensor, "convolutions that read it")
