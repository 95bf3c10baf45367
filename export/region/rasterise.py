"""Laying imagery on the map's grid, block by block, so that memory does not grow with the region."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from export.region.grid import LevelGrid
from export.region.imagery import READABLE, Raster, opened
from onboard.errors import MapError
from onboard.frames import MapFrame

BLOCK_PX = 1024
_SHRINKS = 1.2  # imagery this many times finer than the level is averaged; else a cubic keeps it sharp


def lay(
    raster: Raster,
    frame: MapFrame,
    grid: LevelGrid,
    image: np.ndarray,
    valid: np.ndarray,
    values: tuple[float, float] | None,
) -> int:
    """Write a file's valid pixels into `image` (H, W, 3) and `valid` (H, W), over what is there; how many they are.

    Nodata, masks and alpha are heeded. `values` are those of black and white, for imagery that is not of 8 bits.
    """
    top, bottom, left, right = grid.pixels_over(raster.bounds_enu_m(frame))
    metres = grid.metres_per_pixel
    laid = 0
    with opened(raster.path) as dataset:
        if right <= left or bottom <= top:
            return 0
        warp = {
            "crs": frame.proj4,
            "transform": Affine(metres, 0, grid.west_m + left * metres, 0, -metres, grid.north_m - top * metres),
            "width": right - left,
            "height": bottom - top,
            "resampling": Resampling.average if metres > _SHRINKS * raster.native_m else Resampling.cubic,
            "add_alpha": not raster.has_alpha,
        }
        with WarpedVRT(dataset, **warp) as warped:
            for row, rows, col, cols in _blocks(bottom - top, right - left):
                rgb, there = _read(warped, raster, Window(col, row, cols, rows), values)
                if there.any():
                    at = slice(top + row, top + row + rows), slice(left + col, left + col + cols)
                    image[at][there] = rgb[there]
                    valid[at][there] = 1
                    laid += int(there.sum())
    return laid


def shrink(image: np.ndarray, valid: np.ndarray, half_image: np.ndarray, half_valid: np.ndarray) -> None:
    """Fill the next coarser level: a pixel is the mean of the valid ones of its four; two of them make it valid."""
    for row, rows, col, cols in _blocks(*half_valid.shape):
        fine = slice(2 * row, 2 * (row + rows)), slice(2 * col, 2 * (col + cols))
        weight = np.asarray(valid[fine], dtype=np.float32)
        if not weight.any():
            continue  # left unwritten, so that a sparse region stays a sparse file
        share = cv2.resize(weight, (cols, rows), interpolation=cv2.INTER_AREA)
        weighted = image[fine].astype(np.float32) * weight[..., None]
        mean = cv2.resize(weighted, (cols, rows), interpolation=cv2.INTER_AREA) / np.maximum(share, 0.5)[..., None]
        there = share >= 0.5
        at = slice(row, row + rows), slice(col, col + cols)
        half_image[at] = np.rint(mean) * there[..., None]
        half_valid[at] = there


def _read(
    warped: WarpedVRT, raster: Raster, window: Window, values: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """(rgb uint8 (h, w, 3), valid bool (h, w)) of a window of warped imagery."""
    try:
        bands = warped.read((*raster.bands, warped.count), window=window)
    except RasterioError as error:
        detail = str(error.__cause__ or error)
        raise MapError("unreadable imagery", f"{raster.path} ({detail})", READABLE, "copy it again") from error
    colours, alpha = np.moveaxis(bands[:3], 0, -1), bands[3]
    if raster.dtype == "uint8":
        return colours, alpha > 127
    there = (alpha > 0) & np.isfinite(colours).all(axis=-1)
    if values is None:
        raise MapError("imagery without a range of values", raster.path, "the values of black and white")
    low, high = values
    scaled = (np.where(there[..., None], colours, low).astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8), there


def _blocks(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """(row, rows, col, cols) of the blocks that cover an array."""
    for row in range(0, height, BLOCK_PX):
        for col in range(0, width, BLOCK_PX):
            yield row, min(BLOCK_PX, height - row), col, min(BLOCK_PX, width - col)
