"""TensorRT's runtime on the played GPU of `fake_cuda`.

A network is a plain function, so that what comes out of the engine under test can be compared with what should.
"""

from __future__ import annotations

import enum
import functools
import sys
from types import ModuleType

import numpy as np
import pytest
from fake_cuda import Driver, Gpu, cuda_module, native

N, DESCRIPTOR = 64, 5


def network(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The played network: each picture by itself, outputs of the shapes that `SIZES` of the tests promise."""
    ground = image * mask[..., None].astype(np.float32)
    return {
        "descriptor": np.stack([ground[..., k % 3].sum(axis=(1, 2)) + k for k in range(DESCRIPTOR)], 1) / 1e4,
        "detail": ground[:, ::8, ::8] / 255,
        "fine": ground[:, ::4, ::4] / 127,
    }


class World(Gpu):
    """The GPU, and an engine on it with one profile for each of `batches`."""

    def __init__(self, batches: tuple[int, ...] = (1, 4), fail_at: str = "", fail_on: int = 1) -> None:
        super().__init__(fail_at, fail_on)
        self.batches = batches
        self.output_dtype = np.float32
        self.engine_names = ("image", "mask", "descriptor", "detail", "fine")
        self.refuses_engine = False
        self.version = "10.3.0"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> World:
        """Put this world where `import tensorrt`, `import pycuda.driver` and libcuda are looked for."""
        package = ModuleType("pycuda")
        package.driver = cuda_module(self)
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_module(self))
        monkeypatch.setattr("onboard.engine.tensorrt.load_driver", lambda: Driver(self))
        return self


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
