"""INT8 by explicit QDQ for ONNX Runtime: weights per channel, activations uint8, calibrated on real views.

Only the convolutions and what lies between them are quantized; normalisation, attention, GeM and the unit
norms stay float32. (TensorRT wants another recipe; one float model, a file for each runtime.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onboard.errors import EngineError

MIN_CALIBRATION = 16
_CONVOLUTIONAL = ("Conv", "Add", "Relu", "Resize")


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(model: Path, out: Path, frames: Iterable[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write the INT8 file of a float model (beside, then renamed).

    frames: (image uint8 (N, N, 3), mask bool (N, N)). Raises EngineError for fewer than 16.
    """
    batches = [{"image": image[None], "mask": mask[None].astype(np.uint8)} for image, mask in frames]
    if len(batches) < MIN_CALIBRATION:
        raise EngineError("calibration frames", len(batches), f"at least {MIN_CALIBRATION}", "give more imagery")
    prepared, beside = out.with_suffix(".prepared.onnx"), out.with_suffix(".partial.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    proto = onnx.load(prepared)
    quantize_static(
        str(prepared),
        str(beside),
        _Reader(iter(batches)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_CONVOLUTIONAL),
        nodes_to_exclude=float_nodes(proto),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"CalibPercentile": 99.995},
    )
    prepared.unlink()
    quantized = onnx.load(beside)
    facts = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    facts |= {"precision": "int8 qdq (uint8 activations, int8 weights per channel)"}
    del quantized.metadata_props[:]
    onnx.helper.set_model_props(quantized, facts)
    onnx.save(quantized, beside)
    beside.replace(out)
    return out


def float_nodes(proto: onnx.ModelProto) -> list[str]:
    """Nodes that stay float: all that no convolution comes before, and all that a norm or attention feeds."""
    producers = {output: node for node in proto.graph.node for output in node.output}
    after_convolution: set[str] = set()
    after_other: set[str] = set()
    keep_float = []
    for node in proto.graph.node:  # topological order
        sources = [producers[i] for i in node.input if i in producers]
        fed = node.op_type == "Conv" or any(s.name in after_convolution for s in sources)
        tainted = (node.op_type not in (*_CONVOLUTIONAL,) and fed) or any(s.name in after_other for s in sources)
        if fed:
            after_convolution.add(node.name)
        if tainted:
            after_other.add(node.name)
        if (not fed or tainted) and node.op_type in _CONVOLUTIONAL:
            keep_float.append(node.name)
    return keep_float


def training_frames(data: Path, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views and tiles as training draws them, in turn: (image uint8 (N, N, 3), mask bool (N, N))."""
    from training.data.ground import naip_places, split
    from training.data.pairs import draw_pair
    from training.train import CITIES

    grounds = [ground for city in CITIES for ground in split(naip_places(data / "naip", city))[0]]
    rng = np.random.default_rng(seed)
    for _ in range(count // 2):
        pair = draw_pair(grounds[rng.integers(len(grounds))], grounds[rng.integers(len(grounds))], rng)
        yield pair.view, pair.view_mask
        yield pair.tile, pair.tile_mask
