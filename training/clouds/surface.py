"""Clouds from a surface model: a raster of heights, real (GeoTIFF) or rendered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.clouds.points import POINTS, CloudError

if TYPE_CHECKING:
    from pyproj import Transformer


def sample_surface(
    surface_m: np.ndarray,
    metres_per_pixel: float,
    centre_px: tuple[float, float],
    side_m: float,
    rng: np.random.Generator,
    count: int = POINTS,
) -> np.ndarray:
    """Points (count, 3) float32 on a surface within a north-up square: metres east, north of its centre, and up from
    the median height in it.

    `surface_m` (H, W) has its first row in the north, NaN where it has a hole; `centre_px` is col, row. Points are
    equally dense on the *surface*, so that walls and slopes get their share. Raises CloudError where the square holds
    too little surface.
    """
    half = side_m / 2 / metres_per_pixel
    low = np.floor(np.array(centre_px) - half).astype(int)
    high = np.ceil(np.array(centre_px) + half).astype(int) + 1
    first, last = np.maximum(low, 0), np.minimum(high, np.array(surface_m.shape[::-1]))
    heights = surface_m[first[1] : last[1], first[0] : last[0]]
    if min(heights.shape, default=0) < 2 or np.isfinite(heights).sum() < 0.25 * (2 * half) ** 2:
        found = f"{np.isfinite(heights).sum()} posts in {side_m:g} m"
        raise CloudError("surface model", found, "at least a quarter of the square", "choose another place")
    corners = np.stack([heights[:-1, :-1], heights[:-1, 1:], heights[1:, :-1], heights[1:, 1:]])
    along = (corners[1] + corners[3] - corners[0] - corners[2]) / 2 / metres_per_pixel
    down = (corners[2] + corners[3] - corners[0] - corners[1]) / 2 / metres_per_pixel
    area = np.nan_to_num(np.sqrt(1 + along**2 + down**2)).ravel()
    cell = rng.choice(area.size, count, p=area / area.sum())
    row, col = np.divmod(cell, corners.shape[2])
    v, u = rng.random((2, count))
    a, b, c, d = corners[:, row, col]
    up = (a * (1 - u) + b * u) * (1 - v) + (c * (1 - u) + d * u) * v
    east = (first[0] + col + u - centre_px[0]) * metres_per_pixel
    north = (centre_px[1] - first[1] - row - v) * metres_per_pixel
    return np.stack([east, north, up - np.nanmedian(heights)], axis=1).astype(np.float32)


def cloud_of_geotiff(
    path: Path, longitude_deg: float, latitude_deg: float, side_m: float, seed: int, count: int = POINTS
) -> np.ndarray:
    """The cloud (count, 3) of a square of a surface model on disk, see `sample_surface`.

    Raises CloudError where the file does not open, has no CRS, or does not cover the square.
    """
    import rasterio
    from pyproj import Transformer
    from rasterio.windows import Window

    try:
        with rasterio.open(path) as raster:
            if raster.crs is None:
                raise CloudError("surface model without CRS", path, "a GeoTIFF", "gdal_translate -a_srs")
            to_crs = Transformer.from_crs("EPSG:4326", raster.crs, always_xy=True)
            x, y = to_crs.transform(longitude_deg, latitude_deg)
            crs_from_pixel = np.array([*raster.transform]).reshape(3, 3)  # its first corner is 0, 0
            col, row, _ = np.linalg.solve(crs_from_pixel, [x, y, 1.0])
            step = _metres_per_pixel(to_crs, crs_from_pixel, col, row)
            half = int(side_m / 2 / step) + 2
            left, top = round(col) - half, round(row) - half
            window = Window(left, top, 2 * half + 1, 2 * half + 1)  # type: ignore[call-arg]
            band = raster.read(1, window=window, boundless=True, masked=True, out_dtype="float32")
            heights = band.filled(np.nan)
    except rasterio.errors.RasterioError as error:
        raise CloudError("surface model", f"{path} ({error})", "a GeoTIFF of heights in metres") from error
    centre = (col - 0.5 - left, row - 0.5 - top)  # pixel centres at whole numbers
    return sample_surface(heights, step, centre, side_m, np.random.default_rng(seed), count)


def _metres_per_pixel(to_crs: Transformer, crs_from_pixel: np.ndarray, col: float, row: float) -> float:
    """True metres that one pixel measures at a place, whatever the projection."""
    from pyproj import Geod

    corners = [crs_from_pixel @ [col + d, row - d, 1.0] for d in (-50, 50)]
    west, east = (to_crs.transform(x, y, direction="INVERSE") for x, y, _ in corners)
    return float(Geod(ellps="WGS84").inv(*west, *east)[2] / 100 / np.sqrt(2))


def read_places(path: Path) -> dict[str, tuple[float, float]]:
    """(longitude, latitude) in degrees by place, of a CSV: place, latitude_deg, longitude_deg.

    Raises CloudError where the file is not there or not such a table.
    """
    import csv

    if not path.is_file():
        raise CloudError("places", path, "a CSV: place, latitude_deg, longitude_deg")
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["place"]: (float(row["longitude_deg"]), float(row["latitude_deg"])) for row in rows}
    except (KeyError, ValueError, TypeError) as error:
        raise CloudError("places", f"{path} ({error!r})", "columns place, latitude_deg, longitude_deg") from error
