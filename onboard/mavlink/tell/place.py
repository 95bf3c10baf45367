"""Where the flight controller's local frame begins, and how the map frame is carried over to it.

The origin travels as whole 1e-7 degrees and millimetres (SET_GPS_GLOBAL_ORIGIN). It is rounded *here*, once,
and every local position is counted from the rounded place: the sender and the receiver mean the same point,
and the 5 mm that the rounding moves it by are not an error of any fix.

Between the two, positions are latitude and longitude: the map frame is the ellipsoid's, the firmware's local frame
its own (see `globe`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.tell.globe import ARDUPILOT_GLOBE, Globe

DEGREES_E7 = 1e7


@dataclass(frozen=True, slots=True)
class Home:
    """The origin of the local frame, as it is on the wire: 1e-7 degrees (WGS 84), millimetres above sea level."""

    latitude_e7: int
    longitude_e7: int
    altitude_mm: int = 0

    @classmethod
    def at(cls, latitude_deg: float, longitude_deg: float, altitude_m: float = 0.0) -> Home:
        """The origin nearest to a place. LinkError for a place that is not on Earth."""
        if not (abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180 and abs(altitude_m) <= 100_000):
            raise LinkError(
                "origin", f"{latitude_deg}, {longitude_deg}, {altitude_m} m", "latitude, longitude in degrees, metres"
            )
        return cls(round(latitude_deg * DEGREES_E7), round(longitude_deg * DEGREES_E7), round(altitude_m * 1000))

    @property
    def latitude_deg(self) -> float:
        return self.latitude_e7 / DEGREES_E7

    @property
    def longitude_deg(self) -> float:
        return self.longitude_e7 / DEGREES_E7

    @property
    def altitude_m(self) -> float:
        return self.altitude_mm / 1000

    @property
    def degrees(self) -> tuple[float, float]:
        """(latitude, longitude)."""
        return self.latitude_deg, self.longitude_deg


@dataclass(frozen=True, slots=True)
class Reference:
    """The vehicle's origin, the map frame that estimates are told in, and the globe of the firmware.

    Both frames' axes are taken as one where a velocity or a covariance is told: grid north of two anchors 10 km
    apart differs by 0.1 degrees at 50 degrees of latitude, far less than either is known to.
    """

    home: Home
    map_frame: MapFrame
    globe: Globe = ARDUPILOT_GLOBE

    def geodetic(self, position_enu_m: np.ndarray) -> tuple[float, float]:
        """(latitude, longitude) in degrees of a point (2,) of the map frame."""
        return self.map_frame.geodetic_from_enu(position_enu_m)

    def north_east_m(self, position_enu_m: np.ndarray) -> tuple[float, float]:
        """(north, east) in the firmware's metres from the origin of a point (2,) of the map frame."""
        if not np.isfinite(position_enu_m).all():
            return math.nan, math.nan
        return self.globe.north_east_m(self.home.degrees, self.geodetic(position_enu_m))
