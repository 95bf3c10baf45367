"""INT8 by explicit QDQ from one float model, a file for each runtime, since each wants its own.

| target      | activations                | weights                     | biases  |
|-------------|----------------------------|-----------------------------|---------|
| onnxruntime | uint8 with zero points     | int8 symmetric, per channel | int32   |
| tensorrt    | int8 symmetric, zero is 0  | int8 symmetric, per channel | float32 |

Only the convolutions and what lies between them are quantized; normalisation, attention, GeM and the unit norms stay
float32, and so do the groups of layers that `export.sensitivity` found not to bear it. Calibrated on real views.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.compact import round_before_joining, shorten_names, store_weights_in_bytes
from export.facts import facts_of, read_model, set_facts, sha256_of
from export.rewrite import FRONT
from onboard.errors import EngineError

MIN_CALIBRATION = 16
PERCENTILE = 99.995
CONVOLUTIONAL = ("Conv", "Add", "Relu", "Resize")

# ONNX Runtime 1.23, the newest for Python 3.10, calibrates anew each time.
_KEEPS_RANGES = "calibration_cache_path" in inspect.signature(quantize_static).parameters

View = tuple[np.ndarray, np.ndarray]  # image uint8 (N, N, 3) RGB, mask bool (N, N)


class Target(str, Enum):
    """The runtime that an INT8 file is for."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


def target_of(name: str) -> Target:
    """Raises EngineError for a runtime that there is no recipe for."""
    try:
        return Target(name)
    except ValueError as error:
        raise EngineError("quantization target", name, " or ".join(t.value for t in Target)) from error


_ACTIVATION = {Target.ONNXRUNTIME: QuantType.QUInt8, Target.TENSORRT: QuantType.QInt8}
_OPTIONS: dict[Target, dict[str, object]] = {
    Target.ONNXRUNTIME: {"MatMulConstBOnly": True},
    # What TensorRT's parser refuses otherwise: zero points, int32 biases, products of two activations.
    Target.TENSORRT: {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "MatMulConstBOnly": True,
    },
}
_PRECISION = {
    Target.ONNXRUNTIME: "int8 qdq (uint8 activations, int8 weights per channel)",
    Target.TENSORRT: "int8 qdq (int8 symmetric activations, int8 weights per channel, no bias quantized)",
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(
    model: Path,
    out: Path,
    frames: Iterable[View],
    target: Target | str = Target.ONNXRUNTIME,
    keep_float: Collection[str] = (),
    ranges: Path | None = None,
) -> Path:
    """Write the INT8 file of a float model (beside, then renamed).

    keep_float: names of further nodes that stay float. ranges: see `write_int8`. Raises EngineError for fewer than 16
    frames, for frames of another size than the model's, or for a file that is no float model.
    """
    target, proto = target_of(target), read_model(model)
    batches = _batches(proto, model, frames)
    prepared = out.with_suffix(".prepared.onnx")
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "float_parent_sha256": sha256_of(model),
        "calibration": f"{len(batches)} frames, percentile {PERCENTILE}",
        "kept_float": " ".join(sorted(keep_float)) or "normalisation, attention, GeM, unit norms",
    }
    try:
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        exclude = {*float_nodes(onnx.load(prepared)), *keep_float}
        facts = facts_of(proto) | facts
        return write_int8(prepared, out, batches, target, CONVOLUTIONAL, exclude, facts, ranges=ranges)
    finally:
        prepared.unlink(missing_ok=True)


def write_int8(
    model: Path,
    out: Path,
    batches: Iterable[dict[str, np.ndarray]],
    target: Target,
    op_types: Collection[str],
    exclude: Collection[str],
    facts: Mapping[str, object],
    calibration: CalibrationMethod = CalibrationMethod.Percentile,
    ranges: Path | None = None,
) -> Path:
    """Quantize the nodes of `op_types` but those of `exclude`, calibrated on what `batches` feed (beside, renamed).

    ranges: a file that keeps what the calibration found, or holds what an earlier one did: of the same model and
    frames, and by percentiles of the same target.
    """
    beside = out.with_suffix(".partial.onnx")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the calibrator prints
            quantize_static(
                str(model),
                str(beside),
                _Reader(iter(batches)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(op_types),
                nodes_to_exclude=sorted(exclude),
                per_channel=True,
                activation_type=_ACTIVATION[target],
                weight_type=QuantType.QInt8,
                calibrate_method=calibration,
                **({"calibration_cache_path": ranges} if _KEEPS_RANGES else {}),
                extra_options={"CalibPercentile": PERCENTILE, **_OPTIONS[target]},
            )
        quantized = onnx.load(beside)
        if target is Target.ONNXRUNTIME:
            store_weights_in_bytes(quantized)
            round_before_joining(quantized)
        shorten_names(quantized)
        set_facts(quantized, {**facts, "precision": _PRECISION[target], "runtime": target.value})
        onnx.save(quantized, beside)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return out


def _batches(proto: onnx.ModelProto, model: Path, frames: Iterable[View]) -> list[dict[str, np.ndarray]]:
    """The frames as a session is fed. Raises EngineError."""
    facts = facts_of(proto)
    if any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
        raise EngineError("model to quantize", f"{model} is INT8 already", "a float32 model", "see: export dequantize")
    if not facts.get("view_px", "").isdigit():
        raise EngineError("model metadata", f"{model} has no view_px", "a Pilotage model", "export it again")
    size = int(facts["view_px"])
    batches = [{"image": image[None], "mask": mask[None].astype(np.uint8)} for image, mask in frames]
    if len(batches) < MIN_CALIBRATION:
        raise EngineError("calibration frames", len(batches), f"at least {MIN_CALIBRATION}", "give more imagery")
    for batch in batches:
        if batch["image"].shape != (1, size, size, 3) or batch["mask"].shape != (1, size, size):
            raise EngineError("calibration frame", batch["image"].shape[1:], f"({size}, {size}, 3) and its mask")
    return batches


def float_nodes(proto: onnx.ModelProto) -> list[str]:
    """Nodes that stay float: all that no convolution comes before, and all that a norm or attention feeds."""
    producers = {output: node for node in proto.graph.node for output in node.output}
    after_convolution: set[str] = set()
    after_other: set[str] = set()
    keep_float = []
    for node in proto.graph.node:  # topological order
        if node.name.startswith(FRONT):
            keep_float.append(node.name)
            continue
        sources = [producers[i] for i in node.input if i in producers]
        fed = node.op_type == "Conv" or any(s.name in after_convolution for s in sources)
        tainted = (node.op_type not in (*CONVOLUTIONAL,) and fed) or any(s.name in after_other for s in sources)
        if fed:
            after_convolution.add(node.name)
        if tainted:
            after_other.add(node.name)
        if (not fed or tainted) and node.op_type in CONVOLUTIONAL:
            keep_float.append(node.name)
    return keep_float


def training_frames(data: Path, count: int, seed: int) -> Iterator[View]:
    """Views and tiles as training draws them, in turn: (image uint8 (N, N, 3), mask bool (N, N))."""
    from training.data.ground import naip_places, split
    from training.data.pairs import draw_pair
    from training.data.stream import CITIES

    grounds = [ground for city in CITIES for ground in split(naip_places(data / "naip", city))[0]]
    rng = np.random.default_rng(seed)
    for _ in range(count // 2):
        pair = draw_pair(grounds[rng.integers(len(grounds))], grounds[rng.integers(len(grounds))], rng)
        yield pair.view, pair.view_mask
        yield pair.tile, pair.tile_mask
