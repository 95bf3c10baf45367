"""What a finished map says of itself: the facts of its levels, sources and parts, and a picture for other tools."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine

from export.region.features import BATCH, LEAST_VALID, MIN_VALID
from export.region.grid import LevelGrid
from export.region.imagery import Raster
from onboard.frames import MapFrame
from onboard.region.level import DETAIL_SCALE
from onboard.region.manifest import LevelFacts, Manifest, Part, Source, sha256_of
from onboard.region.map import ELEVATION
from onboard.region.picture import overview, shrink_factor

if TYPE_CHECKING:
    from onboard.engine import ModelFacts

Report = Callable[[str, int, int], None]  # stage, done, of how many

PICTURE = "picture.tif"
_PICTURE_PX = 2048


def preprocessing_of(facts: ModelFacts) -> dict[str, Any]:
    return {
        "colour": "RGB, 8 bits; grey thrice; other depths between percentiles 0.5 and 99.5 of all imagery",
        "resampling": "average where imagery is finer than the level, else cubic; later files on top",
        "window_px": facts.view_px,
        "window_step_px": facts.view_px // 2,
        "window_batch": BATCH,
        "least_valid_share": [MIN_VALID, LEAST_VALID],
        "detail_stride_px": facts.detail_stride,
        "detail_scale": DETAIL_SCALE,
    }


def facts_of_level(grid: LevelGrid, valid_px: int, tiles: int, facts: ModelFacts) -> LevelFacts:
    return LevelFacts(
        metres_per_pixel=grid.metres_per_pixel,
        west_m=grid.west_m,
        north_m=grid.north_m,
        width_px=grid.width_px,
        height_px=grid.height_px,
        valid_px=valid_px,
        stride_px=facts.detail_stride,
        cell_m=facts.detail_stride * grid.metres_per_pixel,
        cell_rows=grid.height_px // facts.detail_stride,
        cell_cols=grid.width_px // facts.detail_stride,
        tile_px=facts.view_px,
        tile_step_px=facts.view_px // 2,
        tiles=tiles,
    )


def source_of(raster: Raster, licence: str | None, values: tuple[float, float] | None) -> Source:
    return Source(
        file=raster.path.name,
        crs=raster.crs,
        native_metres_per_pixel=round(raster.native_m, 4),
        sha256=raster.sha256,
        date=raster.date,
        licence=licence or raster.licence,
        value_range=None if raster.dtype == "uint8" else values,
    )


def parts_in(folder: Path, report: Report) -> tuple[Part, ...]:
    files = sorted(
        [*folder.glob("level*/*.npy"), *folder.glob("date*/level*/*.npy"), *folder.glob(ELEVATION), folder / PICTURE]
    )
    parts = []
    for done, file in enumerate(files):
        parts.append(Part(file.relative_to(folder).as_posix(), file.stat().st_size, sha256_of(file)))
        report("hashing parts", done + 1, len(files))
    return tuple(parts)


def write_manifest(path: Path, manifest: Manifest) -> None:
    with path.open("w") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())


def write_picture(path: Path, grid: LevelGrid, image: np.ndarray, valid: np.ndarray, frame: MapFrame) -> None:
    """A small GeoTIFF of the whole, for other tools; masked where there is no imagery."""
    rgb, there = overview(image, valid, _PICTURE_PX)
    step_m = shrink_factor(valid.shape, _PICTURE_PX) * grid.metres_per_pixel
    profile = {
        "driver": "GTiff",
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "count": 3,
        "dtype": "uint8",
        "crs": frame.proj4,
        "transform": Affine(step_m, 0, grid.west_m, 0, -step_m, grid.north_m),
        "compress": "jpeg",
        "photometric": "ycbcr",
        "tiled": True,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as picture:
        picture.write(np.moveaxis(rgb, -1, 0))
        picture.write_mask(there)
