"""A place: a piece of ground as rasters, procedural from a seed or real from a GeoTIFF."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyproj

from onboard.frames import MapFrame
from training.renderer.errors import RenderError
from training.renderer.layout import draw_plan
from training.renderer.raster import draw_layers
from training.renderer.villages import settle

MAP_SUN_DEG = (152.0, 50.0)  # azimuth and elevation when the map's picture was taken: late morning in summer


@dataclass(frozen=True)
class Place:
    """Rasters of one shape (H, W), row 0 in the north, of `metres_per_pixel`.

    `orthophoto` uint8 (H, W, 3) RGB, the map's look; `surface_m` and `terrain_m` float32, with and without
    what stands on the ground; `cover` uint8 (`covers.Cover`) and `objects` uint16 (parcel, roof or crown), None for
    real ground. `crs` and `transform` (a, b, c, d, e, f as rasterio: from col, row of pixel *corners*) georeference
    it. The anchor is at its centre; positions are east, north of it (`onboard.frames.MapFrame`).
    """

    orthophoto: np.ndarray
    surface_m: np.ndarray
    terrain_m: np.ndarray
    metres_per_pixel: float
    anchor_latitude_deg: float
    anchor_longitude_deg: float
    crs: str
    transform: tuple[float, float, float, float, float, float]
    seed: int = 0
    cover: np.ndarray | None = None
    objects: np.ndarray | None = None
    parcel_angle_rad: np.ndarray = field(default_factory=lambda: np.zeros(1))
    roof_objects: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    car_slots: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # right m, down m, angle rad

    @cached_property
    def frame(self) -> MapFrame:
        return MapFrame(self.anchor_latitude_deg, self.anchor_longitude_deg)

    @cached_property
    def enu_from_pixel(self) -> np.ndarray:
        """(2, 3) affine to east, north metres from col, row (pixel centres at whole numbers).

        Taken at the place's centre: the projection's turn and scale are in it, its bend is not (millimetres here).
        """
        height, width = self.surface_m.shape
        a, b, c, d, e, f = self.transform
        to_geodetic = pyproj.Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        step = min(width, height) / 4

        def enu(col: float, row: float) -> np.ndarray:
            x, y = a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f
            longitude, latitude = to_geodetic.transform(x, y)
            return self.frame.enu_from_geodetic(latitude, longitude)

        by_col = (enu(middle[0] + step, middle[1]) - enu(middle[0] - step, middle[1])) / (2 * step)
        by_row = (enu(middle[0], middle[1] + step) - enu(middle[0], middle[1] - step)) / (2 * step)
        linear = np.stack([by_col, by_row], axis=1)
        return np.hstack([linear, (enu(*middle) - linear @ middle)[:, None]])

    @cached_property
    def pixel_from_enu(self) -> np.ndarray:
        """(2, 3) affine to col, row from east, north metres."""
        inverse = np.linalg.inv(self.enu_from_pixel[:, :2])
        return np.hstack([inverse, -inverse @ self.enu_from_pixel[:, 2:]])

    @property
    def size_m(self) -> tuple[float, float]:
        """Extent along columns and rows."""
        return self.surface_m.shape[1] * self.metres_per_pixel, self.surface_m.shape[0] * self.metres_per_pixel

    def terrain_height_m(self, positions_enu_m: np.ndarray) -> np.ndarray:
        """(N,) heights of the bare ground below points (N, 2), clamped to the place's edge."""
        at = np.atleast_2d(positions_enu_m)[:, :2] @ self.pixel_from_enu[:, :2].T + self.pixel_from_enu[:, 2]
        limit = np.array(self.terrain_m.shape[::-1]) - 1.001
        at = np.clip(at, 0, limit)
        col, row = at.astype(int).T
        u, v = (at - np.floor(at)).T
        t = self.terrain_m
        upper = t[row, col] * (1 - u) + t[row, col + 1] * u
        lower = t[row + 1, col] * (1 - u) + t[row + 1, col + 1] * u
        return upper * (1 - v) + lower * v

    @staticmethod
    def from_geotiff(orthophoto: Path | str, surface: Path | str | None = None) -> Place:
        """Real ground: any georeferenced picture; level where there is no surface model."""
        from training.renderer.files import read_real_place

        return read_real_place(Path(orthophoto), None if surface is None else Path(surface))


def generate_place(
    seed: int,
    size_m: float = 2200.0,
    metres_per_pixel: float = 0.5,
    relief_m: float = 40.0,
    anchor_latitude_deg: float = 46.96,
    anchor_longitude_deg: float = 2.61,
) -> Place:
    """A place that no other seed gives: fields, woods, roads, villages, river and ponds over hills.

    Its map's look is summer about noon. Raises RenderError when it is too small to hold all that.
    """
    if size_m < 240 or not 0.1 <= metres_per_pixel <= 4:
        raise RenderError("place", f"{size_m:g} m at {metres_per_pixel:g} m/px", "240 m or more at 0.1 to 4 m/px")
    from training.renderer.season import Season, appearance

    rng = np.random.default_rng([seed, 1])
    plan = draw_plan(rng, size_m)
    settle(rng, plan)
    layers = draw_layers(rng, plan, metres_per_pixel, relief_m * min(1.0, 0.25 + size_m / 2000))
    crs, transform = _utm(anchor_latitude_deg, anchor_longitude_deg, layers.cover.shape, metres_per_pixel)
    place = Place(
        np.zeros((0, 0, 3), np.uint8),
        layers.surface_m,
        layers.terrain_m,
        metres_per_pixel,
        anchor_latitude_deg,
        anchor_longitude_deg,
        crs,
        transform,
        seed,
        layers.cover,
        layers.objects,
        layers.parcel_angle_rad,
        layers.roof_objects,
        np.array(plan.slots).reshape(-1, 3),
    )
    from training.renderer.changes import changed

    picture = appearance(changed(place, seed, removed_share=0.0), Season.SUMMER, *MAP_SUN_DEG, seed=seed)
    return replace(place, orthophoto=picture)


def _utm(
    latitude_deg: float, longitude_deg: float, shape: tuple[int, int], metres_per_pixel: float
) -> tuple[str, tuple[float, float, float, float, float, float]]:
    """UTM zone of the anchor, and the transform that puts the raster's centre there."""
    crs = f"EPSG:{(32600 if latitude_deg >= 0 else 32700) + int((longitude_deg + 180) // 6) + 1}"
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_crs.transform(longitude_deg, latitude_deg)
    s = metres_per_pixel
    return crs, (s, 0.0, x - shape[1] * s / 2, 0.0, -s, y + shape[0] * s / 2)
