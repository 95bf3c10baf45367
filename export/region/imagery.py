"""Finding out about imagery before anything is made of it: what can be read, where it lies, how fine it is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from onboard.errors import MapError
from onboard.frames import MapFrame
from onboard.region.manifest import sha256_of

_SUFFIXES = (".tif", ".tiff")
_DATE_TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "TIFFTAG_DATETIME")
_GEOREFERENCE_REMEDY = "give it one: gdal_translate -a_srs EPSG:N -a_ullr WEST NORTH EAST SOUTH, or export it with one"
READABLE = "a whole raster that GDAL can read"
_EDGE_POINTS = 33  # points of a raster's edge that are projected to find where it lies


@dataclass(frozen=True, slots=True)
class Raster:
    """A readable, georeferenced file. `bands` are those for red, green, blue (thrice the same where it is grey).

    `outline_deg` (N, 2) are longitude, latitude of points along its edge, `native_m` its pixel on the ground.
    """

    path: Path
    sha256: str
    crs: str
    bands: tuple[int, int, int]
    has_alpha: bool
    dtype: str
    native_m: float
    outline_deg: np.ndarray
    date: str | None
    licence: str | None

    def bounds_enu_m(self, frame: MapFrame) -> tuple[float, float, float, float]:
        """West, south, east, north of its outline in the map frame."""
        points = np.array([frame.enu_from_geodetic(latitude, longitude) for longitude, latitude in self.outline_deg])
        (west, south), (east, north) = points.min(axis=0), points.max(axis=0)
        return float(west), float(south), float(east), float(north)


def find_rasters(imagery: Sequence[Path]) -> list[Path]:
    """The files named and, sorted, the GeoTIFFs below the directories named. MapError where there are none."""
    found: list[Path] = []
    for path in imagery:
        if path.is_dir():
            below = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
            if not below:
                raise MapError("no imagery in directory", path, "*.tif files", "name the GeoTIFFs themselves")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise MapError("no such imagery", path, "a GeoTIFF or a directory of them")
    if not found:
        raise MapError("no imagery", expected="a GeoTIFF or a directory of them")
    return found


@contextmanager
def opened(path: Path, what: str = "imagery") -> Iterator[DatasetReader]:
    """A raster open for reading; what GDAL finds wrong with it becomes a MapError, which calls it `what`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below, as an error with its remedy
            with rasterio.open(path) as dataset:
                yield dataset
    except RasterioError as error:
        detail = str(error.__cause__ or error)
        raise MapError(f"unreadable {what}", f"{path} ({detail})", READABLE, "copy it again") from error


def inspect(path: Path) -> Raster:
    """Read what a file is. Raises MapError where it is no raster, or one that no map can be made of."""
    with opened(path) as dataset:
        return described(dataset, path)


def described(dataset: DatasetReader, path: Path, bands: tuple[int, int, int] | None = None) -> Raster:
    """What an open file is; `bands` are those of its colours where none are given. MapError without a georeference."""
    if dataset.crs is None or dataset.transform.is_identity:
        raise MapError("no georeference", path, "a CRS and a transform", _GEOREFERENCE_REMEDY)
    outline_deg, native_m = _place(dataset, path)
    tags = dataset.tags()
    return Raster(
        path=path,
        sha256=sha256_of(path),
        crs=dataset.crs.to_string(),
        bands=bands or _colour_bands(dataset, path),
        has_alpha=ColorInterp.alpha in dataset.colorinterp,
        dtype=dataset.dtypes[0],
        native_m=native_m,
        outline_deg=outline_deg,
        date=next((tags[tag] for tag in _DATE_TAGS if tags.get(tag)), None),
        licence=tags.get("TIFFTAG_COPYRIGHT") or None,
    )


def value_range(rasters: Sequence[Raster]) -> tuple[float, float] | None:
    """The values that become black and white: percentiles over all imagery that is not of 8 bits; None if all is.

    One range for all files and bands, so that files join without a seam and colours stay as they are.
    """
    samples = []
    for raster in rasters:
        if raster.dtype == "uint8":
            continue
        with opened(raster.path) as dataset:
            shrink = max(1.0, max(dataset.shape) / 256)
            shape = tuple(max(1, round(size / shrink)) for size in dataset.shape)
            values = dataset.read(raster.bands, out_shape=(3, *shape), masked=True)
            samples.append(np.asarray(values.compressed(), dtype=np.float64))
    if not samples:
        return None
    together = np.concatenate(samples)
    together = together[np.isfinite(together)]
    if together.size == 0:
        raise MapError("no valid pixels", f"in {len(rasters)} file(s)", "imagery that is not all nodata")
    low, high = (float(value) for value in np.percentile(together, (0.5, 99.5)))
    return low, max(high, low + 1e-6)


def _colour_bands(dataset: DatasetReader, path: Path) -> tuple[int, int, int]:
    if ColorInterp.palette in dataset.colorinterp:
        raise MapError("imagery with a palette", path, "colours or greys", "gdal_translate -expand rgb IN.tif OUT.tif")
    if np.dtype(dataset.dtypes[0]).kind not in "uif":
        raise MapError("imagery of unusable numbers", f"{path} ({dataset.dtypes[0]})", "whole or real numbers")
    where = {meaning: band for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True)}
    colours = [where.get(colour) for colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)]
    if None not in colours:
        red, green, blue = (int(band) for band in colours if band is not None)
        return red, green, blue
    bands = [band for band in dataset.indexes if band != where.get(ColorInterp.alpha)]
    if not bands:
        raise MapError("imagery without bands", path, "one (grey) or three (red, green, blue)")
    return (bands[0], bands[1], bands[2]) if len(bands) >= 3 else (bands[0], bands[0], bands[0])


def _place(dataset: DatasetReader, path: Path) -> tuple[np.ndarray, float]:
    """Points along the edge (N, 2) longitude, latitude, and the size of the middle pixel on the ground in metres.

    The pixel is measured on the ellipsoid: a metre of EPSG:3857 is not a metre, and a degree is none at all.
    """
    along = np.linspace(0.0, 1.0, _EDGE_POINTS)
    zero, one = np.zeros_like(along), np.ones_like(along)
    edge = np.stack([np.concatenate([along, one, along, zero]), np.concatenate([zero, along, one, along])])
    cols, rows = edge[0] * dataset.width, edge[1] * dataset.height
    middle_cols = dataset.width / 2 + np.array([0.0, 1.0, 0.0])
    middle_rows = dataset.height / 2 + np.array([0.0, 0.0, 1.0])
    try:
        to_geodetic = pyproj.Transformer.from_crs(dataset.crs.to_wkt(), "EPSG:4326", always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise MapError("no usable CRS", f"{path} ({error})", "a geodetic CRS", _GEOREFERENCE_REMEDY) from error
    longitude, latitude = to_geodetic.transform(*_apply(dataset.transform, cols, rows))
    middle = to_geodetic.transform(*_apply(dataset.transform, middle_cols, middle_rows))
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all() and np.isfinite(middle).all()):
        raise MapError("georeference leads off the Earth", path, "a CRS that fits the transform", _GEOREFERENCE_REMEDY)
    frame = MapFrame(middle[1][0], middle[0][0])
    here, right, below = (frame.enu_from_geodetic(lat, lon) for lon, lat in zip(*middle, strict=True))
    (a, b), (c, d) = right - here, below - here
    return np.stack([longitude, latitude], axis=1), math.sqrt(abs(a * d - b * c))


def _apply(transform: Affine, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y of pixel corners; written out, since affine 2 and 3 disagree on the operator."""
    a, b, c, d, e, f = transform[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f
