"""The place that a vehicle's relative heights are counted from.

Autopilots count height from home. But home's place is not always where that height is zero: ArduPilot without GPS sets
home in flight, at its first position, horizontally under the vehicle and vertically at the height of its start. Over
hills the two belong to different ground. So a home that comes, or moves, while the vehicle is heard counts only where
the next height told is one of a vehicle that stands. The newest wins; one that does not count takes the place of the
last one all the same, for the heights are no longer counted from there.
"""

from __future__ import annotations

import math

Degrees = tuple[float, float]

_STANDING_M = 5.0  # a barometer drifts by metres before take-off
_LISTENED_NS = 5_000_000_000  # a home told so soon was set before we listened, on the ground for all we know


class HeightZero:
    """Fed with homes and relative heights as they come. `place_deg` (latitude, longitude) is None where not known."""

    def __init__(self) -> None:
        self.place_deg: Degrees | None = None
        self._since_ns: int | None = None
        self._doubted_deg: Degrees | None = None  # until the next height

    def home(self, latitude_deg: float, longitude_deg: float, now_ns: int) -> None:
        """Where the vehicle says that home is. What is no place on Earth is passed over, as is 0, 0: none was set."""
        place = (latitude_deg, longitude_deg)
        on_earth = abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180  # false for nan too
        if not on_earth or place in ((0.0, 0.0), self.place_deg):
            return
        if self._listened_ns(now_ns) <= _LISTENED_NS and self.place_deg is None:
            self.place_deg = place
        else:
            self.place_deg, self._doubted_deg = None, place

    def height(self, relative_m: float, now_ns: int) -> Degrees | None:
        """A relative height; the place that it is counted from."""
        self._listened_ns(now_ns)
        if self._doubted_deg is not None and math.isfinite(relative_m):
            self.place_deg = self._doubted_deg if abs(relative_m) <= _STANDING_M else None
            self._doubted_deg = None
        return self.place_deg

    def _listened_ns(self, now_ns: int) -> int:
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        return now_ns - self._since_ns
