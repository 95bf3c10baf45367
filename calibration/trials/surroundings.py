"""Put imagery of elsewhere beside a small reference map, or chips of many places into one: a search over a few
hectares proves little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from onboard.errors import MapError

_GAP_M = 60.0  # between the two, so that no view sees both
_CRS, _ORIGIN = "EPSG:32611", (440_000.0, 3_770_000.0)  # where gathered chips are said to lie: near a meridian's middle


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


def gather(chips: Sequence[Path], out: Path) -> list[Path]:
    """Write chips CITY/PLACE_DATE.tif anew as out/CITY-PLACE_DATE.tif, side by side in one CRS, their pixels untouched.

    The dates of one place share their spot, so that views of one date lie over a map of another, and the places of
    cities far apart make one gallery. Raises MapError where a chip's CRS is not in metres, or a place differs in size
    between dates.
    """
    by_place: dict[str, list[Path]] = {}
    for chip in sorted(chips):
        place, _, _ = chip.stem.rpartition("_")
        by_place.setdefault(f"{chip.parent.name}-{place}", []).append(chip)
    out.mkdir(parents=True, exist_ok=True)
    columns = max(1, math.isqrt(len(by_place)))
    written = []
    for number, (place, dates) in enumerate(sorted(by_place.items())):
        spot = divmod(number, columns)
        sizes = set()
        for chip in dates:
            with rasterio.open(chip) as raster:
                if raster.crs is None or not raster.crs.is_projected:
                    raise MapError("chip", chip, "a projected CRS in metres", "gdalwarp -t_srs EPSG:32611 ...")
                rgb, mask, metres = raster.read([1, 2, 3]), raster.dataset_mask(), abs(raster.transform.a)
            sizes.add((rgb.shape, metres))
            if len(sizes) > 1:
                raise MapError("chips of one place", chip, "the size and resolution of its other dates")
            path = out / f"{place}_{chip.stem.rpartition('_')[2]}.tif"
            written.append(_write_at(path, rgb, mask, metres, spot))
    return written


def _write_at(path: Path, rgb: np.ndarray, mask: np.ndarray, metres: float, spot: tuple[int, int]) -> Path:
    pitch = max(rgb.shape[1:]) * metres + _GAP_M
    west, north = _ORIGIN[0] + spot[1] * pitch, _ORIGIN[1] - spot[0] * pitch
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": _CRS, "compress": "deflate"}
    profile |= {"height": rgb.shape[1], "width": rgb.shape[2], "transform": from_origin(west, north, metres, metres)}
    beside = path.with_suffix(".partial.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(beside, "w", **profile) as raster:
        raster.write(rgb)
        raster.write_mask(np.asarray(mask, dtype=np.uint8))
    return beside.replace(path)
