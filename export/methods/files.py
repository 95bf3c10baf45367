"""The files of a profile: FP32, FP16, INT8 for each runtime; and the card that says which of them flies."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod

from export.facts import facts_of, read_model, sha256_of
from export.half import half_model
from export.methods.onnx import FORMAT
from export.quantize import MIN_CALIBRATION, Target, write_int8
from onboard.errors import EngineError

FP32, FP16, INT8, INT8_TENSORRT = "fp32", "fp16", "int8", "int8-tensorrt"
PRECISIONS = (FP32, FP16, INT8, INT8_TENSORRT)
CARD = "card.json"
_QUANTIZED = ("Conv", "MatMul", "Gemm")

Feed = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class ProfileFiles:
    """One profile's files by precision."""

    profile: str
    files: Mapping[str, Path]


def make_files(whole: Path, feeds: Sequence[Feed]) -> ProfileFiles:
    """FP16 and both INT8 files beside a float32 one (NAME.onnx: NAME.fp16.onnx and so on), calibrated on `feeds`.

    Raises EngineError for fewer than 16 feeds.
    """
    if len(feeds) < MIN_CALIBRATION:
        raise EngineError("calibration pictures", len(feeds), f"at least {MIN_CALIBRATION}", "give more pairs")
    proto = read_model(whole)
    files = {FP32: whole, FP16: half_model(whole, _beside(whole, FP16))}
    facts: dict[str, object] = {
        **facts_of(proto),
        "float_parent_sha256": sha256_of(whole),
        "calibration": f"{len(feeds)} pictures, largest and smallest values",
        "kept_float": "norms, softmax, pooling, products of two activations",
    }
    exclude = unquantized(proto)
    with tempfile.TemporaryDirectory() as folder:
        ranges = Path(folder) / "ranges.json"  # the same for both runtimes
        for precision, target in ((INT8, Target.ONNXRUNTIME), (INT8_TENSORRT, Target.TENSORRT)):
            # Largest and smallest values, not percentiles: a transformer's few large activations carry what it knows.
            how = CalibrationMethod.MinMax
            out = _beside(whole, precision)
            files[precision] = write_int8(whole, out, feeds, target, _QUANTIZED, exclude, facts, how, ranges)
    return ProfileFiles(facts_of(proto)["profile"], files)


def unquantized(proto: onnx.ModelProto) -> list[str]:
    """Convolutions whose kernel is computed (UnifyGeo's template): products of two activations, which stay float."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [node.name for node in proto.graph.node if node.op_type == "Conv" and node.input[1] not in weights]


def _beside(whole: Path, precision: str) -> Path:
    return whole.with_suffix(f".{precision}.onnx")


class Session:
    """A profile's file on the CPU."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        """Raises EngineError for what is no profile of a method."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises bare classes of its own, none documented
            first = str(error).splitlines()[0]
            raise EngineError("unreadable model", f"{path} ({first})", "an ONNX file", "export it again") from error
        self.facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if self.facts.get("format") != FORMAT:
            raise EngineError("not a profile of a method", path, f"metadata format={FORMAT}", "see: export model")
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.sizes = {value.name: tuple(value.shape) for value in self._session.get_inputs()}

    def run(self, feed: Feed) -> list[np.ndarray]:
        """All outputs in their order."""
        return list(self._session.run(None, feed))


def write_card(folder: Path, facts: Mapping[str, Any], files: Sequence[ProfileFiles], flies: str) -> Path:
    """CARD: what the method is, its profiles, and of each precision the file, its bytes and its SHA-256."""
    content = {
        **facts,
        "format": FORMAT,
        "flies": flies,
        "profiles": {
            one.profile: {
                precision: {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
                for precision, path in one.files.items()
            }
            for one in files
        },
    }
    beside = folder / f"{CARD}.partial"
    beside.write_text(json.dumps(content, indent=1))
    beside.replace(folder / CARD)
    return folder / CARD
