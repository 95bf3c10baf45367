"""A new S-head on a shipped INT8 model: encoder, detail and fine features stay as they are, bit for bit.

The new head reads the same bytes of the trunk as the old one. Its 1x1 convolutions are INT8 like the rest, calibrated
on what the trunk makes of training views; softmax, sums and unit norms stay float32, and the weights of the projection
are stored in bytes. Its descriptor goes beside the old one: the two, weighed by the roots of their shares, are one
vector of unit norm, whose cosine is the mean of theirs. With a share of 1 the old head, every node that only the
descriptor needs, is taken out. The file is held against torch before it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod
from torch import Tensor, nn

from export.compact import shorten_names
from export.facts import facts_of, git_revision, read_model, save_model, set_facts, sha256_of
from export.onnx import OPSET
from export.quantize import MIN_CALIBRATION, Target, View, write_int8
from onboard.engine.base import INPUTS, OUTPUTS
from onboard.errors import EngineError
from training.descriptor.head import DescriptorHead, load_head
from training.descriptor.trunk import FrozenTrunk, Rounding, ancestors, trunk_of

TRUNK = "trunk"
SHARE = 0.6  # of the new head in the cosine: what found most on the places held back
ALIKE = 0.995  # least mean cosine between the file's descriptors and torch's


class _Deployed(nn.Module):
    """The head as it is spliced in: the trunk's numbers and the picture's mask, in bytes."""

    def __init__(self, head: DescriptorHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, trunk: Tensor, mask: Tensor) -> Tensor:
        share = nn.functional.avg_pool2d(mask.to(torch.float32)[:, None], 8, 8)
        return self.head(trunk, share)  # type: ignore[no-any-return]


def with_head(head_path: Path, model: Path, out: Path, frames: Iterable[View], share: float = SHARE) -> Path:
    """Write `out` (beside, then renamed): `model` with another head, whose cosine counts by `share` beside the old
    head's. Raises EngineError where they do not fit."""
    head, about = load_head(head_path)
    proto, trunk = read_model(model), FrozenTrunk(model)
    if not 0 < share <= 1:
        raise EngineError("share of the new head", share, "above 0, at most 1")
    if about.get("model_sha256") not in ("", None, sha256_of(model)):
        raise EngineError("head of another model", head_path, f"one trained on {model}", "train it on this one")
    if head.config.trunk_channels != trunk.channels:
        raise EngineError("head", f"{head.config.trunk_channels} channels", f"{trunk.channels}, as the trunk has")
    views = list(frames)
    if len(views) < MIN_CALIBRATION:
        raise EngineError("calibration frames", len(views), f"at least {MIN_CALIBRATION}", "give more imagery")
    images, masks = (np.stack([view[k] for view in views]) for k in (0, 1))
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = [out.with_suffix(f".{name}.onnx") for name in ("head", "head8", "whole")]
    try:
        _export(head, parts[0], trunk.channels, masks.shape[1])
        _quantize(parts[0], parts[1], trunk, images, masks)
        _splice(proto, onnx.load(parts[1]), share)
        old_dim = int(facts_of(proto)["descriptor_dim"]) if share < 1 else 0
        facts = {"descriptor_dim": old_dim + head.config.descriptor_dim, "descriptor_head_share": share}
        facts |= {"descriptor_head_sha256": sha256_of(head_path)}
        facts |= {"descriptor_onto_sha256": sha256_of(model), "descriptor_git_revision": git_revision()}
        set_facts(proto, facts | {f"descriptor_{key}": value for key, value in about.items() if key != "model_sha256"})
        save_model(proto, parts[2])
        _check(parts[2], model, head, trunk, images[:16], masks[:16], share)
        parts[2].replace(out)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return out


def _export(head: DescriptorHead, path: Path, channels: int, side: int) -> None:
    example = torch.rand(2, channels, side // 8, side // 8), torch.ones(2, side, side, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(
        _Deployed(head).eval(),
        example,
        input_names=[TRUNK, INPUTS[1]],
        output_names=[OUTPUTS[0]],
        dynamic_shapes={"trunk": {0: batch}, "mask": {0: batch}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    ).save(str(path), external_data=False)
    proto = onnx.load(path)
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(proto, path)


def _quantize(path: Path, out: Path, trunk: FrozenTrunk, images: np.ndarray, masks: np.ndarray) -> None:
    """INT8 of the convolutions; the trunk's numbers are rounded anew, as this head's calibration wants them."""
    batches = [
        {
            TRUNK: _numbers(trunk.features(images[i : i + 1], masks[i : i + 1]), trunk.rounding),
            INPUTS[1]: masks[i : i + 1].astype(np.uint8),
        }
        for i in range(len(images))
    ]
    write_int8(path, out, batches, Target.ONNXRUNTIME, ("Conv", "Relu"), (), {}, CalibrationMethod.Percentile)


def _numbers(features: np.ndarray, rounding: Rounding) -> np.ndarray:
    return (features.astype(np.float32) - rounding.zero) * np.float32(rounding.scale)


def _splice(proto: onnx.ModelProto, head: onnx.ModelProto, share: float) -> None:
    """Put `head` beside the old head of `proto`, or in its place where its share is all; in place."""
    bytes_, _ = trunk_of(proto)
    trunk = next(n.output[0] for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == bytes_)
    out = OUTPUTS[0] if share == 1 else "new"
    ports = {TRUNK: trunk, INPUTS[1]: INPUTS[1], OUTPUTS[0]: out, "": ""}
    prefix = _free_prefix(proto)
    for node in head.graph.node:
        node.name = prefix + node.name
        for names in (node.input, node.output):
            names[:] = [ports.get(name, prefix + name) for name in names]
    for tensor in head.graph.initializer:
        tensor.name = prefix + tensor.name
    if share == 1:
        kept = ancestors(proto, OUTPUTS[1]) | ancestors(proto, OUTPUTS[2]) | {trunk}
        _keep(proto, kept)
        joined = []
    else:
        for node in proto.graph.node:
            node.output[:] = ["old" if name == OUTPUTS[0] else name for name in node.output]
        joined = _joined(proto, share, prefix)
    proto.graph.node.extend([*head.graph.node, *joined])
    proto.graph.initializer.extend(head.graph.initializer)
    place = next(k for k, value in enumerate(proto.graph.output) if value.name == OUTPUTS[0])
    old_dim = int(facts_of(proto)["descriptor_dim"]) if share < 1 else 0
    proto.graph.output[place].CopyFrom(head.graph.output[0])
    proto.graph.output[place].type.tensor_type.shape.dim[1].dim_value += old_dim
    shorten_names(proto)


def _keep(proto: onnx.ModelProto, kept: set[str]) -> None:
    """Leave out the nodes and constants that make none of the tensors `kept`."""
    nodes = [node for node in proto.graph.node if kept & set(node.output)]
    constants = [tensor for tensor in proto.graph.initializer if tensor.name in kept]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(constants)


def _free_prefix(proto: onnx.ModelProto) -> str:
    """What no node's name begins with: a model that has a spliced head already can be given another."""
    names = [node.name for node in proto.graph.node]
    prefixes = (f"descriptor{k or ''}/" for k in count())
    return next(prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names))


def _joined(proto: onnx.ModelProto, share: float, prefix: str) -> list[onnx.NodeProto]:
    """The tensors "old" and "new" as one descriptor of unit norm: the old first."""
    nodes = []
    for name, part in (("old", 1 - share), ("new", share)):
        weight = numpy_helper.from_array(np.array(np.sqrt(part), np.float32), f"{name}_weight")
        proto.graph.initializer.append(weight)
        nodes.append(onnx.helper.make_node("Mul", [name, weight.name], [f"{name}_part"], f"{prefix}{name}_part"))
    join = onnx.helper.make_node("Concat", ["old_part", "new_part"], [OUTPUTS[0]], f"{prefix}join", axis=1)
    return [*nodes, join]


def _check(
    made: Path,
    model: Path,
    head: DescriptorHead,
    trunk: FrozenTrunk,
    images: np.ndarray,
    masks: np.ndarray,
    share: float,
) -> None:
    """Raises EngineError where anything but the descriptor changed, or where that is not what torch gives."""
    feed = dict(zip(INPUTS, (images, masks.astype(np.uint8)), strict=True))
    new, old = (_session(path).run(list(OUTPUTS), feed) for path in (made, model))
    for name, after, before in zip(OUTPUTS[1:], new[1:], old[1:], strict=True):
        if not np.array_equal(after, before):
            raise EngineError(f"{name} with the new head", "other numbers", "the same, bit for bit", "report it")
    numbers = torch.from_numpy(_numbers(trunk.features(images, masks), trunk.rounding))
    with torch.no_grad():
        wanted = _Deployed(head).eval()(numbers, torch.from_numpy(masks.astype(np.uint8))).numpy()
    found = new[0][:, -head.config.descriptor_dim :] / np.sqrt(share)
    cosine = float((found * wanted).sum(axis=1).mean())
    if not cosine >= ALIKE:
        raise EngineError("INT8 descriptor beside torch's", f"cosine {cosine:.4f}", f"at least {ALIKE}")


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
