"""A GPU, its driver and TensorRT's runtime, played by Python: strict about order, sizes and who frees what.

Device memory is bytes by address, a stream runs at once or records, and a network is a plain function, so that what
comes out of the engine under test can be compared with what should. `World.fail_at` makes one call fail.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

N, DESCRIPTOR = 64, 5


def network(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The played network: each picture by itself, outputs of the shapes that `SIZES` of the tests promise."""
    ground = image * mask[..., None].astype(np.float32)
    return {
        "descriptor": np.stack([ground[..., k % 3].sum(axis=(1, 2)) + k for k in range(DESCRIPTOR)], 1) / 1e4,
        "detail": ground[:, ::8, ::8] / 255,
        "fine": ground[:, ::4, ::4] / 127,
    }


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


class World:
    """All that is alive, and every call in order."""

    def __init__(self, batches: tuple[int, ...] = (1, 4), fail_at: str = "", fail_on: int = 1) -> None:
        self.batches, self.fail_at, self.fail_on = batches, fail_at, fail_on
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
        self.output_dtype = np.float32
        self.engine_names = ("image", "mask", "descriptor", "detail", "fine")
        self.refuses_engine = False
        self.device_name, self.capability, self.version = "Orin", (8, 7), "10.3.0"

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

    def install(self, monkeypatch: pytest.MonkeyPatch) -> World:
        """Put this world where `import tensorrt`, `import pycuda.driver` and libcuda are looked for."""
        package = ModuleType("pycuda")
        package.driver = cuda_module(self)
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_module(self))
        monkeypatch.setattr("onboard.engine.tensorrt.load_driver", lambda: Driver(self))
        return self


# ---- pycuda.driver


class Held:
    """Something that is freed by hand once; forgetting it is what the tests look for."""

    def __init__(self, world: World, kind: str) -> None:
        self.world, self.label = world, world.make(kind)

    def free(self) -> None:
        self.world.free(self.label)


class DeviceAllocation(Held):
    def __init__(self, world: World, size: int) -> None:
        world.call("mem_alloc")
        super().__init__(world, "device memory")
        self.address, self.size = world.next_address, size
        world.next_address += size + 256
        world.device_memory[self.address] = np.zeros(size, np.uint8)

    def __int__(self) -> int:
        return self.address


class Stream:
    """Freed when the last reference goes, as pycuda's."""

    def __init__(self, world: World) -> None:
        world.call("Stream")
        self.world, self.label, self.handle = world, world.make("stream"), 0x77
        self.waiting: list = []
        world.streams[0] = self

    def put(self, work) -> None:
        (self.waiting if self.world.recording is None else self.world.recording).append(work)

    @native
    def synchronize(self) -> None:
        self.world.call("synchronize")
        assert self.world.recording is None, "a stream that records cannot be waited for"
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    def __del__(self) -> None:
        if hasattr(self, "label"):
            self.world.free(self.label)


def cuda_module(world: World) -> ModuleType:
    module = ModuleType("pycuda.driver")

    class Context:
        valid = True

        def push(self) -> None:
            assert self.valid
            world.call("push", in_context=False)
            world.stacks[threading.get_ident()] += 1

        def pop(self) -> None:
            world.calls.append("pop")
            world.stacks[threading.get_ident()] -= 1

        def detach(self) -> None:
            assert self.valid, "a context is let go twice"
            assert not any(world.stacks.values()), "a context is let go while it is current"
            self.valid = False
            world.retained -= 1

    class Device:
        def __init__(self, index: int) -> None:
            world.call("Device", in_context=False)

        def name(self) -> str:
            return world.device_name

        def compute_capability(self) -> tuple[int, int]:
            return world.capability

        def retain_primary_context(self) -> Context:
            world.call("retain_primary_context", in_context=False)
            world.retained += 1
            return Context()

    class HostAllocation(Held):
        """What pycuda makes the base of a pinned array."""

        def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
            super().__init__(world, "pinned memory")
            self.memory = np.zeros(shape, dtype)
            self.__array_interface__ = self.memory.__array_interface__

    def pagelocked_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        world.call("pagelocked_empty")
        return np.asarray(HostAllocation(shape, dtype))  # numpy keeps the owner of an array interface as the base

    @native
    def copy_in(allocation: DeviceAllocation, host: np.ndarray, stream: Stream) -> None:
        world.call("memcpy_htod_async")
        assert host.nbytes == allocation.size, "a copy of another size than its buffer"
        stream.put(lambda: world.device_memory[allocation.address].__setitem__(..., host.reshape(-1).view(np.uint8)))

    @native
    def copy_out(host: np.ndarray, allocation: DeviceAllocation, stream: Stream) -> None:
        world.call("memcpy_dtoh_async")
        assert host.nbytes == allocation.size, "a copy of another size than its buffer"
        stream.put(lambda: host.reshape(-1).view(np.uint8).__setitem__(..., world.device_memory[allocation.address]))

    module.Error, module.Device, module.pagelocked_empty = CudaError, Device, pagelocked_empty
    module.init = lambda: world.call("init", in_context=False)
    module.mem_alloc = lambda size: DeviceAllocation(world, size)
    module.Stream = lambda: Stream(world)
    module.memcpy_htod_async, module.memcpy_dtoh_async = copy_in, copy_out
    return module


# ---- tensorrt


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = Severity


class Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Part:
    """Something of TensorRT's that is freed when the last reference goes."""

    def __init__(self, world: World, kind: str) -> None:
        world.call(kind)
        self.world, self.label = world, world.make(kind)

    def __del__(self) -> None:
        if not hasattr(self, "label"):
            return
        self.world.free(self.label)
        later = {"Runtime": ("Engine", "Context"), "Engine": ("Context",)}.get(self.label.split()[0], ())
        alive = [kind for kind in later if self.world.alive(kind)]
        if alive:
            self.world.complaints.append(f"{self.label} freed before {alive}")


class Runtime(Part):
    DLA_core = -1

    def __init__(self, world: World, log: Logger) -> None:
        super().__init__(world, "Runtime")
        self.log = log

    @native
    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        self.world.call("deserialize_cuda_engine")
        if self.world.refuses_engine or content != b"engine":
            self.log.log(Severity.ERROR, "Serialization (Magic tag\n does not match)")
            return None
        return Engine(self.world, self.DLA_core)


class Engine(Part):
    def __init__(self, world: World, dla_core: int) -> None:
        super().__init__(world, "Engine")
        self.num_optimization_profiles, self.num_io_tensors = len(world.batches), len(world.engine_names)
        self.dla_core = dla_core

    def get_tensor_name(self, index: int) -> str:
        return self.world.engine_names[index]

    def get_tensor_dtype(self, name: str) -> type:
        return np.uint8 if name in ("image", "mask") else self.world.output_dtype

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [shape_of(name, self.world.batches[index])] * 3

    @native
    def create_execution_context(self) -> Context | None:
        return None if self.world.fail_at == "no context" else Context(self.world)


def shape_of(name: str, batch: int) -> tuple[int, ...]:
    sizes = {
        "image": (N, N, 3),
        "mask": (N, N),
        "descriptor": (DESCRIPTOR,),
        "detail": (N // 8, N // 8, 3),
        "fine": (N // 4, N // 4, 3),
    }
    return (batch, *sizes[name])


class Context(Part):
    def __init__(self, world: World) -> None:
        super().__init__(world, "Context")
        self.profile, self.shapes, self.addresses = 0, {}, {}
        self.ran = False

    @native
    def set_optimization_profile_async(self, index: int, stream: int) -> None:
        self.world.call("set_optimization_profile_async")
        assert not self.shapes, "a profile after shapes"
        self.profile = index

    @native
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.world.call("set_input_shape")
        self.shapes[name] = shape
        return shape == shape_of(name, self.world.batches[self.profile])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert set(self.shapes) == {"image", "mask"}, "shapes of outputs are known once those of inputs are set"
        return shape_of(name, self.world.batches[self.profile])

    @native
    def set_tensor_address(self, name: str, address: int) -> bool:
        self.world.call("set_tensor_address")
        self.addresses[name] = address
        return address in self.world.device_memory

    @native
    def execute_async_v3(self, handle: int) -> bool:
        world = self.world
        world.call("execute_async_v3")
        if world.fail_at == "execute refuses" and world.counts["execute_async_v3"] == world.fail_on:
            return False
        assert set(self.addresses) == set(world.engine_names)
        assert world.recording is None or self.ran, "recorded before a plain run"
        self.ran = True
        world.stream().put(functools.partial(run_network, world, self.shapes, self.addresses))
        return True


def run_network(world: World, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
    image = world.device_memory[addresses["image"]].reshape(shapes["image"]).astype(np.float32)
    mask = world.device_memory[addresses["mask"]].reshape(shapes["mask"])
    for name, values in network(image, mask).items():
        world.device_memory[addresses[name]][...] = values.astype(world.output_dtype).reshape(-1).view(np.uint8)


def tensorrt_module(world: World) -> ModuleType:
    module = ModuleType("tensorrt")
    module.__version__ = world.version
    module.ILogger = Logger
    module.Runtime = lambda log: Runtime(world, log)
    module.nptype = lambda dtype: dtype
    return module


# ---- libcuda


class Driver:
    """The functions that record and launch; each gives a CUresult."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _result(self, name: str) -> int:
        try:
            self.world.call(name)
        except CudaError:
            return 900
        return 0

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: ctypes.c_int) -> int:
        assert self.world.recording is None
        code = self._result("cuStreamBeginCapture_v2")
        if code == 0:
            self.world.recording = []
        return code

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: ctypes._Pointer) -> int:
        assert self.world.recording is not None
        work, self.world.recording = self.world.recording, None
        code = self._result("cuStreamEndCapture")
        if code == 0:
            key = self._keep("graph", work)
            graph._obj.value = key
        return code

    def cuGraphInstantiateWithFlags(self, out: ctypes._Pointer, graph: ctypes.c_void_p, flags: int) -> int:
        code = self._result("cuGraphInstantiateWithFlags")
        if code == 0:
            out._obj.value = self._keep("executable graph", self.world.graphs[graph.value][1])
        return code

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        code = self._result("cuGraphLaunch")
        if code == 0:
            for work in self.world.graphs[executable.value][1]:
                self.world.stream().put(work)
        return code

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        self.world.free(self.world.graphs.pop(graph.value)[0])
        return 0

    cuGraphExecDestroy = cuGraphDestroy

    def _keep(self, kind: str, work: list) -> int:
        key = len(self.world.made) * 1000 + sum(self.world.made.values())
        self.world.graphs[key] = (self.world.make(kind), work)
        return key
