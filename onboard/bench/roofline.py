"""Work and bytes of a frame, and the least time that they take on an Orin by its published peak figures.

A roofline is a bound, not a forecast: time is at least work / peak and at least bytes / bandwidth. Small networks reach
a tenth of the peak, often less. Every figure made from it is marked as an estimate.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onboard.engine.base import ModelFacts
from onboard.match.refine import MARGIN, PATCH, STEP


@dataclass(frozen=True, slots=True)
class Device:
    """Published peaks: dense INT8 of the GPU in 1e12 operations/s (a multiply-add is two), memory in GB/s, and the
    CPU's float32 in 1e9/s for one core (NEON: two multiply-adds of four numbers a cycle)."""

    name: str
    int8_tops: float
    bandwidth_gbps: float
    cpu_core_gflops: float
    source: str


# NVIDIA gives sparse figures; half of them is dense.
DEVICES = (
    Device(
        "Orin Nano 8 GB (Super)", 33.5, 102, 16 * 1.7, "67 sparse INT8 TOPS, 102 GB/s: Developer Kit datasheet, 2024"
    ),
    Device("Orin NX 16 GB", 30, 102.4, 16 * 2.0, "GPU of the Nano at 918 MHz, so 60 sparse INT8 TOPS without the DLA"),
    Device("AGX Orin 64 GB", 85, 204.8, 16 * 2.2, "170 sparse INT8 TOPS of the GPU: Jetson AGX Orin Technical Brief"),
)


@dataclass(frozen=True, slots=True)
class Work:
    """Of one stage of one frame. `bytes` are those read and written once, without any reuse between layers."""

    stage: str
    multiply_adds: float
    bytes: float
    on_gpu: bool


def network_work(model: Path, facts: ModelFacts) -> tuple[float, float]:
    """Multiply-adds and numbers moved (in, out, weights) of one image, from a profile of one run.

    ONNX Runtime says the shapes of every node that it runs; nothing else on the aircraft can read the file.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # nodes as in the file
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    n = facts.view_px
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        session.run(None, {"image": np.zeros((1, n, n, 3), np.uint8), "mask": np.ones((1, n, n), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text())
    counts = [_node_work(event["args"]) for event in events if event.get("name", "").endswith("_kernel_time")]
    return sum(work for work, _ in counts), sum(moved for _, moved in counts)


def _node_work(args: dict[str, Any]) -> tuple[float, float]:
    """Of a convolution or a product; what lies between them is taken as fused."""
    if args.get("op_name") not in ("Conv", "MatMul", "Gemm"):
        return 0.0, 0.0
    inputs = [next(iter(shape.values())) for shape in args["input_type_shape"]]
    output = next(iter(args["output_type_shape"][0].values()))
    if args["op_name"] == "Conv":
        work = math.prod(output) * math.prod(inputs[1][1:])
    else:
        work = math.prod(output) * inputs[0][-1]
    return float(work), float(sum(math.prod(shape) for shape in (*inputs, output)))


def frame_work(facts: ModelFacts, network: tuple[float, float], images: int, blocks: int, block: int) -> list[Work]:
    """The stages of one frame: `images` embedded, a template sought over `blocks` blocks of `block` cells."""
    channels, tiles = facts.detail_channels, max(images - 1, 1)
    half = block * (block // 2 + 1)
    transform = 2.5 * block * block * math.log2(block * block) / 2  # multiply-adds of a real transform
    correlate = (channels + blocks) * transform + 4 * channels * half * blocks
    span = PATCH + 2 * MARGIN
    cells = facts.view_px // facts.fine_stride
    patches = ((cells - PATCH) // STEP + 1) ** 2
    small = 2.5 * span * span * math.log2(span * span) / 2
    refine = tiles * patches * ((2 * facts.fine_channels + 1) * small + 4 * facts.fine_channels * span * span / 2)
    view = facts.view_px**2
    return [
        Work("rectify", 8.0 * view, 11.0 * view + 640 * 480 * 3, False),
        Work("embed", images * network[0], images * network[1], True),
        Work("correlate", correlate, 8.0 * half * channels * (blocks + 1), False),
        Work("refine", refine, 8.0 * tiles * patches * span * span * facts.fine_channels, False),
    ]


def least_ms(work: Work, device: Device, cores: int = 2) -> float:
    """Estimate: the roofline's bound in milliseconds; INT8 on the GPU, or float32 on `cores` cores."""
    rate = device.int8_tops * 1e12 if work.on_gpu else device.cpu_core_gflops * 1e9 * cores
    return 1e3 * max(2 * work.multiply_adds / rate, work.bytes / (device.bandwidth_gbps * 1e9))
