"""Ground that is a formula, as GeoTIFFs of any CRS, and an engine whose features are a projection of colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyproj
import rasterio
from affine import Affine

from onboard.engine import Embeddings, ModelFacts
from onboard.frames import MapFrame

PLACE = MapFrame(37.5, 140.99)  # where 3857's metres are 1.26 times too long
UTM = "EPSG:32654"
SIDE_M = 180.0


class ToyEngine:
    """Features that are a fixed projection of colours and slopes; `fails_at` interrupts at that call."""

    backend = "toy"

    def __init__(self, sha256: str = "ab" * 32, fails_at: int | None = None) -> None:
        self.facts = ModelFacts("toy", sha256, 256, 8, 16, 32, 4, 8, {})
        generator = np.random.default_rng(7)
        self._detail = generator.normal(size=(5, 16)).astype(np.float32)
        self._global = generator.normal(size=(192, 32)).astype(np.float32)
        self._fails_at, self.windows, self._calls = fails_at, 0, 0

    def embed(self, images_rgb: np.ndarray, masks: np.ndarray) -> Embeddings:
        self._calls += 1
        if self._calls == self._fails_at:
            raise KeyboardInterrupt
        self.windows += len(images_rgb)
        return Embeddings(
            np.stack([self._descriptor(image) for image in images_rgb]),
            np.stack([self._features(image) for image in images_rgb]),
            np.zeros((len(images_rgb), 64, 64, 8), np.float32),
        )

    def close(self) -> None:
        """Nothing is held."""

    def _features(self, image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image.astype(np.float32) - 100, (32, 32), interpolation=cv2.INTER_AREA)
        down, right = np.gradient(small.mean(axis=-1))
        features = np.dstack([small, down, right]) @ self._detail + 1e-3
        return features / np.linalg.norm(features, axis=-1, keepdims=True)

    def _descriptor(self, image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image.astype(np.float32) - 100, (8, 8), interpolation=cv2.INTER_AREA)
        descriptor = small.ravel() @ self._global + 1e-3
        return descriptor / np.linalg.norm(descriptor)


def pattern(east_m: np.ndarray, north_m: np.ndarray) -> np.ndarray:
    """Colours (..., 3) in 30 to 220 of points about PLACE: waves of 9 m and more that do not repeat together."""
    e, n = np.asarray(east_m), np.asarray(north_m)
    red = np.sin(e / 3.1 + np.sin(n / 17.0)) + np.sin(n / 5.3) + np.sin((e + n) / 41.0)
    green = np.sin(n / 2.7 + np.sin(e / 23.0)) + np.sin((e - n) / 7.1) + np.sin(e / 37.0)
    blue = np.sin((e + 2 * n) / 6.1) + np.sin(e / 11.0) * np.sin(n / 13.0) + np.sin(n / 29.0)
    return 125 + 95 / 3 * np.stack([red, green, blue], axis=-1)


def write_geotiff(
    path: Path,
    crs: str = UTM,
    step: float = 0.6,
    centre_enu_m: tuple[float, float] = (0.0, 0.0),
    side_m: float = SIDE_M,
    turn_rad: float = 0.0,
    change: Callable[[np.ndarray], np.ndarray] = lambda bands: bands,
    mask: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    **profile: object,
) -> Path:
    """The pattern about PLACE as a GeoTIFF of a CRS; `step` is a pixel in its units, `change` acts on (3, H, W)."""
    from_geodetic = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    latitude, longitude = PLACE.geodetic_from_enu(np.asarray(centre_enu_m))
    x, y = from_geodetic.transform(longitude, latitude)
    side = math.ceil(side_m / (0.6 if crs == "EPSG:4326" else step))
    a, b = step * math.cos(turn_rad), step * math.sin(turn_rad)
    d, e = step * math.sin(turn_rad), -step * math.cos(turn_rad)
    c, f = x - (a + b) * side / 2, y - (d + e) * side / 2
    transform = Affine(a, b, c, d, e, f)
    cols, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    longitudes, latitudes = from_geodetic.transform(
        a * cols + b * rows + c, d * cols + e * rows + f, direction="INVERSE"
    )
    east, north = pyproj.Transformer.from_crs("EPSG:4326", PLACE.proj4, always_xy=True).transform(longitudes, latitudes)
    bands = change(np.moveaxis(np.rint(pattern(east, north)).astype(np.uint8), -1, 0))
    settings = {"driver": "GTiff", "count": len(bands), "dtype": bands.dtype, "crs": crs, "transform": transform}
    settings.update(profile)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", width=bands.shape[2], height=bands.shape[1], **settings) as file,
    ):
        file.write(bands)
        if mask is not None:
            file.write_mask(mask(east, north))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
