"""Ground to measure over: 25 km2 drawn from noise and fields, and the region map of it.

Kept under the bench's folder, since the map takes minutes. On the aircraft a map is at hand: `--map`.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from onboard.errors import MapError

SIDE_M, METRES_PER_PIXEL = 5000.0, 0.6
_CRS = "+proj=tmerc +lat_0=37.5 +lon_0=140.99 +k=1 +datum=WGS84 +units=m"
_STRIP_PX = 512


def map_to_measure_on(folder: Path, model: Path, side_m: float = SIDE_M) -> Path:
    """The map for `model` in `folder`, built where it is not there. Raises MapError."""
    from onboard.engine.cache import sha256_of

    path = folder / f"map_{round(side_m)}m_{sha256_of(model)[:12]}"
    if path.is_dir():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    ground = folder / f"ground_{round(side_m)}m.tif"
    # Processes of their own: `onboard` knows nothing of `export`, and their memory is not counted as ours.
    if not ground.is_file():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(draw_ground, ground, side_m).result()
    command = ["map", "build", str(ground), "--model", str(model), "--out", str(path)]
    run = subprocess.run([sys.executable, "-c", "from onboard.cli import main; main()", *command], check=False)
    if run.returncode != 0:
        raise MapError(
            "building a map to measure on failed", f"exit status {run.returncode}", "0", "give one: --map MAP"
        )
    return path


def draw_ground(path: Path, side_m: float, seed: int = 4) -> Path:
    """A GeoTIFF with fields, roads and noise of many scales, strip by strip; written beside, then renamed."""
    try:
        import rasterio
        from rasterio.transform import from_origin
    except ModuleNotFoundError as error:
        raise MapError(
            "no map to measure on", None, "--map MAP", "or pip install 'pilotage[desktop]' to draw one"
        ) from error
    size = round(side_m / METRES_PER_PIXEL)
    rng = np.random.default_rng(seed)
    coarse = [
        (rng.normal(0, 1, (max(2, size // px), max(2, size // px))).astype(np.float32), a)
        for px, a in ((800, 25), (200, 20), (60, 16))
    ]
    where = from_origin(-side_m / 2, side_m / 2, METRES_PER_PIXEL, METRES_PER_PIXEL)
    facts = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": _CRS, "transform": where, "tiled": True}
    beside = path.with_suffix(".partial.tif")
    with rasterio.open(beside, "w", width=size, height=size, **facts) as file:
        for top in range(0, size, _STRIP_PX):
            rows = min(_STRIP_PX, size - top)
            strip = _strip(coarse, top, rows, size, rng)
            file.write(np.moveaxis(strip, -1, 0), window=((top, top + rows), (0, size)))
    beside.replace(path)
    return path


def _strip(
    coarse: list[tuple[np.ndarray, int]], top: int, rows: int, size: int, rng: np.random.Generator
) -> np.ndarray:
    """uint8 (rows, size, 3): coarse noise cut out of the whole, fine noise and fields of its own."""
    grey = np.full((rows, size), 115.0, np.float32)
    cols = np.tile(np.arange(size, dtype=np.float32), (rows, 1))
    lines = np.tile((top + np.arange(rows, dtype=np.float32))[:, None], (1, size))
    for noise, strength in coarse:
        scale = np.float32((len(noise) - 1) / size)
        grey += strength * cv2.remap(noise, cols * scale, lines * scale, cv2.INTER_LINEAR)
    for cell, strength in ((12, 14), (4, 9)):
        noise = rng.normal(0, strength, (rows // cell + 2, size // cell + 2)).astype(np.float32)
        grey += cv2.resize(noise, (size, rows), interpolation=cv2.INTER_CUBIC)
    strip = np.repeat(grey[..., None], 3, axis=2)
    for _ in range(rows * size // 12_000):
        middle = (float(rng.uniform(0, size)), float(rng.uniform(0, rows)))
        box = cv2.boxPoints((middle, rng.uniform(8, 70, 2).tolist(), float(rng.uniform(0, 180))))
        colour = rng.uniform(30, 225) + rng.uniform(-25, 25, 3)
        cv2.fillConvexPoly(strip, box.round().astype(np.int32), colour.tolist(), cv2.LINE_AA)
    return np.clip(strip, 0, 255).astype(np.uint8)
