"""Frames of a flight, rendered by several processes: the same bytes whatever their number."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from training.renderer.flight import Flight
from training.renderer.place import Place
from training.renderer.scene import Scene, render
from training.renderer.sensor import Conditions, take

_BATCH = 20  # neighbouring frames that one process renders in a row: they share a mesh


def film(
    place: Place, picture: np.ndarray, flight: Flight, conditions: Conditions, seed: int, processes: int = 2
) -> Iterator[bytes]:
    """The frames of a flight in order, as JPEG. `picture` is the place's look on that day, uint8 RGB (H, W, 3)."""
    batches = [range(i, min(i + _BATCH, len(flight.frames.at_ns))) for i in range(0, len(flight.frames.at_ns), _BATCH)]
    if processes <= 1:
        scene = Scene(place, picture)
        for batch in batches:
            scene.forget()
            yield from (_frame(scene, flight, conditions, seed, i) for i in batch)
        return
    with tempfile.TemporaryDirectory(prefix="pilotage-") as folder:
        # The big rasters go to the other processes as files that they share in memory.
        for name, raster in (("picture", picture), ("surface", place.surface_m), ("terrain", place.terrain_m)):
            np.save(Path(folder) / f"{name}.npy", raster)
        empty = np.zeros((0, 0), np.float32)
        light = replace(place, orthophoto=empty, surface_m=empty, terrain_m=empty, cover=None, objects=None)
        start = (Path(folder), light, flight, conditions, seed)
        # Forking after OpenCV has started threads may hang, so the processes start fresh.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _start, start) as pool:
            for frames in pool.map(_batch, batches):
                yield from frames


_job: tuple[Scene, Flight, Conditions, int] | None = None  # of a process of the pool


def _start(folder: Path, light: Place, flight: Flight, conditions: Conditions, seed: int) -> None:
    global _job
    cv2.setNumThreads(1)
    picture, surface, terrain = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("picture", "surface", "terrain"))
    _job = (Scene(replace(light, surface_m=surface, terrain_m=terrain), picture), flight, conditions, seed)


def _batch(indices: range) -> list[bytes]:
    if _job is None:
        raise RuntimeError("a process of the pool was not started by _start")
    _job[0].forget()
    return [_frame(*_job, i) for i in indices]


def _frame(scene: Scene, flight: Flight, conditions: Conditions, seed: int, index: int) -> bytes:
    rng = np.random.default_rng([seed, 31, index])
    truth = flight.frames
    view = render(
        scene, flight.camera, flight.body_from_camera, truth.ned_from_body[index], truth.position_enu_m[index]
    )
    flicker = replace(conditions, gain=conditions.gain * float(np.exp(rng.normal(0, 0.02))))
    return take(view, flicker, rng)
