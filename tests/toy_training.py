"""A training small enough for a test: places of coloured noise, and the three methods at toy size.

python toy_training.py METHOD OUT STEP     trains, and is killed by the system in the middle of that step
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from training import fit as trainer
from training.benchmarks.base import Benchmark, Query, Reference
from training.fitting.pairs import Sample
from training.parts.config import AggregatorConfig, DecoderConfig, EncoderConfig
from training.presets import GenGeoConfig, Preset, Schedule, UnifyGeoConfig, find_preset
from training.sampling import SamplingConfig

PX, PLACES = 32, 12
STEPS_BETWEEN_SAVES = 3


def scene(place: int, seed: int) -> np.ndarray:
    """uint8 (PX, PX, 3): blobs that are the place's own, light and noise of the seed."""
    blobs = cv2.resize(np.random.default_rng(place).uniform(0, 255, (4, 4, 3)), (PX, PX))
    rng = np.random.default_rng([place, seed])
    return np.clip(blobs * rng.uniform(0.8, 1.2) + rng.normal(0, 6, blobs.shape), 0, 255).astype(np.uint8)


class ToyPairs:
    """Two pairs a place; `PairSource`."""

    name = "toy"

    def __init__(self) -> None:
        self.label = np.repeat(np.arange(PLACES), 2).astype(np.int64)
        self.where_m = np.stack([self.label * 50.0, self.label % 3 * 40.0], axis=1)

    def __len__(self) -> int:
        return len(self.label)

    def draw(self, index: int, rng: np.random.Generator) -> Sample:
        place = int(self.label[index])
        return {
            "query": np.ascontiguousarray(scene(place, int(rng.integers(1000))).transpose(2, 0, 1)),
            "reference": np.ascontiguousarray(scene(place, 2000).transpose(2, 0, 1)),
            "label": self.label[index],
            "position": rng.uniform(0.3, 0.7, 2).astype(np.float32),
            "metres_per_pixel": np.float32(1.0),
            "where_m": self.where_m[index],
            "cloud": np.random.default_rng(place).normal(0, 10, (1024, 3)).astype(np.float32),
        }


class Scene:
    """A picture in memory."""

    def __init__(self, place: int, seed: int) -> None:
        self.name = f"{place}/{seed}"
        self._rgb = scene(place, seed)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return self._rgb, np.ones((PX, PX), dtype=bool)


def toy_benchmark() -> Benchmark:
    """Light and noise that training has not seen; one query a place, in the middle of its reference."""
    references = tuple(Reference(Scene(k, 2000), str(k), "", (0.0, 100.0 * k), (32.0, 32.0)) for k in range(PLACES))
    queries = tuple(Query(Scene(k, 5000), str(k), (k,), position_enu_m=(0.0, 100.0 * k)) for k in range(PLACES))
    return Benchmark("toy", "all", "test", queries, references, ("R@1", "R@1m", "median m"), same_scale=True)


def toy_preset(method: str, epochs: int = 3) -> Preset:
    """With what a resumed run could get wrong: dropout, mined negatives, batch norm, an optimizer of one's own."""
    compact = EncoderConfig(kind="compact", widths=(8, 12, 16), depths=(1, 1, 1), stem_stride=2)
    schedule = Schedule(epochs, 4, 3e-3, 0.01, 0.5, SamplingConfig("similarity", 2, 4, 1))
    if method == "unifygeo":
        aggregator, decoder = AggregatorConfig("attention_gem"), DecoderConfig("template", 3)
        return Preset("unifygeo", "toy", UnifyGeoConfig((PX, PX), (PX, PX), compact, aggregator, decoder), schedule)
    if method == "gengeo":
        salad = AggregatorConfig("salad", 32, clusters=4, cluster_dim=8, token_dim=0, hidden_dim=16, dropout=0.3)
        return Preset("gengeo", "toy", GenGeoConfig((PX, PX), (PX, PX), compact, salad), schedule)
    return toy_geolink(compact, schedule)


def toy_geolink(encoder: EncoderConfig, schedule: Schedule) -> Preset:
    tiny = find_preset("geolink", "tiny").method
    aggregator = AggregatorConfig("mixvpr", 32, grid=(4, 4), mixers=1, rows=4)
    clouds = dataclasses.replace(tiny.clouds, points=64, width=12, neighbours=8)
    method = dataclasses.replace(
        tiny, query_px=(PX, PX), reference_px=(PX, PX), encoder=encoder, aggregator=aggregator, clouds=clouds
    )
    return Preset("geolink", "toy", method, schedule)


def toy_run(out: Path, stop_after: int = 0) -> trainer.Run:
    return trainer.Run(out, seed=5, precision="32-true", save_every_s=STEPS_BETWEEN_SAVES, stop_after=stop_after)


class StepClock:
    """In the place of `time`: a second passes with each step that asks."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def killed(method: str, out: Path, at_step: int) -> None:
    """Train until the system kills this process between a backward pass and the optimizer's step."""
    torch.set_num_threads(1)
    trainer.time = StepClock()  # type: ignore[assignment]
    take = torch.optim.AdamW.step
    taken = 0

    def step(self: torch.optim.AdamW, *args: object, **more: object) -> object:
        nonlocal taken
        taken += 1
        if taken == at_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, *args, **more)  # type: ignore[arg-type]

    torch.optim.AdamW.step = step  # type: ignore[method-assign, assignment]
    trainer.fit(toy_preset(method), ToyPairs(), toy_run(out))


if __name__ == "__main__":
    killed(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
