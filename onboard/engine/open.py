"""Open the engine that the config names."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from onboard.config import EngineConfig
from onboard.engine.base import SHIPPED_MODEL, Engine
from onboard.engine.cache import NoEngine, candidates, engine_folder, sha256_of
from onboard.engine.onnx import OnnxEngine, fastest_provider
from onboard.engine.tensorrt import open_tensorrt
from onboard.errors import EngineError

_logger = logging.getLogger(__name__)
BACKENDS = ("auto", "onnxruntime", "tensorrt")


def open_engine(path: Path | str | None = None, config: EngineConfig = EngineConfig()) -> Engine:
    """The engine for a model file (None: the shipped one). Raises EngineError with the remedy.

    `onnxruntime` runs on the CPU. `tensorrt` needs TensorRT, CUDA and a matching engine. `auto` takes TensorRT where
    all of that is there, else ONNX Runtime on CUDA or the CPU; the engine's `backend` says which, and why.
    """
    path = Path(path) if path is not None else SHIPPED_MODEL
    if not path.is_file():
        raise EngineError("no model file", path, "an ONNX file", "leave --model out for the shipped one")
    if path.suffix == ".engine":
        raise EngineError("a TensorRT engine is not a model", path, "the ONNX file that it was built from")
    if config.backend not in BACKENDS:
        raise EngineError("engine backend", config.backend, ", ".join(BACKENDS))
    if config.backend == "onnxruntime":
        return OnnxEngine(path, config)
    if config.backend == "tensorrt":
        return _tensorrt(path, config)
    if not config.build_missing and not candidates(sha256_of(path), engine_folder(path, config.folder)):
        return OnnxEngine(path, config, fastest_provider(), "no TensorRT engine was built for this model")
    try:
        return _tensorrt(path, config)
    except EngineError as error:  # somebody built an engine or asks for one, and should know that it does not fly
        _logger.warning("ONNX Runtime instead of TensorRT: %s", error)
        return OnnxEngine(path, config, fastest_provider(), str(error))


def _tensorrt(model: Path, config: EngineConfig) -> Engine:
    """The engine for this machine; built first where it is missing and the config allows it."""
    try:
        return open_tensorrt(model, config)
    except NoEngine as error:
        if not config.build_missing:
            raise
        _logger.info("%s", error)
    build(model, config)
    return open_tensorrt(model, config)


def build(model: Path, config: EngineConfig) -> None:
    """Build an engine as `pilotage export engine` does.

    In a process of its own: `onboard` knows nothing of `export`, and the builder's memory is given back.
    """
    command = ["export", "engine", str(model), "--out", str(engine_folder(model, config.folder))]
    if config.dla_core >= 0:
        command += ["--dla-core", str(config.dla_core)]
    code = "from onboard.cli import main; main()"
    status = subprocess.run([sys.executable, "-c", code, *command], check=False).returncode
    if status != 0:
        raise EngineError(
            "building the engine failed", f"exit status {status}", "0", f"try: pilotage {' '.join(command)}"
        )
