"""An ONNX file becomes a checkpoint again: what a training goes on from where only the file that flies was kept.

Batch norms were folded into their convolutions when the file was written; they come back as norms that change nothing,
and a training that starts here measures them anew (`training.grow.settle`). Of an INT8 file the weights are
those that fly, rounded to 8 bits. A descriptor head that was put on later (`export descriptor`) is left behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.dequantize import float_model
from export.facts import facts_of
from export.onnx import TOLERANCE, Deployed
from export.rewrite import FRONT, RGB
from onboard.engine.base import INPUTS, OUTPUTS
from onboard.errors import EngineError
from training.descriptor.trunk import ancestors
from training.model import ModelConfig, OverheadNet


def write_checkpoint(model: Path, out: Path) -> Path:
    """Write `out` (beside, then renamed); returns it. Raises EngineError for a file of another network."""
    net = network_of(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".partial")
    torch.save({"model": net.state_dict(), "model_config": dataclasses.asdict(net.config)}, beside)
    beside.replace(out)
    return out


def network_of(model: Path) -> OverheadNet:
    """The network of an ONNX file, float or INT8, in evaluation mode; its features were held against the file's."""
    if not model.is_file():
        raise EngineError("no model", model, "an ONNX file of `pilotage export onnx` or `quantize`")
    proto = onnx.load(model)
    if any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        proto = float_model(model)
    graph = _Graph(proto)
    try:
        net = graph.network()
    except (IndexError, KeyError, StopIteration, RuntimeError, ValueError) as error:
        expected = "the overhead network as `pilotage export onnx` writes it"
        raise EngineError("network of the file", f"{model} ({error})", expected) from error
    worst = _difference(proto, net)
    if worst > TOLERANCE:
        raise EngineError("checkpoint differs from its file", f"{worst:.2e}", f"at most {TOLERANCE}")
    return net


class _Graph:
    """A float graph, and what feeds what in it."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        self.producers = {name: node for node in proto.graph.node for name in node.output}

    def network(self) -> OverheadNet:
        """Shapes tell the sizes; the order along each path tells which weights are whose."""
        norm = next(node for node in self.proto.graph.node if node.op_type == "LayerNormalization")
        detail, fine = self._convolutions(OUTPUTS[1]), self._convolutions(OUTPUTS[2])
        encoder = detail[:-3]
        detail = detail[-3:]
        fine = [node for node in fine if node not in encoder]
        semantic = [node for node in self._convolutions(norm.input[0]) if node not in encoder]
        project = next(
            n for n in self.proto.graph.node if n.op_type == "Gemm" and self._is(n.input[0], "Exp")
        )  # of GeM
        net = OverheadNet(
            ModelConfig(
                view_px=int(facts_of(self.proto)["view_px"]),
                stem_channels=self._weight(encoder[0]).shape[0],
                quarter_channels=self._weight(encoder[1]).shape[0],
                trunk_channels=self._weight(encoder[4]).shape[0],
                trunk_blocks=1 + (len(encoder) - 5) // 2,
                detail_channels=self._weight(detail[-1]).shape[0],
                fine_channels=self._weight(fine[-1]).shape[0],
                descriptor_dim=self._matrix(project.input[1]).shape[0],
                semantic_channels=self._weight(semantic[0]).shape[0],
            )
        ).eval()
        self._fill(net, net.stem, encoder[:1])
        self._fill(net, net.quarter, encoder[1:4])
        self._fill(net, net.trunk, encoder[4:])
        self._fill(net, net.detail_head, detail)
        self._fill(net, net.up, fine[:1])
        with torch.no_grad():
            first = net.fine_head[0]
            assert isinstance(first, nn.BatchNorm2d)
            first.weight.copy_(torch.from_numpy(self._weight(fine[1]).flatten()))
            _plain(first, torch.from_numpy(self._bias(fine[1])))
        self._fill(net, net.fine_head[2:], fine[2:])
        self._fill(net, net.semantic_head, semantic)
        self._aggregator(net, norm, project)
        return net

    def _convolutions(self, tensor: str) -> list[onnx.NodeProto]:
        """Those that a tensor is made of, in order, without the normalisation's own."""
        needed = ancestors(self.proto, tensor)
        nodes = [n for n in self.proto.graph.node if n.op_type == "Conv" and n.output[0] in needed]
        return [node for node in nodes if not node.name.startswith(FRONT)]

    def _weight(self, node: onnx.NodeProto) -> np.ndarray:
        return self.constants[node.input[1]]

    def _bias(self, node: onnx.NodeProto) -> np.ndarray:
        return self.constants[node.input[2]].astype(np.float32)

    def _matrix(self, name: str) -> np.ndarray:
        """A linear layer's weight (outputs, inputs): a constant as torch has it, or its transpose in a product."""
        producer = self.producers.get(name)
        if producer is not None and producer.op_type == "Transpose":
            return self.constants[producer.input[0]]
        user = next(node for node in self.proto.graph.node if name in node.input)
        value = self.constants[name]
        return value if user.op_type == "Gemm" else value.T

    def _fill(self, net: OverheadNet, part: nn.Module, nodes: list[onnx.NodeProto]) -> None:
        """Weights of a chain of convolutions into the convolutions of a part, and their biases into the norms."""
        modules = list(_pairs(part))
        if len(modules) != len(nodes):
            raise ValueError(f"{len(nodes)} convolutions for {len(modules)}")
        with torch.no_grad():
            for (convolution, norm), node in zip(modules, nodes, strict=True):
                weight = self._weight(node)
                if convolution is net.stem[0]:
                    weight = weight[:, : 2 * RGB]  # the rest is zero, for speed
                convolution.weight.copy_(torch.from_numpy(np.array(weight, np.float32)))
                if norm is not None:
                    if norm.affine:
                        nn.init.ones_(norm.weight)
                    _plain(norm, torch.from_numpy(self._bias(node)))

    def _aggregator(self, net: OverheadNet, norm: onnx.NodeProto, project: onnx.NodeProto) -> None:
        """Self-attention: the product of queries and keys has the keys turned; values come from before the norm."""
        products = [node for node in self.proto.graph.node if node.op_type == "MatMul"]
        linear = [n for n in products if n.input[1] in self.constants or self._is_turned_constant(n.input[1])]
        turned = {n.output[0]: n.input[0] for n in self.proto.graph.node if n.op_type == "Transpose"}
        by_output = {n.output[0]: n for n in linear}
        scores = next(n for n in products if n not in linear and turned.get(n.input[1]) in by_output)
        query, key = by_output[scores.input[0]], by_output[turned[scores.input[1]]]
        value = next(n for n in linear if n.input[0] == norm.input[0])
        mixed = next(n for n in products if n.input[1] == value.output[0])
        restore = next(n for n in linear if n.input[0] == mixed.output[0])
        aggregator = net.aggregator
        power = next(
            self.constants[name]
            for node in self.proto.graph.node
            if node.op_type == "Mul" and any(self._is(name, "Log") for name in node.input)
            for name in node.input
            if name in self.constants
        )
        with torch.no_grad():
            for layer, node in (
                (aggregator.query, query),
                (aggregator.key, key),
                (aggregator.value, value),
                (aggregator.restore, restore),
                (aggregator.project, project),
            ):
                layer.weight.copy_(torch.from_numpy(np.array(self._matrix(node.input[1]), np.float32)))
            aggregator.norm.weight.copy_(torch.from_numpy(np.array(self.constants[norm.input[1]])))
            aggregator.norm.bias.copy_(torch.from_numpy(np.array(self.constants[norm.input[2]])))
            aggregator.power.copy_(torch.tensor(float(power)))

    def _is(self, name: str, op: str) -> bool:
        return name in self.producers and self.producers[name].op_type == op

    def _is_turned_constant(self, name: str) -> bool:
        return self._is(name, "Transpose") and self.producers[name].input[0] in self.constants


def _pairs(part: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """The convolutions of a part in the order that they run, each with the norm after it."""
    modules = [m for m in part.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for index, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            after = modules[index + 1] if index + 1 < len(modules) else None
            yield module, after if isinstance(after, nn.BatchNorm2d) else None


def _plain(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """A norm that adds `bias` and divides by one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_var.fill_(1.0 - norm.eps)
    if norm.affine:
        norm.running_mean.zero_()
        norm.bias.copy_(bias)
    else:
        norm.running_mean.copy_(-bias)


def _difference(proto: onnx.ModelProto, net: OverheadNet) -> float:
    """Largest difference of detail and fine features between a file and the network made of it."""
    n, rng = net.config.view_px, np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (1, n, n, 3), dtype=np.uint8), np.ones((1, n, n), np.uint8)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    told = session.run(list(OUTPUTS[1:]), dict(zip(INPUTS, (image, mask), strict=True)))
    with torch.no_grad():
        own = Deployed(net).eval()(torch.from_numpy(image), torch.from_numpy(mask))[1:]
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(told, own, strict=True))
