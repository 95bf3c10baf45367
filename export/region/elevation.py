"""Heights of the ground for a region map: a DEM laid on posts in the map's frame, small holes in it filled."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.fill import fillnodata
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from export.region.describe import source_of
from export.region.grid import LevelGrid
from export.region.imagery import READABLE, Raster, described, opened
from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region.manifest import ElevationFacts

FINEST_POST_M = 2.0  # finer than this no fix notices: what is matched are patches of 30 m and more
FILL_M = 50.0  # posts without a height take one from their neighbours up to so far away, others stay unknown
LEAST_COVER = 0.9  # of the imagery's area
_PLAUSIBLE_M = (-500.0, 9000.0)  # of the Earth's land: what lies beyond is a void that the file does not declare
_METRES = ("", "m", "metre", "meter", "metres", "meters")
_BLOCK = 1024  # posts
_SHRINKS = 1.2  # a DEM this many times finer than the posts is averaged, else it is interpolated

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Posts:
    """A DEM and where the posts of a map stand: `onboard.region.elevation`. West and north are outer edges."""

    dem: Raster
    post_m: float
    west_m: float
    north_m: float
    rows: int
    cols: int


def inspect_dem(path: Path) -> Raster:
    """Find out about a DEM. Raises MapError unless it is one georeferenced band of heights in metres."""
    if not path.is_file():
        raise MapError("no such DEM", path, "a GeoTIFF of heights in metres")
    with opened(path, "DEM") as dataset:
        if dataset.count != 1:
            raise MapError("DEM of several bands", f"{path} has {dataset.count}", "one band of heights in metres")
        if np.dtype(dataset.dtypes[0]).kind not in "uif":
            raise MapError("DEM of unusable numbers", f"{path} ({dataset.dtypes[0]})", "whole or real numbers")
        unit = (dataset.units[0] or "").strip().lower()
        if unit not in _METRES:
            raise MapError("DEM in another unit", f"{path} is in {unit}", "heights in metres", "convert it: gdal_calc")
        return described(dataset, path, (1, 1, 1))


def posts_over(dem: Raster, frame: MapFrame, bounds_enu_m: tuple[float, float, float, float]) -> Posts:
    """The posts for a map of these bounds (west, south, east, north): one more all round, so that all is between posts.

    Raises MapError where the DEM lies elsewhere.
    """
    west, south, east, north = bounds_enu_m
    its_west, its_south, its_east, its_north = dem.bounds_enu_m(frame)
    if not (its_west < east and its_east > west and its_south < north and its_north > south):  # false for nan too
        raise _not_covering(dem, 0.0)
    post = max(FINEST_POST_M, round(dem.native_m, 2))
    left, top = math.floor(west / post) - 1, math.floor(-north / post) - 1
    right, bottom = math.ceil(east / post) + 1, math.ceil(-south / post) + 1
    return Posts(dem, post, left * post, -top * post, bottom - top, right - left)


def lay_heights(posts: Posts, frame: MapFrame, heights_m: np.ndarray) -> None:
    """Write all of `heights_m` float32 (rows, cols): the DEM's, filled within `FILL_M`, nan where none is known."""
    dem = posts.dem
    reach = max(2, math.ceil(FILL_M / posts.post_m))
    warp = {
        "crs": frame.proj4,
        "transform": Affine(posts.post_m, 0, posts.west_m, 0, -posts.post_m, posts.north_m),
        "width": posts.cols,
        "height": posts.rows,
        "resampling": Resampling.average if posts.post_m > _SHRINKS * dem.native_m else Resampling.bilinear,
        "dtype": "float32",
        "add_alpha": True,
    }
    with opened(dem.path, "DEM") as dataset, WarpedVRT(dataset, **warp) as warped:
        for row, rows, col, cols in _blocks(posts.rows, posts.cols):
            top, left = max(row - reach, 0), max(col - reach, 0)  # a block is filled from what lies round it, too
            bottom, right = min(row + rows + reach, posts.rows), min(col + cols + reach, posts.cols)
            block = _read(dataset, warped, dem, Window(left, top, right - left, bottom - top))
            known = np.isfinite(block)
            if known.any() and not known.all():
                block = fillnodata(block, mask=known.astype(np.uint8), max_search_distance=reach)
            heights_m[row : row + rows, col : col + cols] = block[row - top :, col - left :][:rows, :cols]


def facts_of_heights(posts: Posts, heights_m: np.ndarray, grid: LevelGrid, valid: np.ndarray) -> ElevationFacts:
    """What was laid, held against the imagery of a level: `valid` (H, W) of `grid`. MapError where too little is."""
    dem, known, seen, covered = posts.dem, 0, 0, 0
    lowest, highest = math.inf, -math.inf
    for row, rows, col, cols in _blocks(posts.rows, posts.cols):
        block = np.asarray(heights_m[row : row + rows, col : col + cols])
        there = np.isfinite(block)
        if there.any():
            known += int(there.sum())
            lowest, highest = min(lowest, float(block[there].min())), max(highest, float(block[there].max()))
        imagery = _imagery_at(posts, grid, valid, range(row, row + rows), range(col, col + cols))
        seen, covered = seen + int(imagery.sum()), covered + int((imagery & there).sum())
    if known == 0:
        raise MapError("DEM without heights", f"{dem.path} is all void over the imagery", "heights in metres")
    share = covered / max(seen, 1)
    if share < LEAST_COVER:
        raise _not_covering(dem, share)
    if covered < seen:
        _log.warning("%s leaves %.1f %% of the imagery without a height: level there", dem.path, 100 * (1 - share))
    return ElevationFacts(
        post_m=posts.post_m,
        west_m=posts.west_m,
        north_m=posts.north_m,
        rows=posts.rows,
        cols=posts.cols,
        known=known,
        lowest_m=round(lowest, 2),
        highest_m=round(highest, 2),
        source=source_of(dem, None, None),
    )


def _read(dataset: DatasetReader, warped: WarpedVRT, dem: Raster, window: Window) -> np.ndarray:
    """Heights float32 (h, w) in metres of a window of posts, nan where the file has none."""
    try:
        values, alpha = warped.read((1, warped.count), window=window)
    except RasterioError as error:
        raise MapError(
            "unreadable DEM", f"{dem.path} ({error.__cause__ or error})", READABLE, "copy it again"
        ) from error
    heights = np.where(alpha > 0, values * dataset.scales[0] + dataset.offsets[0], np.nan).astype(np.float32)
    low, high = _PLAUSIBLE_M
    if ((heights < low) | (heights > high)).any():
        worst = float(heights[(heights < low) | (heights > high)][0])
        remedy = "declare its voids: gdal_edit.py -a_nodata VALUE DEM"
        raise MapError("DEM with a height that no ground has", f"{worst:g} m in {dem.path}", "-500 to 9000 m", remedy)
    return heights


def _imagery_at(posts: Posts, grid: LevelGrid, valid: np.ndarray, rows: range, cols: range) -> np.ndarray:
    """bool (rows, cols): whether there is imagery at these posts."""
    north = posts.north_m - (np.arange(rows.start, rows.stop) + 0.5) * posts.post_m
    east = posts.west_m + (np.arange(cols.start, cols.stop) + 0.5) * posts.post_m
    row = np.floor((grid.north_m - north) / grid.metres_per_pixel).astype(int)
    col = np.floor((east - grid.west_m) / grid.metres_per_pixel).astype(int)
    rows_in, cols_in = (row >= 0) & (row < grid.height_px), (col >= 0) & (col < grid.width_px)
    there = np.zeros((len(rows), len(cols)), dtype=bool)
    there[np.ix_(rows_in, cols_in)] = valid[np.ix_(row[rows_in], col[cols_in])] > 0
    return there


def _not_covering(dem: Raster, share: float) -> MapError:
    return MapError(
        "DEM does not cover the imagery",
        f"{dem.path} has heights for {100 * share:.1f} % of it",
        f"{100 * LEAST_COVER:.0f} % or more",
        "give one that does, or leave --dem out",
    )


def _blocks(rows: int, cols: int) -> Iterator[tuple[int, int, int, int]]:
    """(row, rows, col, cols) of the blocks that cover the posts."""
    for row in range(0, rows, _BLOCK):
        for col in range(0, cols, _BLOCK):
            yield row, min(_BLOCK, rows - row), col, min(_BLOCK, cols - col)
