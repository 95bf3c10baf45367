"""Height above the ground here, from the height above home and the heights of the ground in the region map.

    above ground = above home + elevation(home) - elevation(here)

Here is where the vehicle is taken to be. A vehicle that names no home that counts is taken to have started where the
user says that the flight begins, if he does. Where the map holds no heights, neither is known or it lies off the map,
or the ground's height is not known here, the height stays as it was told: right over ground as high as home.

While the vehicle is lost, here may be anywhere: the height is that midway between the highest and the lowest ground
searched, and other heights are searched as well, as far as those two reach (and no further than 30 %). A place found
must then agree with its own ground: a fix whose scale says another height than the map does is none. What is left of a
fix's scale is the error of the height at its own place, as it is for a fix of a vehicle that is tracked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from onboard.config import Config
from onboard.records import Fix, HeightReference, Telemetry
from onboard.region import RegionMap

_MOST_ERROR = 0.30  # of the height, searched while lost: seven or nine heights are tried then, not three
_SIDE = 33  # points along a side of the ground searched, at which its height is looked up
_LOW, _HIGH = 5, 95  # percentiles of the ground searched between which its heights lie, but for a cliff or two


class HeightByMap:
    """Corrects the height of one vehicle's telemetry; without heights in the map it changes nothing.

    `start_enu_m` (2,): where the flight begins, which stands for a home that is not known.
    """

    def __init__(self, region: RegionMap, config: Config, start_enu_m: np.ndarray | None = None) -> None:
        self._region, self._limits, self._error = region, config.rectify, config.search.height_error
        self._used = config.rectify.height_from_map and region.elevation is not None
        self._home: tuple[tuple[float, float], float] | None = None  # its place and the ground's elevation there
        self._start_m = math.nan if start_enu_m is None else float(region.elevation_at(start_enu_m)[0])
        self._everywhere: np.ndarray | None = None

    def here(self, told: Telemetry, position_enu_m: np.ndarray) -> Telemetry:
        """Above the ground at a position (2,) east, north; as told where that is not known."""
        above = self._above_zero_m(told)
        ground = math.nan if above is None else float(self._region.elevation_at(position_enu_m)[0])
        return told if above is None or math.isnan(ground) else _above_ground(told, above - ground)

    def somewhere(
        self, told: Telemetry, centre_enu_m: np.ndarray | None, radius_m: float
    ) -> tuple[Telemetry, float | None]:
        """Above the middle of the ground round a centre (2,), or of all; the share by which it may be off.

        The share is None where the height stays as told. Ground that the vehicle cannot be over is left out; one that
        may stand at home is over none, however deep the valleys are.
        """
        above = self._above_zero_m(told)
        if above is None or told.height_above_ground_m < self._limits.min_height_m:
            return told, None
        heights = above - self._ground_m(centre_enu_m, radius_m)
        heights = heights[(heights >= self._limits.min_height_m) & (heights <= self._limits.max_height_m)]
        if not len(heights):
            return told, None
        low, high = (float(height) for height in np.percentile(heights, (_LOW, _HIGH)))
        share = self._error + (high - low) / (high + low)
        return _above_ground(told, (high + low) / 2), max(self._error, min(share, _MOST_ERROR))

    def agreeing(self, fixes: Sequence[Fix], told: Telemetry, searched: Telemetry) -> tuple[Fix, ...]:
        """Fixes made at the height `searched`, scaled to that of their own places; without those it contradicts."""
        kept = []
        for fix in fixes:
            there = self.here(told, fix.position_enu_m)
            if there.height_above_ground_m <= 0:
                continue
            scale = fix.height_scale * searched.height_above_ground_m / there.height_above_ground_m
            if there is told or abs(scale - 1) <= 2 * self._error:
                kept.append(dataclasses.replace(fix, height_scale=scale))
        return tuple(kept)

    def _above_zero_m(self, told: Telemetry) -> float | None:
        """The vehicle's height on the map's datum; None where it is not known, or needs no correction."""
        if not self._used or told.height_reference is not HeightReference.HOME:
            return None
        above = told.height_above_ground_m + (self._start_m if told.home_deg is None else self._home_m(told.home_deg))
        return above if math.isfinite(above) else None

    def _home_m(self, home_deg: tuple[float, float]) -> float:
        """The ground's elevation at home; NaN where it is not known."""
        if not math.isfinite(sum(home_deg)):
            return math.nan
        if self._home is None or self._home[0] != home_deg:
            place = self._region.frame.enu_from_geodetic(*home_deg)
            self._home = home_deg, float(self._region.elevation_at(place)[0])
        return self._home[1]

    def _ground_m(self, centre_enu_m: np.ndarray | None, radius_m: float) -> np.ndarray:
        """Elevations (N,) of the ground searched, where they are known."""
        if centre_enu_m is None:
            if self._everywhere is None:
                west, south, east, north = self._region.bounds_enu_m
                self._everywhere = self._known(np.linspace(west, east, _SIDE), np.linspace(south, north, _SIDE))
            return self._everywhere
        steps = np.linspace(-radius_m, radius_m, _SIDE)
        return self._known(centre_enu_m[0] + steps, centre_enu_m[1] + steps)

    def _known(self, east_m: np.ndarray, north_m: np.ndarray) -> np.ndarray:
        points = np.stack(np.meshgrid(east_m, north_m), axis=-1).reshape(-1, 2)
        elevations = self._region.elevation_at(points)
        return elevations[np.isfinite(elevations)]


def _above_ground(told: Telemetry, height_m: float) -> Telemetry:
    return dataclasses.replace(
        told, height_above_ground_m=height_m, height_reference=HeightReference.GROUND, home_deg=None
    )
