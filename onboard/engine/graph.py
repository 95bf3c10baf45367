"""CUDA graphs: the work of one batch, recorded once and then launched by one call.

A small network is many short kernels, and on a Jetson's CPU launching them one by one takes longer than running them.
pycuda knows no graphs, so these few functions of the driver are called by ctypes. Every one returns a CUresult.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from onboard.errors import EngineError

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do cannot spoil the recording


def load_driver() -> Any:
    """libcuda. Raises EngineError where there is none."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError("the CUDA driver cannot be loaded", error, "libcuda.so.1") from error


class CapturedGraph:
    """What `enqueue` put on a stream, ready to be launched again. The CUDA context must be current in every call."""

    def __init__(self, driver: Any, stream: int, enqueue: Callable[[], None]) -> None:
        """Raises EngineError when the driver cannot record it; the stream is then out of capture mode again."""
        self._driver, self._stream = driver, ctypes.c_void_p(stream)
        graph = self._record(enqueue)
        self._executable = ctypes.c_void_p()
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)  # the executable is a copy

    def _record(self, enqueue: Callable[[], None]) -> ctypes.c_void_p:
        graph = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        try:
            enqueue()
        except BaseException:
            # The stream must leave capture mode; that the recording is spoiled is known.
            self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
            if graph.value:
                self._driver.cuGraphDestroy(graph)
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        return graph

    def launch(self) -> None:
        """Put the recorded work on its stream."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            raise EngineError("CUDA failed", f"{name} gave {code}", "0", "see dmesg; then start again")
