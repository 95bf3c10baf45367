"""An ONNX file becomes a TensorRT engine, on the machine that will fly it. One path for TensorRT 10.3 to 11.

What a layer computes in is said by the file alone (float16 casts, QDQ nodes): the network is strongly typed, and none
of the precision flags and calibrators that version 11 has done away with is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from export.lint import lint
from onboard.engine.base import INPUTS, OUTPUTS, ModelFacts
from onboard.engine.cache import Target, replace_file, write_engine
from onboard.engine.device import CudaDevice, load_cuda, load_tensorrt, make_log
from onboard.errors import EngineError

# One view, two candidates, four (to look at three again), nine headings by heights, sixteen: what one frame asks for.
BATCHES = (1, 2, 4, 9, 16)
Progress = Callable[[str, float], None]  # a phase of the builder, and its share done


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """`workspace_mb`: scratch memory that a kernel may want, beside weights and activations.

    CPU and GPU share an Orin's 8 GB, of which a desktop and a camera leave about five.
    `batches`: pictures in each profile. `dla_core`: -1 for the GPU alone.
    """

    workspace_mb: int = 1024
    batches: tuple[int, ...] = BATCHES
    dla_core: int = -1

    def __post_init__(self) -> None:
        if not 16 <= self.workspace_mb <= 1 << 20:
            raise EngineError("workspace", f"{self.workspace_mb} MB", "16 MB or more", "give --workspace-mb 1024")
        if not self.batches or min(self.batches) < 1 or list(self.batches) != sorted(set(self.batches)):
            raise EngineError("batches", self.batches, "growing numbers above 0", "leave --batches out")


def parse_batches(text: str) -> tuple[int, ...]:
    """ "1,2,4" as numbers; BuildOptions says whether they will do."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise EngineError("batches", repr(text), "numbers with commas", "leave --batches out") from error


def export_engine(model: Path, folder: Path, options: BuildOptions, on_progress: Progress) -> Path:
    """Build the engine of an ONNX file for this machine's GPU; returns its path in `folder`.

    A timing cache is kept in the folder: the next build asks the GPU only what it was not asked before. EngineError
    for a file that is not fit, for missing libraries, and for what TensorRT complains of.
    """
    content, facts = read_model(model)
    trt = load_tensorrt()
    with closing(CudaDevice(load_cuda())) as device, device.current():
        target = Target(trt.__version__, device.name, device.compute_capability, options.dla_core)
        cache = folder / f"timing-trt{target.tensorrt}-sm{target.compute_capability.replace('.', '')}.cache"
        known = cache.read_bytes() if cache.is_file() else b""
        built = build(trt, content, options, on_progress, known)
    path = write_engine(folder, model, facts, target, built.batches, built.engine)
    replace_file(cache, built.timing)
    return path


def read_model(model: Path) -> tuple[bytes, ModelFacts]:
    """The bytes and facts of an ONNX file that TensorRT can be given."""
    if not model.is_file():
        raise EngineError("no model file", model, "an ONNX file", "make one with: pilotage export onnx")
    content = model.read_bytes()
    try:
        proto = onnx.load_from_string(content)
    except DecodeError as error:
        raise EngineError("unreadable model", f"{model} ({error})", "an ONNX file", "export it again") from error
    facts = ModelFacts.from_metadata(model, {entry.key: entry.value for entry in proto.metadata_props})
    names = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    if missing := [name for name in INPUTS + OUTPUTS if name not in names]:
        raise EngineError("model lacks", ", ".join(missing), ", ".join(INPUTS + OUTPUTS), "export it again")
    if findings := lint(proto):
        more = f" ({len(findings) - 1} more findings)" if len(findings) > 1 else ""
        raise EngineError(
            f"{model.name} is not fit for TensorRT", findings[0] + more, "", "make it with: pilotage export quantize"
        )
    return content, facts


@dataclass(frozen=True, slots=True)
class Built:
    """A serialized engine, the batches of its profiles, and what the builder timed."""

    engine: bytes
    batches: tuple[int, ...]
    timing: bytes


def build(trt: Any, content: bytes, options: BuildOptions, on_progress: Progress, timing: bytes = b"") -> Built:
    """Parse and build with the module `trt` (tensorrt, or tensorrt_rtx, which needs no GPU for it)."""
    log = make_log(trt)
    builder = trt.Builder(log)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # 11 knows nothing else
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, log)  # it owns the weights: it must live as long as the network
    if not parser.parse(content):
        raise EngineError("TensorRT cannot read the model", "; ".join(parser_errors(parser)) or log.last())
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    batches = _add_profiles(builder, network, config, options.batches)
    _set_dla(trt, builder, config, options.dla_core)
    cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(cache, False):  # of another driver: timed anew
        config.set_timing_cache(config.create_timing_cache(b""), False)
    monitor = None
    if hasattr(trt, "IProgressMonitor"):
        monitor = config.progress_monitor = make_monitor(trt, on_progress)
    serialized = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt
    if serialized is None:
        raise EngineError("TensorRT cannot build the engine", log.last(), "", "try a smaller --workspace-mb")
    return Built(bytes(serialized), batches, bytes(config.get_timing_cache().serialize()))


def parser_errors(parser: Any) -> list[str]:
    """What the parser complains of, a line each: the node and the words."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [f"{e.node_operator()} {e.node_name()}: {' '.join(e.desc().split())[:300]}" for e in errors]


def _add_profiles(builder: Any, network: Any, config: Any, batches: tuple[int, ...]) -> tuple[int, ...]:
    """A profile of fixed shape for each batch; a model whose own batch is fixed has but that one."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    fixed = {int(value.shape[0]) for value in inputs if value.shape[0] > 0}
    if fixed:
        return (fixed.pop(),)
    for batch in batches:
        profile = builder.create_optimization_profile()
        for value in inputs:
            shape = (batch, *tuple(value.shape)[1:])
            profile.set_shape(value.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    return batches


def _set_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    """What the accelerator cannot do stays on the GPU."""
    if core < 0:
        return
    if core >= builder.num_DLA_cores:
        raise EngineError("DLA core", core, f"below {builder.num_DLA_cores} here", "leave --dla-core out")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def make_monitor(trt: Any, on_progress: Progress) -> Any:
    """A progress monitor: the builder calls it from threads of its own, and stops when it says so."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = max(1, num_steps)
            self._tell(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, (step + 1) / self._steps.get(phase_name, step + 1))
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, 1.0)

        def _tell(self, phase: str, share: float) -> None:
            try:
                with self._lock:
                    on_progress(phase, min(share, 1.0))
            except KeyboardInterrupt:  # nothing may be raised through the builder
                self.interrupted = True

    return Monitor()
