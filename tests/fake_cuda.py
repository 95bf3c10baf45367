"""A GPU and its driver, played by Python: strict about order, sizes and who frees what.

Device memory is bytes by address, a stream runs at once or records. `Gpu.fail_at` makes one call fail.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


class CudaError(Exception):
    """pycuda.driver.Error"""


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """A call into C++ leaves no frame behind whose traceback would keep alive what it was called with."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except CudaError as error:
            failed = error.with_traceback(None)
        del arguments
        raise failed

    return call


class Gpu:
    """All that is alive, and every call in order."""

    def __init__(self, fail_at: str = "", fail_on: int = 1) -> None:
        self.fail_at, self.fail_on = fail_at, fail_on
        self.calls: list[str] = []
        self.counts: Counter[str] = Counter()
        self.device_memory: dict[int, np.ndarray] = {}
        self.freed: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.complaints: list[str] = []  # kept here, since what a destructor raises is lost
        self.stacks: dict[int, int] = Counter()  # contexts pushed, by thread
        self.retained = 0
        self.next_address = 0x1000
        self.recording: list | None = None
        self.streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
        self.graphs: dict[int, list] = {}
        self.device_name, self.capability = "Orin", (8, 7)

    def call(self, name: str, in_context: bool = True) -> None:
        self.calls.append(name)
        self.counts[name] += 1
        if in_context:
            assert self.stacks[threading.get_ident()] > 0, f"{name} without a current context in this thread"
        if name == self.fail_at and self.counts[name] == self.fail_on:
            raise CudaError(f"{name} failed: out of luck\nmore lines")

    def make(self, kind: str) -> str:
        self.made[kind] += 1
        return f"{kind} {self.made[kind]}"

    def free(self, what: str) -> None:
        self.freed[what] += 1
        if self.freed[what] > 1:
            self.complaints.append(f"{what} freed twice")
        if self.stacks[threading.get_ident()] < 1:
            self.complaints.append(f"{what} freed without a current context in this thread")

    def assert_all_is_freed(self) -> None:
        """Everything made is freed exactly once, and no context stays behind."""
        assert sum(self.freed.values()) == sum(self.made.values()), (self.made, self.freed)
        assert self.complaints == [], self.complaints
        assert not any(self.stacks.values())
        assert self.retained == 0
        assert self.recording is None

    def alive(self, kind: str) -> int:
        gone = sum(count for label, count in self.freed.items() if label.rsplit(" ", 1)[0] == kind)
        return self.made[kind] - gone

    def stream(self) -> Stream:
        """The one stream; there must be no other."""
        assert self.alive("stream") == 1
        return self.streams[0]


class Held:
    """Something that is freed by hand once; forgetting it is what the tests look for."""

    def __init__(self, gpu: Gpu, kind: str) -> None:
        self.gpu, self.label = gpu, gpu.make(kind)

    def free(self) -> None:
        self.gpu.free(self.label)


class DeviceAllocation(Held):
    def __init__(self, gpu: Gpu, size: int) -> None:
        gpu.call("mem_alloc")
        super().__init__(gpu, "device memory")
        self.address, self.size = gpu.next_address, size
        gpu.next_address += size + 256
        gpu.device_memory[self.address] = np.zeros(size, np.uint8)

    def __int__(self) -> int:
        return self.address


class Stream:
    """Freed when the last reference goes, as pycuda's."""

    def __init__(self, gpu: Gpu) -> None:
        gpu.call("Stream")
        self.gpu, self.label, self.handle = gpu, gpu.make("stream"), 0x77
        self.waiting: list = []
        gpu.streams[0] = self

    def put(self, work) -> None:
        (self.waiting if self.gpu.recording is None else self.gpu.recording).append(work)

    @native
    def synchronize(self) -> None:
        self.gpu.call("synchronize")
        assert self.gpu.recording is None, "a stream that records cannot be waited for"
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    def __del__(self) -> None:
        if hasattr(self, "label"):
            self.gpu.free(self.label)


def cuda_module(gpu: Gpu) -> ModuleType:
    module = ModuleType("pycuda.driver")

    class Context:
        valid = True

        def push(self) -> None:
            assert self.valid
            gpu.call("push", in_context=False)
            gpu.stacks[threading.get_ident()] += 1

        def pop(self) -> None:
            gpu.calls.append("pop")
            gpu.stacks[threading.get_ident()] -= 1

        def detach(self) -> None:
            assert self.valid, "a context is let go twice"
            assert not any(gpu.stacks.values()), "a context is let go while it is current"
            self.valid = False
            gpu.retained -= 1

    class Device:
        def __init__(self, index: int) -> None:
            gpu.call("Device", in_context=False)

        def name(self) -> str:
            return gpu.device_name

        def compute_capability(self) -> tuple[int, int]:
            return gpu.capability

        def retain_primary_context(self) -> Context:
            gpu.call("retain_primary_context", in_context=False)
            gpu.retained += 1
            return Context()

    class HostAllocation(Held):
        """What pycuda makes the base of a pinned array."""

        def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
            super().__init__(gpu, "pinned memory")
            self.memory = np.zeros(shape, dtype)
            self.__array_interface__ = self.memory.__array_interface__

    def pagelocked_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        gpu.call("pagelocked_empty")
        return np.asarray(HostAllocation(shape, dtype))  # numpy keeps the owner of an array interface as the base

    @native
    def copy_in(allocation: DeviceAllocation, host: np.ndarray, stream: Stream) -> None:
        gpu.call("memcpy_htod_async")
        assert host.nbytes == allocation.size, "a copy of another size than its buffer"
        stream.put(lambda: gpu.device_memory[allocation.address].__setitem__(..., host.reshape(-1).view(np.uint8)))

    @native
    def copy_out(host: np.ndarray, allocation: DeviceAllocation, stream: Stream) -> None:
        gpu.call("memcpy_dtoh_async")
        assert host.nbytes == allocation.size, "a copy of another size than its buffer"
        stream.put(lambda: host.reshape(-1).view(np.uint8).__setitem__(..., gpu.device_memory[allocation.address]))

    module.Error, module.Device, module.pagelocked_empty = CudaError, Device, pagelocked_empty
    module.init = lambda: gpu.call("init", in_context=False)
    module.mem_alloc = lambda size: DeviceAllocation(gpu, size)
    module.Stream = lambda: Stream(gpu)
    module.memcpy_htod_async, module.memcpy_dtoh_async = copy_in, copy_out
    return module


class Driver:
    """The functions that record and launch; each gives a CUresult."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def _result(self, name: str) -> int:
        try:
            self.gpu.call(name)
        except CudaError:
            return 900
        return 0

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        assert self.gpu.recording is None
        code = self._result("cuStreamBeginCapture_v2")
        if code == 0:
            self.gpu.recording = []
        return code

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: ctypes._Pointer) -> int:
        assert self.gpu.recording is not None
        work, self.gpu.recording = self.gpu.recording, None
        code = self._result("cuStreamEndCapture")
        if code == 0:
            key = self._keep("graph", work)
            graph._obj.value = key
        return code

    def cuGraphInstantiateWithFlags(self, out: ctypes._Pointer, graph: ctypes.c_void_p, flags: int) -> int:
        code = self._result("cuGraphInstantiateWithFlags")
        if code == 0:
            out._obj.value = self._keep("executable graph", self.gpu.graphs[graph.value][1])
        return code

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        code = self._result("cuGraphLaunch")
        if code == 0:
            for work in self.gpu.graphs[executable.value][1]:
                self.gpu.stream().put(work)
        return code

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        self.gpu.free(self.gpu.graphs.pop(graph.value)[0])
        return 0

    cuGraphExecDestroy = cuGraphDestroy

    def _keep(self, kind: str, work: list) -> int:
        key = len(self.gpu.made) * 1000 + sum(self.gpu.made.values())
        self.gpu.graphs[key] = (self.gpu.make(kind), work)
        return key
