"""ONNX files small enough to be made anew for every test of the lint, the build and the engine files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onboard.engine.base import ModelFacts
from onboard.errors import EngineError

onnx = pytest.importorskip("onnx")  # who imports this is skipped where there is none

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

METADATA = {
    "format": "pilotage-overhead-1",
    "name": "toy",
    "precision": "int8 qdq (int8 activations)",
    "view_px": "64",
    "detail_stride": "8",
    "detail_channels": "3",
    "descriptor_dim": "5",
    "fine_stride": "4",
    "fine_channels": "3",
}
OUTPUTS = ("descriptor", "detail", "fine")


def assert_one_line(error: pytest.ExceptionInfo[EngineError], *words: str) -> None:
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def toy_model(
    path: Path, nodes: list[Any] | None = None, constants: dict[str, np.ndarray] | None = None, **changes: Any
) -> Path:
    """An ONNX file whose outputs are casts of its image; `nodes` and `constants` are added to the graph."""
    metadata, outputs, opset = (
        changes.get(key, value) for key, value in (("metadata", METADATA), ("outputs", OUTPUTS), ("opset", 18))
    )
    casts = [helper.make_node("Cast", ["mask"], ["mask_float"], "cast_mask", to=TensorProto.FLOAT)]
    casts += [helper.make_node("Cast", ["image"], [name], f"cast_{name}", to=TensorProto.FLOAT) for name in outputs]
    graph = helper.make_graph(
        [*casts, *(nodes or [])],
        "toy",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", 64, 64, 3]),
            helper.make_tensor_value_info("mask", TensorProto.UINT8, ["b", 64, 64]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 64, 64, 3]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def facts_of(model: Path) -> ModelFacts:
    return ModelFacts.from_metadata(model, METADATA)


def nowhere(phase: str, share: float) -> None:
    """Progress that nobody watches."""
