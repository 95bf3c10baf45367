"""Measure: models against each other, and frames from camera to fix, stage by stage."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onboard.bench.flight import bench_camera, fly, start_of
from onboard.bench.memory import Growth, Memory, forget_peak, growth, read_memory
from onboard.config import Config, EngineConfig
from onboard.engine import SHIPPED_MODEL, Engine, open_engine
from onboard.errors import EngineError
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.localizer import Localizer
from onboard.match.evidence import confidence_path, read_confidence
from onboard.region import RegionMap

TRACKING, LOST, LOST_UNTURNED = "tracking", "lost", "lost, heading unknown"
BATCHES = (1, 3, 9)  # tracking asks for 1 and 2, a search under nine hypotheses for 9
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds: median and 95 % of `count` measurements."""

    median: float
    p95: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(float(np.median(values)), float(np.percentile(values, 95)), len(values))


@dataclass(frozen=True, slots=True)
class EmbedRow:
    """One model on one backend: milliseconds an image at a batch size. `speedup` against the first model listed, as
    the median of ratios of neighbouring runs."""

    model: str
    precision: str
    backend: str
    bytes: int
    batch: int
    ms: Spread
    speedup: float


@dataclass(frozen=True, slots=True)
class FrameRow:
    """Frames from camera to fix in one mode, by stage."""

    mode: str
    backend: str
    stages: dict[str, Spread]
    total: Spread
    frames_per_s: float
    published: int
    median_error_m: float


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """`after_open` before the first frame, `modes` at the end of each with its own peak; `growth` of the first."""

    after_open: Memory
    modes: dict[str, Memory]
    growth: Growth


def open_all(models: Sequence[Path], threads: int, folder: str = "") -> tuple[list[tuple[Path, Engine]], list[str]]:
    """Every model on every backend that runs it here, and one line for each that does not."""
    opened: list[tuple[Path, Engine]] = []
    absent = []
    for model in models:
        opened.append((model, open_engine(model, EngineConfig("onnxruntime", threads))))
    for model in models:
        try:
            opened.append((model, open_engine(model, EngineConfig("tensorrt", threads, folder))))
        except EngineError as error:
            absent.append(f"tensorrt, {model.name}: {error}")
    return opened, absent


def measure_models(opened: Sequence[tuple[Path, Engine]], rounds: int, seed: int = 0) -> list[EmbedRow]:
    """All models in turns, so that what else the machine does falls on each alike."""
    rng, rows = np.random.default_rng(seed), []
    for batch in BATCHES:
        times: list[list[float]] = [[] for _ in opened]
        for round_ in range(rounds + 2):
            for spent, (_, engine) in zip(times, opened, strict=True):
                n = engine.facts.view_px
                images, masks = rng.integers(0, 256, (batch, n, n, 3), dtype=np.uint8), np.ones((batch, n, n), bool)
                began = time.perf_counter()
                engine.embed(images, masks)
                if round_ >= 2:
                    spent.append(1e3 * (time.perf_counter() - began) / batch)
        for spent, (model, engine) in zip(times, opened, strict=True):
            ratios = [a / b for a, b in zip(times[0], spent, strict=True)]
            precision = engine.facts.metadata.get("precision", "unknown")
            rows.append(
                EmbedRow(
                    model.name,
                    precision,
                    engine.backend,
                    model.stat().st_size,
                    batch,
                    Spread.of(spent),
                    statistics.median(ratios),
                )
            )
    return rows


def measure_frames(
    region: RegionMap, engine: Engine, model: Path, config: Config, frames: int, mode: str, report: Report
) -> tuple[FrameRow, Sequence[float]]:
    """Frames from camera to fix; resident megabytes after each. Modes: tracking (the start is known), lost (every
    frame alone over the whole map), and that without a heading: under all of them."""
    known = mode == TRACKING
    confidence = read_confidence(model if confidence_path(model).is_file() else SHIPPED_MODEL)
    brain = Localizer(
        engine,
        region,
        bench_camera(),
        BODY_FROM_CAMERA_DOWN,
        confidence,
        config,
        start_of(region) if known else None,
        independent=not known,
    )
    # Plain numbers in a row: what is noted of thousands of frames must not look like growth.
    stages: dict[str, array[float]] = {}
    totals, resident, errors = array("d"), array("d"), array("d")
    for k, moment in enumerate(fly(region, frames)):
        told = dataclasses.replace(moment.telemetry, heading_known=mode != LOST_UNTURNED)
        began = time.perf_counter()
        step = brain.step(moment.frame, told, moment.frame.captured_at_ns)
        totals.append(1e3 * (time.perf_counter() - began))
        for stage, ms in step.stage_ms.items():
            stages.setdefault(stage, array("d")).append(ms)
        if step.estimate is not None:
            errors.append(float(np.linalg.norm(step.estimate.position_enu_m - moment.position_enu_m)))
        resident.append(read_memory().now_mb)
        report(k + 1, frames)
    total = Spread.of(totals)
    row = FrameRow(
        mode,
        engine.backend,
        {stage: Spread.of(values) for stage, values in stages.items()},
        total,
        1e3 / float(np.mean(totals)),
        len(errors),
        float(np.median(errors)) if errors else float("nan"),
    )
    return row, resident


def measure_whole(
    region: RegionMap,
    model: Path,
    config: Config,
    frames: dict[str, int],
    report: Callable[[str, int, int], None],
) -> tuple[list[FrameRow], MemoryRow]:
    """So many frames of each mode, in their order: tracking first, so that its memory is not that of a search of the
    whole map."""
    engine = open_engine(model, config.engine)
    rows, memories, resident = list[FrameRow](), dict[str, Memory](), list[Sequence[float]]()
    try:
        after_open = read_memory()
        for mode, count in frames.items():
            forget_peak()
            row, held = measure_frames(region, engine, model, config, count, mode, functools.partial(report, mode))
            rows.append(row)
            resident.append(held)
            memories[mode] = read_memory()
    finally:
        engine.close()
    return rows, MemoryRow(after_open, memories, growth(resident[0]))
