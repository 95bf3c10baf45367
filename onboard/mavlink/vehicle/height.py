"""Height above the ground or above home, from the best of the sources that speak.

| source       | what                                                                       |
|--------------|----------------------------------------------------------------------------|
| RANGEFINDER  | DISTANCE_SENSOR that looks down, times the cosine of the tilt               |
| CLEARANCE    | ALTITUDE.bottom_clearance: what the estimator makes of all it has (PX4)     |
| ABOVE_HOME   | GLOBAL_POSITION_INT.relative_alt: above home, which `onboard.height` amends |
| ALTITUDE     | ALTITUDE.altitude_relative: the same by another message (PX4)               |

Only one source at a time is heard, for two of them differ by the terrain and an interpolation between them would be
neither. A source that has been silent, or out of its range, for a second yields to the next; a better one is
heard again once it has spoken for a second without a gap, so that the edge of a sensor's range makes no flicker.
"""

from __future__ import annotations

import math
from enum import IntEnum

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.records import HeightReference

_SILENT_NS = 1_000_000_000
_STEADY_NS = 1_000_000_000
_LEAST_COSINE = 0.5  # a beam that is tilted by more than 60 degrees says nothing about the ground below
_INVALID_SIGNAL = 1
_UNKNOWN_CLEARANCE_M = 1000.0


class HeightSource(IntEnum):
    """Best first."""

    RANGEFINDER = 0
    CLEARANCE = 1
    ABOVE_HOME = 2
    ALTITUDE = 3

    @property
    def reference(self) -> HeightReference:
        """What its heights are counted from."""
        return HeightReference.GROUND if self <= HeightSource.CLEARANCE else HeightReference.HOME


class HeightChoice:
    """Which source counts."""

    def __init__(self) -> None:
        self.source: HeightSource | None = None
        self._since_ns: dict[HeightSource, int] = {}
        self._last_ns: dict[HeightSource, int] = {}

    def heard(self, source: HeightSource, now_ns: int) -> bool:
        """A good sample of a source came: whether it is the one that counts."""
        last_ns = self._last_ns.get(source)
        if last_ns is None or not 0 <= now_ns - last_ns <= _SILENT_NS:
            self._since_ns[source] = now_ns
        self._last_ns[source] = now_ns
        if self.source is None or source < self.source:
            steady = now_ns - self._since_ns[source] >= _STEADY_NS
            if self.source is None or steady or not self._speaks(self.source, now_ns):
                self.source = source
        elif source > self.source and not any(self._speaks(s, now_ns) for s in HeightSource if s < source):
            self.source = source
        return source is self.source

    def _speaks(self, source: HeightSource, now_ns: int) -> bool:
        last_ns = self._last_ns.get(source)
        return last_ns is not None and now_ns - last_ns <= _SILENT_NS


def rangefinder_height_m(message: mav.MAVLink_message, quat_wxyz: tuple[float, float, float, float]) -> float | None:
    """Of DISTANCE_SENSOR (cm along the body's down axis) under an attitude; None where it looks elsewhere or fails."""
    cm = message.current_distance
    if message.orientation != mav.MAV_SENSOR_ROTATION_PITCH_270 or message.signal_quality == _INVALID_SIGNAL:
        return None
    if not message.min_distance < cm or (message.max_distance and cm >= message.max_distance):
        return None
    _, x, y, _ = quat_wxyz
    cosine = 1 - 2 * (x * x + y * y)
    return cm / 100 * cosine if cosine >= _LEAST_COSINE else None  # false for NaN too


def clearance_m(message: mav.MAVLink_message) -> float | None:
    """ALTITUDE.bottom_clearance; NaN, a negative one and 1000 m stand for "unknown"."""
    value = message.bottom_clearance
    return value if 0 <= value < _UNKNOWN_CLEARANCE_M else None


def altitude_relative_m(message: mav.MAVLink_message) -> float | None:
    return message.altitude_relative if math.isfinite(message.altitude_relative) else None
