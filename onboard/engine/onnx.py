"""ONNX Runtime: the embedded default, on any computer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from onboard.config import EngineConfig
from onboard.engine.base import INPUTS, OUTPUTS, Embeddings, ModelFacts
from onboard.errors import EngineError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# ONNX Runtime 1.23.2, the newest for Python 3.10, fuses our INT8 model into something else: its outputs have cosines of
# 0.7 to 0.95 to the right ones, and change from call to call. Unfused they are right; 1.31 is right either way.
_FUSES_RIGHT = (1, 31)


def fastest_provider() -> str:
    """CUDA where this build of ONNX Runtime has it, else the CPU."""
    return CUDA if CUDA in onnxruntime.get_available_providers() else CPU


class OnnxEngine:
    """One session, a fixed number of threads, so that the same file gives the same numbers on one machine.

    `why` is told in `backend`: what kept TensorRT out.
    """

    def __init__(self, path: Path, config: EngineConfig = EngineConfig(), provider: str = CPU, why: str = "") -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < _FUSES_RIGHT:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[*dict.fromkeys((provider, CPU))]
            )
        except Exception as error:  # onnxruntime raises bare classes of its own, none documented
            first = str(error).splitlines()[0]
            raise EngineError(
                "unreadable model", f"{path} ({first})", "an ONNX file", "copy or export it again"
            ) from error
        on_cuda = self._session.get_providers()[0] == CUDA  # it falls back by itself where CUDA is only half there
        self.backend = "onnxruntime" + (" on CUDA" if on_cuda else "") + (f" ({why})" if why else "")
        self.facts = ModelFacts.from_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        names = {value.name for value in self._session.get_inputs()}, {o.name for o in self._session.get_outputs()}
        if not set(INPUTS) <= names[0] or not set(OUTPUTS) <= names[1]:
            raise EngineError(
                "model inputs and outputs", sorted(names[0] | names[1]), ", ".join(INPUTS + OUTPUTS), "export it again"
            )

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        """See `Engine.embed`."""
        feed = {"image": images_rgb, "mask": masks.view(np.uint8)}
        descriptors, detail, fine = self._session.run(list(OUTPUTS), feed)
        return Embeddings(descriptors, detail, fine)

    def close(self) -> None:
        del self._session
