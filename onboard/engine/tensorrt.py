"""TensorRT: an engine that `pilotage export engine` built on this very kind of machine.

The localizer embeds batches of a few sizes: one view and two candidates while tracking, three to look again, nine
headings by heights when unsure, sixteen at most (`onboard.match.locate`), eight in a map's making. An engine holds one
profile of fixed shape for each of a few sizes; a batch goes into the smallest that holds it. A fixed shape is what
TensorRT tunes best, and what a CUDA graph needs; a profile for all sizes is tuned for one and recorded for none.
Each profile has its own execution context, its own buffers and its own graph, made once, in the beginning.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onboard.config import EngineConfig
from onboard.engine.base import INPUTS, OUTPUTS, Embeddings, ModelFacts
from onboard.engine.cache import EngineRecord, NoEngine, Target, engine_folder, find_engine, read_engine, rebuild
from onboard.engine.device import Buffer, CudaDevice, first_line, load_cuda, load_tensorrt, make_log
from onboard.engine.graph import CapturedGraph, load_driver
from onboard.errors import EngineError

_logger = logging.getLogger(__name__)


def open_tensorrt(model: Path, config: EngineConfig) -> TensorRtEngine:
    """The engine of an ONNX file for this machine. Raises EngineError with the remedy when anything is missing."""
    trt = load_tensorrt()
    folder = engine_folder(model, config.folder)
    remedy = rebuild(model, folder, config.dla_core)
    with ExitStack() as stack:
        device = stack.enter_context(closing(CudaDevice(load_cuda())))
        target = Target(trt.__version__, device.name, device.compute_capability, config.dla_core)
        path, record = find_engine(model, folder, target)
        facts = ModelFacts.from_metadata(model, record.metadata)
        engine = TensorRtEngine(trt, device, read_engine(path, record, remedy), record, facts, remedy)
        stack.pop_all()  # the device is the engine's now
    return engine


@dataclass(slots=True)
class _Lane:
    """One profile: its context, so many pictures at once, buffers by tensor name, and the work if it was recorded."""

    context: Any
    batch: int = 0
    inputs: dict[str, Buffer] = field(default_factory=dict)
    outputs: dict[str, Buffer] = field(default_factory=dict)
    graph: CapturedGraph | None = None


class TensorRtEngine:
    """One engine on one stream. `embed` may be called from any thread, one call at a time; `close` likewise."""

    def __init__(
        self, trt: Any, device: CudaDevice, content: bytes, record: EngineRecord, facts: ModelFacts, remedy: str
    ) -> None:
        """Owns `device` once it is made; when it raises, all is freed but `device`."""
        self.facts = facts
        self._trt, self._device, self._remedy = trt, device, remedy
        self._lock = threading.Lock()
        self._lanes: list[_Lane] = []
        with device.current(), ExitStack() as held:
            self._log = make_log(trt)
            held.callback(self._drop)  # last of all: what TensorRT made goes while the context is current
            self._load(content, record)
            self._stream = device.cuda.Stream()
            for index in range(self._engine.num_optimization_profiles):
                self._open_lane(index, held)
            self._lanes.sort(key=lambda lane: lane.batch)
            recorded = self._record_graphs(held)
            self._held: ExitStack | None = held.pop_all()
        self.backend = f"tensorrt {record.target.tensorrt} on {device.name}, {record.precision}"
        if not recorded:
            self.backend += ", without CUDA graphs"

    def _load(self, content: bytes, record: EngineRecord) -> None:
        self._runtime = self._trt.Runtime(self._log)
        if record.target.dla_core >= 0:
            self._runtime.DLA_core = record.target.dla_core
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise NoEngine("TensorRT refuses the engine", self._log.last(), str(record.target), self._remedy)
        names = {self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)}
        if names != {*INPUTS, *OUTPUTS}:
            raise NoEngine(
                "engine inputs and outputs", ", ".join(sorted(names)), ", ".join(INPUTS + OUTPUTS), self._remedy
            )

    def _open_lane(self, index: int, held: ExitStack) -> None:
        """The context of a profile with its buffers, all of them registered to be freed."""
        # Held by the lane alone: a local name would live on in the traceback of what fails below.
        lane = _Lane(self._engine.create_execution_context())
        self._lanes.append(lane)
        if lane.context is None:
            raise EngineError("TensorRT gives no context", self._log.last(), "enough free GPU memory", "close programs")
        if self._engine.num_optimization_profiles > 1:
            lane.context.set_optimization_profile_async(index, self._stream.handle)
            self._stream.synchronize()
        for name in INPUTS:
            shape = tuple(self._engine.get_tensor_profile_shape(name, index)[2])  # of least, best, most: all the same
            if not lane.context.set_input_shape(name, shape):
                raise EngineError("TensorRT refuses a shape", f"{name} {shape}", "the profile's own", self._remedy)
            lane.batch = shape[0]
        lane.inputs = {name: self._buffer(lane, name, held) for name in INPUTS}
        lane.outputs = {name: self._buffer(lane, name, held) for name in OUTPUTS}

    def _buffer(self, lane: _Lane, name: str, held: ExitStack) -> Buffer:
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        if name in INPUTS and dtype != np.uint8:
            raise EngineError("engine input", f"{name} is {dtype}", "uint8", self._remedy)
        buffer = self._device.buffer(tuple(lane.context.get_tensor_shape(name)), dtype)
        held.callback(buffer.free)
        if not lane.context.set_tensor_address(name, int(buffer.device)):
            raise EngineError("TensorRT refuses a buffer", f"{name} {buffer.host.shape}", "", self._remedy)
        return buffer

    def _record_graphs(self, held: ExitStack) -> bool:
        """Warm every lane up and record it. False where the driver cannot record: kernels go one by one then."""
        recorded = True
        for lane in self._lanes:
            for buffer in lane.inputs.values():
                buffer.host.fill(0)
            self._run(lane)  # TensorRT wants one plain run after a shape was set, before a recording
            if not recorded:
                continue
            try:
                lane.graph = CapturedGraph(load_driver(), self._stream.handle, partial(self._enqueue, lane))
            except (EngineError, self._device.cuda.Error) as error:
                why = first_line(error)
                _logger.warning("no CUDA graph for batches of %d, kernels are launched singly: %s", lane.batch, why)
                recorded = False
            else:
                held.callback(lane.graph.close)
            self._run(lane)
        return recorded

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        """See `Engine.embed`. Raises EngineError for pictures of another size, when CUDA fails, and once closed."""
        count, side = len(images_rgb), self.facts.view_px
        if images_rgb.shape != (count, side, side, 3) or masks.shape != (count, side, side) or not count:
            found = f"{images_rgb.shape} and {masks.shape}"
            raise EngineError("pictures for the engine", found, f"(B, {side}, {side}, 3) and (B, {side}, {side})")
        feed = dict(zip(INPUTS, (images_rgb, masks.view(np.uint8)), strict=True))
        with self._lock:
            if self._held is None:
                raise EngineError("the engine is closed")
            # New arrays, since the caller keeps one answer while it asks for the next; the buffers are used again.
            answer = [
                np.empty((count, *buffer.host.shape[1:]), np.float32) for buffer in self._lanes[0].outputs.values()
            ]
            with self._device.current():
                first = 0
                while first < count:
                    lane = self._lane_for(count - first)
                    last = min(first + lane.batch, count)
                    for name, values in feed.items():  # what is left over of a larger lane may hold anything
                        lane.inputs[name].host[: last - first] = values[first:last]
                    self._run(lane)
                    for part, buffer in zip(answer, lane.outputs.values(), strict=True):
                        part[first:last] = buffer.host[: last - first]
                    first = last
        return Embeddings(*answer)

    def _lane_for(self, count: int) -> _Lane:
        return next((lane for lane in self._lanes if lane.batch >= count), self._lanes[-1])

    def _run(self, lane: _Lane) -> None:
        if lane.graph is not None:
            lane.graph.launch()
        else:
            self._enqueue(lane)
        self._stream.synchronize()

    def _enqueue(self, lane: _Lane) -> None:
        """Copies in, the network, copies out: all on the one stream, nothing allocated."""
        cuda = self._device.cuda
        for buffer in lane.inputs.values():
            cuda.memcpy_htod_async(buffer.device, buffer.host, self._stream)
        if not lane.context.execute_async_v3(self._stream.handle):
            raise EngineError("TensorRT cannot run the engine", self._log.last(), "", self._remedy)
        for buffer in lane.outputs.values():
            cuda.memcpy_dtoh_async(buffer.host, buffer.device, self._stream)

    def _drop(self) -> None:
        """Contexts before the engine, the engine before its runtime, the stream last."""
        for lane in self._lanes:
            lane.context = None
        self._lanes.clear()
        self._engine = self._runtime = self._stream = None

    def close(self) -> None:
        """Free everything, whatever state CUDA is in; a second call does nothing."""
        with self._lock:
            held, self._held = self._held, None
            if held is None:
                return
            try:
                with self._device.current():
                    held.close()
            finally:
                self._device.close()
