"""The gate: is the file that flies as good as the float model, in recall and in metres?

Each model gets a region map of the held-out ground made by itself and finds the held-out views on it with the code that
flies (`onboard.localizer`, every frame alone). Errors are those of the best guess of every view, wrong ones included.
Latency is taken in turns, one model after the other, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from export.dequantize import float_model
from export.facts import facts_of, read_model, save_model
from export.half import half_model
from export.heldout import HeldOut, held_out
from export.region.build import build_map
from onboard.config import Config, EngineConfig
from onboard.engine import SHIPPED_MODEL, Embeddings, Engine, open_engine
from onboard.errors import ConfigError
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.localizer import Localizer
from onboard.match.evidence import read_confidence
from onboard.match.retrieve import TileIndex
from onboard.rectify import Rectifier
from onboard.region import RegionMap

WIDTH = 120  # of tables in a file or a pipe
PARTS = ("descriptors", "detail", "fine")


@dataclass(frozen=True)
class Tolerances:
    """What a smaller file may lose against the float model. Shares are of 1."""

    recall_at_1_loss: float = 0.01
    recall_at_5_loss: float = 0.01
    median_growth: float = 0.05
    p95_growth: float = 0.25
    least_cosine: float = 0.99  # mean, of each output
    int8_size: float = 0.30
    fp16_size: float = 0.55
    int8_speedup: float = 0.0  # 1.8 is asked of a quiet CPU with VNNI; 0 asks nothing


@dataclass(frozen=True, slots=True)
class Row:
    """What one model does on the held-out set. Metres of all views, milliseconds an image."""

    name: str
    backend: str
    recall_at_1: float
    recall_at_5: float
    median_m: float
    p95_m: float
    cosine: tuple[float, float, float]  # of PARTS, to the float model
    ms: float
    speedup: float
    bytes: int


@dataclass(frozen=True)
class Report:
    """`failures` are lines of what went beyond the tolerances; empty: the gate is open."""

    ground: str
    views: int
    recall_views: int
    rows: tuple[Row, ...]
    failures: tuple[str, ...]


@dataclass(slots=True)
class _Candidate:
    name: str
    engine: Engine
    bytes: int


def check(
    model: Path,
    against: Path | None = None,
    data: Path = Path("../shared/data"),
    count: int = 60,
    tolerances: Tolerances = Tolerances(),
    threads: int = 2,
    recall_count: int = 400,
) -> Report:
    """Hold a model, and the FP16 file made of its float parent, against that parent.

    Metres and cosines are of `count` views. Recall is of `recall_count`: retrieval takes a fraction of the time, and a
    loss of a point cannot be told from one of none on sixty.
    against: the float parent; None takes the weights of `model` itself, dequantized. Raises EngineError, MapError.
    """
    proto = read_model(model)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        scratch = Path(folder)
        if against is None:
            quantized = any(node.op_type == "QuantizeLinear" for node in proto.graph.node)
            against = save_model(float_model(model), scratch / "float.onnx") if quantized else model
        files = {"FP32": against, "FP16": half_model(against, scratch / "half.onnx")}
        if model != against:
            files[_short(facts_of(proto).get("precision", "model"))] = model
        on_cpu = EngineConfig(backend="onnxruntime", threads=threads)
        candidates = [_Candidate(name, open_engine(file, on_cpu), file.stat().st_size) for name, file in files.items()]
        built = open_engine(model, EngineConfig("auto", threads))
        if built.backend.startswith("onnxruntime"):
            built.close()
        else:
            candidates.append(_Candidate("engine", built, model.stat().st_size))
        for candidate in candidates:
            held.callback(candidate.engine.close)
        ground = held_out(data, scratch, max(count, recall_count))
        rows = _rows(candidates, ground, count, scratch)
    return Report(ground.name, count, len(ground.views), rows, tuple(_failures(rows, tolerances)))


def _rows(candidates: Sequence[_Candidate], ground: HeldOut, count: int, scratch: Path) -> tuple[Row, ...]:
    images, masks = _views(_map_of(candidates[0], ground, scratch), ground, candidates[0].engine)
    times = _latencies(candidates, images, masks)
    reference: Embeddings | None = None
    rows: list[Row] = []
    for candidate in candidates:
        made = [candidate.engine.embed(i[None], m[None]) for i, m in zip(images, masks, strict=True)]
        found = Embeddings(*(np.concatenate([getattr(one, part) for one in made]) for part in PARTS))
        reference = found if reference is None else reference
        cosine = tuple(float((getattr(reference, p) * getattr(found, p)).sum(axis=-1).mean()) for p in PARTS)
        region = _map_of(candidate, ground, scratch)
        recall_1, recall_5 = _recall(region, ground, candidate.engine, found.descriptors)
        errors = _errors(region, ground, candidate.engine, count)
        ratios = [a / b for a, b in zip(times[0], times[len(rows)], strict=True)]
        rows.append(
            Row(
                candidate.name,
                candidate.engine.backend,
                recall_1,
                recall_5,
                float(np.median(errors)),
                float(np.percentile(errors, 95)),
                cosine,  # type: ignore[arg-type]
                statistics.median(times[len(rows)]),
                statistics.median(ratios),
                candidate.bytes,
            )
        )
    return tuple(rows)


def _views(region: RegionMap, ground: HeldOut, engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """Images (V, N, N, 3) and masks of the views at the told heading and height, at the map's first fitting level."""
    rectifier = Rectifier(ground.camera, BODY_FROM_CAMERA_DOWN, engine.facts.view_px)
    views = []
    for view in ground.views:
        level = region.levels[region.level_for(rectifier.ground_side_m(view.telemetry), rectifier.view_px)]
        views.append(rectifier.view(view.frame, view.telemetry, level.metres_per_pixel))
    return np.stack([view.image_rgb for view in views]), np.stack([view.mask for view in views])


def _latencies(
    candidates: Sequence[_Candidate], images: np.ndarray, masks: np.ndarray, rounds: int = 25
) -> list[list[float]]:
    """Milliseconds an image, by candidate, of views one by one; the first rounds warm up and do not count."""
    times: list[list[float]] = [[] for _ in candidates]
    for round_ in range(rounds + 3):
        one = slice(round_ % len(images), round_ % len(images) + 1)
        for spent, candidate in zip(times, candidates, strict=True):
            began = time.perf_counter()
            candidate.engine.embed(images[one], masks[one])
            if round_ >= 3:
                spent.append(1e3 * (time.perf_counter() - began))
    return times


def _map_of(candidate: _Candidate, ground: HeldOut, scratch: Path) -> RegionMap:
    """The region map of the held-out ground by this model, built once."""
    path = scratch / f"map_{candidate.name}"
    if not path.is_dir():
        build_map(list(ground.imagery), path, candidate.engine)
    return RegionMap.open(path, candidate.engine.facts)


def _recall(region: RegionMap, ground: HeldOut, engine: Engine, descriptors: np.ndarray) -> tuple[float, float]:
    """Recall at 1 and at 5: a tile that holds the place is among the nearest by descriptor."""
    rectifier = Rectifier(ground.camera, BODY_FROM_CAMERA_DOWN, engine.facts.view_px)
    indices: dict[int, TileIndex] = {}
    first = among_five = 0
    for descriptor, view in zip(descriptors, ground.views, strict=True):
        truth = region.frame.enu_from_geodetic(*view.place)
        which = region.level_for(rectifier.ground_side_m(view.telemetry), rectifier.view_px)
        level = region.levels[which]
        if which not in indices:
            indices[which] = TileIndex(level)
        index = indices[which]
        tiles, _ = index.search(descriptor[None], 5)
        near = np.abs(index.tiles[tiles] - truth).max(axis=1) <= level.tile_px * level.metres_per_pixel / 2
        first, among_five = first + bool(near[:1].any()), among_five + bool(near.any())
    return first / len(ground.views), among_five / len(ground.views)


def _errors(region: RegionMap, ground: HeldOut, engine: Engine, count: int) -> np.ndarray:
    """Metres from the truth of the best guess at each of the first `count` views, wherever it lies.

    No guess at all counts as the map's diagonal.
    """
    confidence = read_confidence(SHIPPED_MODEL)  # of any model: it orders guesses, their places are the match's
    brain = Localizer(engine, region, ground.camera, BODY_FROM_CAMERA_DOWN, confidence, Config(), independent=True)
    west, south, east, north = region.bounds_enu_m
    errors = []
    for view in ground.views[:count]:
        best = brain.step(view.frame, view.telemetry, view.frame.captured_at_ns).best_position_enu_m
        truth = region.frame.enu_from_geodetic(*view.place)
        errors.append(float(np.hypot(east - west, north - south) if best is None else np.linalg.norm(best - truth)))
    return np.array(errors)


def _failures(rows: Sequence[Row], t: Tolerances) -> list[str]:
    """One line for each figure of each row that lies beyond its tolerance."""
    parent, lines = rows[0], []
    for row in rows[1:]:
        small = row.name != "engine"  # an engine's file is not what is compared
        int8 = row.name.startswith("INT8")
        size = t.int8_size if int8 else t.fp16_size
        asked = [
            ("R@1", row.recall_at_1, ">=", parent.recall_at_1 - t.recall_at_1_loss),
            ("R@5", row.recall_at_5, ">=", parent.recall_at_5 - t.recall_at_5_loss),
            ("median m", row.median_m, "<=", parent.median_m * (1 + t.median_growth)),
            ("95 % m", row.p95_m, "<=", parent.p95_m * (1 + t.p95_growth)),
            *((f"cosine {p}", value, ">=", t.least_cosine) for p, value in zip(PARTS, row.cosine, strict=True)),
        ]
        if small:
            asked.append(("share of the float file", row.bytes / parent.bytes, "<=", size))
        if int8 and t.int8_speedup > 0:
            asked.append(("times faster", row.speedup, ">=", t.int8_speedup))
        for what, value, sign, limit in asked:
            if not (value >= limit - 1e-9 if sign == ">=" else value <= limit + 1e-9):  # nan fails
                lines.append(f"{row.name}: {what} {value:.4g}, expected {sign} {limit:.4g}")
    return lines


def _short(precision: str) -> str:
    """INT8, FP16 or FP32, from what the file says of itself."""
    for word, short in (("int8", "INT8"), ("float16", "FP16"), ("float32", "FP32 of the file")):
        if precision.startswith(word):
            return short
    return precision


def read_tolerances(path: Path | None) -> Tolerances:
    """A YAML of what differs from the defaults. Raises ConfigError for an unknown key or a value that is no number."""
    if path is None:
        return Tolerances()
    if not path.is_file():
        raise ConfigError("no tolerances file", path, "a YAML file", "leave --tolerances out for the defaults")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError("unreadable tolerances", f"{path} ({error})", "YAML") from error
    known = {f.name for f in dataclasses.fields(Tolerances)}
    if not isinstance(content, dict):
        raise ConfigError("tolerances", type(content).__name__, "a mapping of keys")
    for key, value in content.items():
        if key not in known:
            raise ConfigError("unknown tolerance", key, "one of " + ", ".join(sorted(known)))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ConfigError(f"tolerance {key}", value, "a number from 0 on")
    return Tolerances(**{key: float(value) for key, value in content.items()})


def print_report(report: Report) -> None:
    table = Table("model", "R@1", "R@5", "median m", "95 % m", "cosine", "ms", "faster", "kB", "of FP32")
    for row in report.rows:
        table.add_row(
            row.name,
            f"{100 * row.recall_at_1:.1f} %",
            f"{100 * row.recall_at_5:.1f} %",
            f"{row.median_m:.2f}",
            f"{row.p95_m:.1f}",
            "\n".join(f"{p[:10]} {value:.4f}" for p, value in zip(PARTS, row.cosine, strict=True)),
            f"{row.ms:.1f}",
            f"{row.speedup:.2f} x",
            f"{row.bytes / 1e3:.0f}",
            f"{100 * row.bytes / report.rows[0].bytes:.1f} %",
        )
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    console.print(
        f"{report.ground}; {report.views} views, each alone over the whole map; recall of {report.recall_views}"
    )
    console.print(table)
    for line in report.failures or ("within all tolerances",):
        console.print(line)
