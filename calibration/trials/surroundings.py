"""Put imagery of elsewhere beside a small reference map: a search over a few hectares proves little."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from onboard.errors import MapError

_GAP_M = 60.0  # between the two, so that no view sees both


def place_beside(imagery: Path, reference: Path, out: Path) -> Path:
    """Write `imagery` anew in the reference's CRS, its pixels untouched, east of the reference.

    Raises MapError where the reference is not in metres.
    """
    with rasterio.open(reference) as raster:
        crs, bounds = raster.crs, raster.bounds
        if crs is None or not crs.is_projected:
            raise MapError("reference", reference, "a projected CRS in metres", "gdalwarp -t_srs EPSG:32633 ...")
    with rasterio.open(imagery) as raster:
        metres = abs(raster.transform.a)
        south, north = transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)[1::2]
        if raster.crs.to_epsg() == 3857:
            metres *= math.cos(math.radians((south + north) / 2))
        rgb, mask = raster.read([1, 2, 3]), raster.dataset_mask()
    middle = (bounds.bottom + bounds.top) / 2
    origin = from_origin(bounds.right + _GAP_M, middle + rgb.shape[1] * metres / 2, metres, metres)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": crs, "transform": origin, "tiled": True}
    profile |= {"height": rgb.shape[1], "width": rgb.shape[2], "compress": "deflate"}
    beside = out.with_suffix(".partial.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(beside, "w", **profile) as raster:
        raster.write(rgb)
        raster.write_mask(np.asarray(mask, dtype=np.uint8))
    beside.replace(out)
    return out
