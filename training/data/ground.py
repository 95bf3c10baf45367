"""Pieces of real or rendered ground, in memory: one or more dates of the same raster.

`Ground.dates` are uint8 (H, W, 3) RGB, co-registered; `valid` bool (H, W). NAIP chips are named
PLACE_YEAR.tif; the shipped model trains on three cities and holds every seventh place back, so that the
chance of being right can be calibrated on ground that the network never saw.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import cos, radians
from pathlib import Path

import numpy as np
import rasterio
from rasterio.warp import transform_bounds

from onboard.errors import FlightError

HELD_BACK = 7  # each seventh place of a city is for calibration, never for training


@dataclass(frozen=True)
class Ground:
    """Co-registered dates of one piece of ground and the metres that one pixel measures on it."""

    name: str
    dates: tuple[np.ndarray, ...]
    valid: np.ndarray
    metres_per_pixel: float


def read_raster(path: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """RGB uint8 (H, W, 3), valid bool (H, W) and the true metres per pixel of a GeoTIFF."""
    with rasterio.open(path) as raster:
        rgb = np.ascontiguousarray(raster.read([1, 2, 3]).transpose(1, 2, 0))
        valid = raster.dataset_mask() > 0
        metres = abs(raster.transform.a)
        south, north = transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)[1::2]
        if raster.crs.to_epsg() == 3857:  # web Mercator stretches a metre by 1/cos(latitude)
            metres *= cos(radians((south + north) / 2))
    return rgb, valid, metres


def naip_places(root: Path, city: str, years: tuple[str, ...] | None = None) -> list[Ground]:
    """The places of one NAIP city, sorted by number, each with all of the wanted years that exist."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((root / city).glob("*_*.tif")):
        place, year = path.stem.split("_")
        if years is None or year in years:
            files[place].append(path)
    if not files:
        raise FlightError("no NAIP chips", root / city, "files PLACE_YEAR.tif", "see training/README.md for the data")
    grounds = []
    for place, paths in sorted(files.items()):
        rasters = [read_raster(path) for path in paths]
        valid = np.logical_and.reduce([valid for _, valid, _ in rasters])
        grounds.append(Ground(f"{city}/{place}", tuple(rgb for rgb, _, _ in rasters), valid, rasters[0][2]))
    return grounds


def split(grounds: list[Ground]) -> tuple[list[Ground], list[Ground]]:
    """(training, held back)."""
    train = [g for i, g in enumerate(grounds) if i % HELD_BACK]
    return train, grounds[::HELD_BACK]


def cut(ground: Ground, side_px: int) -> list[Ground]:
    """A large raster cut into squares, so that each is drawn as often as a small one; empty squares left out."""
    height, width = ground.valid.shape
    pieces = []
    for row in range(0, height - side_px + 1, side_px):
        for col in range(0, width - side_px + 1, side_px):
            window = (slice(row, row + side_px), slice(col, col + side_px))
            if ground.valid[window].mean() > 0.7:
                dates = tuple(date[window] for date in ground.dates)
                name = f"{ground.name}/{row}_{col}"
                pieces.append(Ground(name, dates, ground.valid[window], ground.metres_per_pixel))
    return pieces
