"""The GPU by way of pycuda, and TensorRT's library: found when they are asked for, never on import.

pycuda keeps a stack of contexts per thread, and what it allocates may only be freed where its context is current.
So the context is current for one call at a time, in whichever thread makes the call: the engine is opened by the
main thread, asked by the localizer's, and closed by the main one.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from onboard.errors import EngineError

_logger = logging.getLogger(__name__)


def load_tensorrt() -> Any:
    """The module `tensorrt`, which JetPack brings. Raises EngineError where there is none."""
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise EngineError(
            "TensorRT cannot be loaded", first_line(error), "JetPack's or pip's tensorrt", "or use backend onnxruntime"
        ) from error


def load_cuda() -> Any:
    """The module `pycuda.driver`. Raises EngineError where there is none, or no libcuda."""
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise EngineError(
            "CUDA cannot be loaded", first_line(error), "pycuda", "install it with: pip install 'pilotage[jetson]'"
        ) from error


def first_line(error: object) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Pinned memory `host` and as much on the GPU, `device`, for one tensor of fixed shape."""

    host: np.ndarray
    device: Any

    def free(self) -> None:
        try:
            self.device.free()
        finally:
            self.host.base.free()  # type: ignore[union-attr]  # pycuda's own object holds the pinned memory


class CudaDevice:
    """The primary context of one GPU, which TensorRT and the CUDA runtime use too."""

    def __init__(self, cuda: Any, index: int = 0) -> None:
        self.cuda = cuda
        try:
            cuda.init()
            device = cuda.Device(index)
            self.name: str = device.name()
            self.compute_capability = "{}.{}".format(*device.compute_capability())
            self._context = device.retain_primary_context()
        except cuda.Error as error:
            raise EngineError(
                "no usable CUDA device", first_line(error), "an NVIDIA GPU and its driver", "or use backend onnxruntime"
            ) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context is this thread's inside. What CUDA complains of comes out as EngineError."""
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except self.cuda.Error as error:
            raise EngineError(
                "CUDA failed", first_line(error), "a GPU with enough free memory", "see dmesg; then start again"
            ) from error

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Memory for one tensor; the context must be current."""
        host = self.cuda.pagelocked_empty(shape, dtype)
        try:
            return Buffer(host, self.cuda.mem_alloc(host.nbytes))
        except BaseException:
            host.base.free()
            raise

    def close(self) -> None:
        """Let the context go. All that was made in it must be gone before."""
        self._context.detach()


def make_log(trt: Any) -> Any:
    """A TensorRT logger: warnings go to ours, errors are kept in `errors` for whoever raises."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            if severity <= trt.ILogger.ERROR:
                self.errors.append(line)
            elif severity == trt.ILogger.WARNING:
                _logger.warning("TensorRT: %s", line)

        def last(self) -> str:
            return self.errors[-1] if self.errors else "it did not say why"

    return Log()
