"""What the vehicle said lately, asked for at the instant when a frame was captured.

Attitude, height and velocity come at their own rates, a little late and not always in order. Between two
samples they are interpolated; after the last one it is held for `max_age_ns` and no longer. Nothing is
ever extrapolated, and before the first sample nothing is known.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from onboard.frames import (
    euler_from_rotation,
    quaternion_from_rotation,
    rotation_from_euler,
    rotation_from_quaternion,
)
from onboard.records import HeightReference, Inertia, Reason, Telemetry

Quaternion = tuple[float, float, float, float]
T = TypeVar("T")

_KEEP_NS = 10_000_000_000
_MOST_SAMPLES = 20_000  # the bound when stamps are broken: 10 s at 2 kHz
_NORM_TOLERANCE = 0.1  # a quaternion further from length 1 is no rotation; drivers send zeros for "unknown"


class _Attitude(NamedTuple):
    quat_wxyz: Quaternion
    heading_known: bool


class _Gimbal(NamedTuple):
    quat_wxyz: Quaternion
    yaw_from_north: bool


class _Height(NamedTuple):
    metres: float
    reference: HeightReference
    home_deg: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Between(Generic[T]):
    """Two samples and how far (0 to 1) the instant lies from the older to the newer; a held one is both."""

    older: T
    newer: T
    share: float


class _Series(Generic[T]):
    """Samples in order of time, the last ten seconds of them."""

    def __init__(self) -> None:
        self._times_ns: list[int] = []
        self._values: list[T] = []

    def add(self, t_ns: int, value: T) -> None:
        """Put a sample where its time belongs; a second one of the same instant replaces the first."""
        i = bisect_left(self._times_ns, t_ns)
        if i < len(self._times_ns) and self._times_ns[i] == t_ns:
            self._values[i] = value
            return
        self._times_ns.insert(i, t_ns)
        self._values.insert(i, value)
        # Old by this sample's own clock, not by the newest: one stamp from the far future must not empty the rest.
        old = bisect_left(self._times_ns, t_ns - _KEEP_NS)
        old = max(old, len(self._times_ns) - _MOST_SAMPLES)
        if old > 0:
            del self._times_ns[:old], self._values[:old]

    def around(self, t_ns: int, max_age_ns: int) -> _Between[T] | None:
        """The samples on both sides of an instant, or the older one held; None where that is too old."""
        newer = bisect_right(self._times_ns, t_ns)
        older = newer - 1
        if older < 0:
            return None
        age_ns = t_ns - self._times_ns[older]
        if newer < len(self._times_ns):
            gap_ns = self._times_ns[newer] - self._times_ns[older]
            if age_ns > 0 and gap_ns <= 2 * max_age_ns:  # no point between them is older than max_age to both
                return _Between(self._values[older], self._values[newer], age_ns / gap_ns)
        if age_ns <= max_age_ns:
            return _Between(self._values[older], self._values[older], 0.0)
        return None

    def reaches(self, t_ns: int) -> bool:
        return bool(self._times_ns) and self._times_ns[-1] >= t_ns

    def __len__(self) -> int:
        return len(self._times_ns)


class TelemetryBuffer:
    """Gathers samples and gives the `Telemetry` of an instant. Not for several threads at once.

    `on_gimbal`: the camera hangs on a gimbal, without whose attitude nothing is known.
    """

    def __init__(self, max_age_ns: int, on_gimbal: bool = False) -> None:
        self.max_age_ns, self.on_gimbal = max_age_ns, on_gimbal
        self._attitude: _Series[_Attitude] = _Series()
        self._height: _Series[_Height] = _Series()
        self._velocity: _Series[tuple[float, ...]] = _Series()
        self._inertia: _Series[Inertia] = _Series()
        self._gimbal: _Series[_Gimbal] = _Series()

    def add_attitude(self, t_ns: int, quat_wxyz: Quaternion, heading_known: bool = True) -> None:
        """ned_from_body (forward, right, down) as a unit quaternion; NaN and zeros are kept, and reported."""
        self._attitude.add(t_ns, _Attitude(quat_wxyz, heading_known))

    def add_height(
        self,
        t_ns: int,
        height_m: float,
        reference: HeightReference = HeightReference.GROUND,
        home_deg: tuple[float, float] | None = None,
    ) -> None:
        """Above `reference`; `home_deg` is the latitude and longitude of home at that time, where known."""
        self._height.add(t_ns, _Height(height_m, reference, home_deg))

    def add_velocity(self, t_ns: int, velocity_ned_mps: Sequence[float]) -> None:
        self._velocity.add(t_ns, tuple(velocity_ned_mps))

    def add_inertia(self, t_ns: int, inertia: Inertia) -> None:
        self._inertia.add(t_ns, inertia)

    def add_gimbal(self, t_ns: int, quat_wxyz: Quaternion, yaw_from_north: bool) -> None:
        """Roll and pitch from the horizon, yaw from north or from the vehicle's nose. Kept only with `on_gimbal`."""
        if self.on_gimbal:
            self._gimbal.add(t_ns, _Gimbal(quat_wxyz, yaw_from_north))

    def passed(self, t_ns: int) -> bool:
        """Whether every kind of telemetry that comes at all has reached an instant: `at` will not get better."""
        series = (self._attitude, self._height, self._velocity, self._inertia, self._gimbal)
        return len(self._attitude) > 0 and all(s.reaches(t_ns) for s in series if len(s))

    def at(self, captured_at_ns: int) -> Telemetry | Reason:
        """What was so at an instant, or the reason why that is not known.

        NO_TELEMETRY: no attitude, or too old. BAD_TELEMETRY: an attitude that is no rotation. NO_GIMBAL: the camera is
        on one, and it does not say how it stands. NO_HEIGHT: none, too old, or not a number. Velocity is a help, not a
        need: without a good one the field is None.
        """
        attitude = self._attitude.around(captured_at_ns, self.max_age_ns)
        if attitude is None:
            return Reason.NO_TELEMETRY
        if not all(_is_rotation(a.quat_wxyz) for a in (attitude.older, attitude.newer)):
            return Reason.BAD_TELEMETRY
        attitude_quat = slerp(attitude.older.quat_wxyz, attitude.newer.quat_wxyz, attitude.share)
        gimbal_quat = self._gimbal_at(captured_at_ns, attitude_quat)
        if gimbal_quat is None and self.on_gimbal:
            return Reason.NO_GIMBAL
        height = self._height.around(captured_at_ns, self.max_age_ns)
        if height is None:
            return Reason.NO_HEIGHT
        older, newer = height.older, height.newer
        alike = older[1:] == newer[1:]  # between heights over different ground lies neither: the older one is held
        height_m = _lerp(older.metres, newer.metres, height.share) if alike else older.metres
        if not math.isfinite(height_m):
            return Reason.NO_HEIGHT
        return Telemetry(
            captured_at_ns,
            attitude_quat,
            height_m,
            attitude.older.heading_known and attitude.newer.heading_known,
            self._velocity_at(captured_at_ns),
            self._inertia_at(captured_at_ns),
            older.reference,
            older.home_deg,
            gimbal_quat,
        )

    def _velocity_at(self, t_ns: int) -> tuple[float, float, float] | None:
        found = self._velocity.around(t_ns, self.max_age_ns)
        if found is None:
            return None
        north, east, down = (_lerp(a, b, found.share) for a, b in zip(found.older, found.newer, strict=True))
        return (north, east, down) if math.isfinite(north + east + down) else None

    def _gimbal_at(self, t_ns: int, attitude_quat_wxyz: Quaternion) -> Quaternion | None:
        """ned_from_gimbal; a yaw that is told from the vehicle's nose turns with the vehicle's own heading."""
        found = self._gimbal.around(t_ns, self.max_age_ns)
        if found is None or not all(_is_rotation(g.quat_wxyz) for g in (found.older, found.newer)):
            return None
        alike = found.older.yaw_from_north == found.newer.yaw_from_north
        quat = slerp(found.older.quat_wxyz, found.newer.quat_wxyz, found.share if alike else 0.0)
        if found.older.yaw_from_north:
            return quat
        heading = euler_from_rotation(rotation_from_quaternion(attitude_quat_wxyz))[2]
        turned = rotation_from_euler(0.0, 0.0, heading) @ rotation_from_quaternion(quat)
        return quaternion_from_rotation(turned)

    def _inertia_at(self, t_ns: int) -> Inertia | None:
        """Between two samples of one run; held ones would miss what happened since."""
        found = self._inertia.around(t_ns, self.max_age_ns)
        if found is None or found.older.run != found.newer.run or not self._inertia.reaches(t_ns):
            return None
        (east, north), (lean_east, lean_north) = (
            (_lerp(a[0], b[0], found.share), _lerp(a[1], b[1], found.share))
            for a, b in (
                (found.older.velocity_enu_mps, found.newer.velocity_enu_mps),
                (found.older.lean_enu_rad, found.newer.lean_enu_rad),
            )
        )
        return Inertia(found.older.run, (east, north), (lean_east, lean_north))


def slerp(older_wxyz: Quaternion, newer_wxyz: Quaternion, share: float) -> Quaternion:
    """The unit quaternion `share` (0 to 1) of the shorter way from one rotation to another."""
    older, newer = _normalised(older_wxyz), _normalised(newer_wxyz)
    cosine = sum(a * b for a, b in zip(older, newer, strict=True))
    sign = 1.0 if cosine >= 0 else -1.0  # q and -q are the same rotation
    angle = math.acos(min(1.0, abs(cosine)))
    if angle < 1e-6:
        weights = 1.0 - share, share
    else:
        weights = math.sin((1.0 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    w, x, y, z = (weights[0] * a + sign * weights[1] * b for a, b in zip(older, newer, strict=True))
    return _normalised((w, x, y, z))


def _lerp(older: float, newer: float, share: float) -> float:
    return older + share * (newer - older) if share else older


def _is_rotation(quat_wxyz: Quaternion) -> bool:
    return abs(math.hypot(*quat_wxyz) - 1.0) <= _NORM_TOLERANCE  # false for NaN too


def _normalised(quat_wxyz: Quaternion) -> Quaternion:
    w, x, y, z = quat_wxyz
    norm = math.hypot(w, x, y, z)
    return w / norm, x / norm, y / norm, z / norm
