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
# Pictures that the CPU takes at once: a run of sixteen holds 100 MB more than one of four, and is no faster.
_SLICE = 4


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
        # It falls back by itself where CUDA is only half there.
        self._on_cuda = self._session.get_providers()[0] == CUDA
        self.backend = "onnxruntime" + (" on CUDA" if self._on_cuda else "") + (f" ({why})" if why else "")
        self.facts = ModelFacts.from_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        names = {value.name for value in self._session.get_inputs()}, {o.name for o in self._session.get_outputs()}
        if not set(INPUTS) <= names[0] or not set(OUTPUTS) <= names[1]:
            raise EngineError(
                "model inputs and outputs", sorted(names[0] | names[1]), ", ".join(INPUTS + OUTPUTS), "export it again"
            )

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        """See `Engine.embed`. The same numbers however many pictures come at once, unless one comes alone."""
        if self._on_cuda or len(images_rgb) <= _SLICE:
            return self._run(images_rgb, masks)
        parts = [self._run(images_rgb[part], masks[part]) for part in slices(len(images_rgb), _SLICE)]
        return Embeddings(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("descriptors", "detail", "fine"))
        )

    def _run(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        feed = {"image": images_rgb, "mask": masks.view(np.uint8)}
        return Embeddings(*self._session.run(list(OUTPUTS), feed))

    def close(self) -> None:
        del self._session


def slices(count: int, most: int) -> list[slice]:
    """`count` in as few slices of at most `most` as it takes, all nearly alike.

    None holds one alone (for `count` > 1 and `most` > 2): a product with a single row is computed in another order,
    and its last bit would depend on how many pictures came before it.
    """
    number = -(-count // most)
    ends = [count * (k + 1) // number for k in range(number)]
    return [slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]
