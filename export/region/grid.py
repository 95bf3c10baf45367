"""The grid of a region map: its frame, its resolutions, and where their pixels lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.region.imagery import Raster
from onboard.errors import MapError
from onboard.frames import MapFrame

FINEST_M = 0.3  # finer than this a view from flying height covers too little ground
COARSEST_M = 1.3  # no level coarser than this is made of imagery that is finer
LARGEST_SIDE_M = 200_000.0  # further from the anchor the frame's metres are no longer metres


@dataclass(frozen=True, slots=True)
class LevelGrid:
    """The pixels of one level; west and north are outer edges. Height and width are whole numbers of cells."""

    metres_per_pixel: float
    west_m: float
    north_m: float
    height_px: int
    width_px: int

    @property
    def bounds_enu_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        south = self.north_m - self.height_px * self.metres_per_pixel
        return self.west_m, south, self.west_m + self.width_px * self.metres_per_pixel, self.north_m

    def pixels_over(self, bounds_enu_m: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        """First and last + 1 row, then column, of the pixels that touch the bounds."""
        west, south, east, north = bounds_enu_m
        top, bottom = (self.north_m - north) / self.metres_per_pixel, (self.north_m - south) / self.metres_per_pixel
        left, right = (west - self.west_m) / self.metres_per_pixel, (east - self.west_m) / self.metres_per_pixel
        return (
            max(0, math.floor(top)),
            min(self.height_px, math.ceil(bottom)),
            max(0, math.floor(left)),
            min(self.width_px, math.ceil(right)),
        )


def resolutions_m(native_m: Sequence[float], finest_m: float | None = None) -> list[float]:
    """Metres per pixel of the levels, finest first, for imagery of these native resolutions on the ground.

    The finest is that of the finest file, to a centimetre and not below `FINEST_M`, unless it is given; the
    others double it up to `COARSEST_M`. Coarse imagery makes one level.
    """
    if finest_m is not None and not 0.02 <= finest_m <= 100.0:
        raise MapError("metres per pixel", finest_m, "0.02 to 100")
    first = finest_m if finest_m is not None else max(FINEST_M, round(min(native_m), 2))
    levels = [first]
    while 2 * levels[-1] <= COARSEST_M + 1e-9:
        levels.append(2 * levels[-1])
    return levels


def frame_about(rasters: Sequence[Raster]) -> MapFrame:
    """The map frame about the middle of all imagery, its anchor to 1e-7 degrees (a centimetre)."""
    longitude, latitude = rasters[0].outline_deg[0]
    provisional = MapFrame(float(latitude), float(longitude))
    bounds = _together(rasters, provisional)
    middle = np.array([(bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2])
    latitude, longitude = provisional.geodetic_from_enu(middle)
    return MapFrame(round(latitude, 7), round(longitude, 7))


def grids(rasters: Sequence[Raster], frame: MapFrame, levels_m: Sequence[float], stride_px: int) -> list[LevelGrid]:
    """One grid a level, all over the same ground: the imagery's, grown to whole detail cells of the coarsest."""
    west, south, east, north = _together(rasters, frame)
    finest, doublings = levels_m[0], len(levels_m) - 1
    first_col, last_col = math.floor(west / finest), math.ceil(east / finest)
    first_row, last_row = math.floor(-north / finest), math.ceil(-south / finest)
    step = stride_px * 2**doublings
    width = -(-(last_col - first_col) // step) * step
    height = -(-(last_row - first_row) // step) * step
    return [
        LevelGrid(metres, first_col * finest, -first_row * finest, height >> level, width >> level)
        for level, metres in enumerate(levels_m)
    ]


def _together(rasters: Sequence[Raster], frame: MapFrame) -> tuple[float, float, float, float]:
    each = np.array([raster.bounds_enu_m(frame) for raster in rasters])
    if not np.isfinite(each).all() or (each[:, 2:].max(axis=0) - each[:, :2].min(axis=0)).max() > LARGEST_SIDE_M:
        far = rasters[int(np.abs(np.nan_to_num(each, posinf=1e12)).max(axis=1).argmax())].path
        raise MapError(
            "imagery lies too far apart for one map", far, f"all within {LARGEST_SIDE_M / 1000:.0f} km", "make two maps"
        )
    west, south = each[:, :2].min(axis=0)
    east, north = each[:, 2:].max(axis=0)
    return float(west), float(south), float(east), float(north)
