"""Open the engine that the config names."""

from __future__ import annotations

from pathlib import Path

from onboard.config import EngineConfig
from onboard.engine.base import SHIPPED_MODEL, Engine
from onboard.engine.onnx import OnnxEngine
from onboard.errors import EngineError


def open_engine(path: Path | str | None = None, config: EngineConfig = EngineConfig()) -> Engine:
    """The engine for a model file (None: the shipped one). Raises EngineError with the remedy."""
    path = Path(path) if path is not None else SHIPPED_MODEL
    if not path.is_file():
        raise EngineError("no model file", path, "an ONNX file", "leave --model out for the shipped one")
    if config.backend not in ("onnxruntime", "auto"):
        raise EngineError("engine backend", config.backend, "onnxruntime or auto", "TensorRT is not built in yet")
    return OnnxEngine(path, config)
