"""Where a flight begins, as a user tells it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from onboard.errors import ConfigError

if TYPE_CHECKING:
    from onboard.region import RegionMap


def parse_start(text: str | None) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees of "LAT,LON"; ConfigError for anything else."""
    if text is None:
        return None
    try:
        latitude_deg, longitude_deg = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            "--start", repr(text), "LAT,LON in degrees", "for instance --start 37.4917,141.0003"
        ) from error
    if not (math.isfinite(latitude_deg + longitude_deg) and abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180):
        raise ConfigError("--start", repr(text), "latitude within 90 and longitude within 180 degrees, in this order")
    return latitude_deg, longitude_deg


def start_on_map(start_deg: tuple[float, float] | None, region: RegionMap) -> np.ndarray | None:
    """(2,) east, north of the start; ConfigError where the map does not reach."""
    if start_deg is None:
        return None
    start_enu_m = region.frame.enu_from_geodetic(*start_deg)
    west, south, east, north = region.bounds_enu_m
    if not (west <= start_enu_m[0] <= east and south <= start_enu_m[1] <= north):
        south_deg, west_deg = region.frame.geodetic_from_enu(np.array([west, south]))
        north_deg, east_deg = region.frame.geodetic_from_enu(np.array([east, north]))
        raise ConfigError(
            "--start lies outside the map",
            f"{start_deg[0]},{start_deg[1]}",
            f"latitude {south_deg:.5f} to {north_deg:.5f}, longitude {west_deg:.5f} to {east_deg:.5f}",
            "leave --start out, or take the map of that place",
        )
    return start_enu_m
