"""How each firmware turns degrees into local metres, and back: not as the ellipsoid does.

| firmware  | local frame                                                                                        |
|-----------|----------------------------------------------------------------------------------------------------|
| ArduPilot | flat: one length for a degree (of a sphere of 6,378,100 m), east shrunk by the cosine of the middle |
|           | latitude, never by more than to 0.01 (Location::get_distance_NE, offset_latlng, longitude_scale)   |
| PX4       | azimuthal equidistant on a sphere of 6,371,000 m (MapProjection::project, reproject)               |

A place told in the ellipsoid's metres would come out up to 0.7 % of the distance to the origin away from where it
is: 7 m at a kilometre. Told in the firmware's own metres it comes out at the latitude and longitude that were meant,
and waypoints, fences and the home position, which all are degrees, agree with it: ArduCopter 4.7.0-dev, simulated, put
itself 7 mm from a place 20 km from its origin (its own degrees are whole 11 mm). Snyder, Map Projections: A Working
Manual (1987), equations 25-1 to 25-4 for the azimuthal equidistant projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Degrees = tuple[float, float]  # latitude, longitude

_ARDUPILOT_M_PER_DEGREE = 1e7 * 0.011131884502145034  # LATLON_TO_M: of 1e-7 degrees
_ARDUPILOT_LEAST_SCALE = 0.01  # reached at 89.43 degrees of latitude
_PX4_RADIUS_M = 6_371_000.0


@dataclass(frozen=True, slots=True)
class Globe:
    """A firmware's local frame.

    `north_east_m(origin, place)` gives metres north and east of the origin, `geodetic(origin, north_m, east_m)` the
    place of such metres; origin and place are (latitude, longitude) in degrees.
    """

    name: str
    north_east_m: Callable[[Degrees, Degrees], tuple[float, float]]
    geodetic: Callable[[Degrees, float, float], Degrees]


def wrap_longitude(degrees: float) -> float:
    """The same meridian in [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0


def _flat_north_east_m(origin: Degrees, place: Degrees) -> tuple[float, float]:
    scale = _longitude_scale((origin[0] + place[0]) / 2)
    north = (place[0] - origin[0]) * _ARDUPILOT_M_PER_DEGREE
    return north, wrap_longitude(place[1] - origin[1]) * _ARDUPILOT_M_PER_DEGREE * scale


def _flat_geodetic(origin: Degrees, north_m: float, east_m: float) -> Degrees:
    latitude = origin[0] + north_m / _ARDUPILOT_M_PER_DEGREE
    scale = _longitude_scale((origin[0] + latitude) / 2)
    return latitude, wrap_longitude(origin[1] + east_m / (_ARDUPILOT_M_PER_DEGREE * scale))


def _longitude_scale(latitude_deg: float) -> float:
    return max(math.cos(math.radians(latitude_deg)), _ARDUPILOT_LEAST_SCALE)


def _azimuthal_north_east_m(origin: Degrees, place: Degrees) -> tuple[float, float]:
    origin_latitude, latitude = math.radians(origin[0]), math.radians(place[0])
    turn = math.radians(wrap_longitude(place[1] - origin[1]))
    sin0, cos0, sin1, cos1 = (f(a) for a in (origin_latitude, latitude) for f in (math.sin, math.cos))
    along, across = cos0 * sin1 - sin0 * cos1 * math.cos(turn), cos1 * math.sin(turn)
    sin_c = math.hypot(along, across)  # of the angle between them; the arc cosine would lose half the digits
    angle = math.atan2(sin_c, sin0 * sin1 + cos0 * cos1 * math.cos(turn))
    k = angle / sin_c if sin_c > 0 else 1.0
    return _PX4_RADIUS_M * k * along, _PX4_RADIUS_M * k * across


def _azimuthal_geodetic(origin: Degrees, north_m: float, east_m: float) -> Degrees:
    north, east = north_m / _PX4_RADIUS_M, east_m / _PX4_RADIUS_M
    angle = math.hypot(north, east)
    if angle == 0:
        return origin
    sin0, cos0 = math.sin(math.radians(origin[0])), math.cos(math.radians(origin[0]))
    sin_c, cos_c = math.sin(angle), math.cos(angle)
    sine = cos_c * sin0 + north * sin_c * cos0 / angle
    turn = math.atan2(east * sin_c, angle * cos0 * cos_c - north * sin0 * sin_c)
    latitude = math.degrees(math.asin(max(-1.0, min(1.0, sine))))
    return latitude, wrap_longitude(origin[1] + math.degrees(turn))


ARDUPILOT_GLOBE = Globe("ArduPilot", _flat_north_east_m, _flat_geodetic)
PX4_GLOBE = Globe("PX4", _azimuthal_north_east_m, _azimuthal_geodetic)
