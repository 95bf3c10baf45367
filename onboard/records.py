"""What passes between the rooms: frozen records, each field with its unit, frame or layout.

Frames are those of `onboard.frames`. Times are integer nanoseconds of *capture*, set once at the
source and carried to the message that is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np


class State(str, Enum):
    """What the localizer knows about where it is."""

    LOST = "lost"
    ACQUIRING = "acquiring"
    TRACKING = "tracking"
    COASTING = "coasting"


class Reason(str, Enum):
    """Why a frame gave no published fix."""

    NO_IMAGE = "no_image"
    BLANK_IMAGE = "blank_image"
    STALE_FRAME = "stale_frame"
    FROZEN_FRAME = "frozen_frame"
    NO_TELEMETRY = "no_telemetry"
    NO_HEIGHT = "no_height"
    NO_GIMBAL = "no_gimbal"
    BAD_TELEMETRY = "bad_telemetry"
    HEIGHT_OUT_OF_RANGE = "height_out_of_range"
    TILT_TOO_LARGE = "tilt_too_large"
    VIEW_TOO_SMALL = "view_too_small"
    OUTSIDE_MAP = "outside_map"
    ENGINE_FAULT = "engine_fault"
    NO_CANDIDATE = "no_candidate"
    WEAK_MATCH = "weak_match"
    AMBIGUOUS = "ambiguous"
    INCONSISTENT = "inconsistent"
    GATED = "gated"
    ACQUIRING = "acquiring"


class HeightReference(str, Enum):
    """What a vehicle's height is counted from."""

    GROUND = "ground"  # right below it
    HOME = "home"  # as high as the ground at home: autopilots without a rangefinder


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image. `image_bgr` is uint8 (H, W, 3), row-major, as OpenCV decodes it."""

    captured_at_ns: int
    image_bgr: np.ndarray
    source: str = ""


@dataclass(frozen=True, slots=True)
class Inertia:
    """Running integrals of the vehicle's IMU: only the difference of two of the same `run` means anything.

    `velocity_enu_mps` (2,): of the accelerations as the vehicle's attitude turns them. `lean_enu_rad` (2,): by how much
    that attitude was leaned east and north beyond what its gyroscopes turned (`onboard.mavlink.vehicle.inertia`).
    """

    run: int
    velocity_enu_mps: tuple[float, float]
    lean_enu_rad: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the vehicle says of itself at one instant.

    `attitude_quat_wxyz` is ned_from_body of the vehicle's body (x forward, y right, z down). Where
    `heading_known` is false its yaw means nothing and is searched. `velocity_ned_mps` is (3,) or None.
    `inertia` is there where the vehicle's IMU is heard.
    `height_above_ground_m` is above the ground only as far as `height_reference` says; `home_deg` is the latitude and
    longitude of the ground that a height above home is counted from, None where that is not known (`onboard.height`).
    `gimbal_quat_wxyz` is ned_from_gimbal of a camera that hangs on one, None of a camera that is fixed to the body.
    """

    captured_at_ns: int
    attitude_quat_wxyz: tuple[float, float, float, float]
    height_above_ground_m: float
    heading_known: bool = True
    velocity_ned_mps: tuple[float, float, float] | None = None
    inertia: Inertia | None = None
    height_reference: HeightReference = HeightReference.GROUND
    home_deg: tuple[float, float] | None = None
    gimbal_quat_wxyz: tuple[float, float, float, float] | None = None

    @property
    def carrier_quat_wxyz(self) -> tuple[float, float, float, float]:
        """ned_from_carrier: of what the camera is fixed to."""
        return self.attitude_quat_wxyz if self.gimbal_quat_wxyz is None else self.gimbal_quat_wxyz


@dataclass(frozen=True, slots=True)
class GroundView:
    """A frame projected on level ground: north up, a fixed number of pixels, a map's resolution.

    `image_rgb` uint8 (N, N, 3); `mask` bool (N, N), true where the camera saw the ground.
    The view's centre is the middle of the pixel grid, `((N - 1) / 2, (N - 1) / 2)`.
    `centre_from_vehicle_enu_m` leads from the point below the vehicle to the view's centre (east, north).
    `heading_offset_rad` and `height_scale` say by how much this view departs from the telemetry: the
    hypothesis under which it was made.
    """

    captured_at_ns: int
    image_rgb: np.ndarray
    mask: np.ndarray
    metres_per_pixel: float
    centre_from_vehicle_enu_m: tuple[float, float]
    heading_rad: float
    heading_offset_rad: float = 0.0
    height_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Fix:
    """Where one frame alone says the vehicle is.

    `position_enu_m` (2,) east, north in the map frame; `covariance_enu_m2` (2, 2);
    `probability_right` is the calibrated chance that the place is the right one.
    `heading_rad` clockwise from north, of the body's x axis. `height_scale` is true over told height. 1 sigma of both,
    as the picture alone tells them: `heading_sigma_rad`, `height_scale_sigma`. `map_date` is the number of the map's
    date that it was found at, 0 the map's own.
    """

    captured_at_ns: int
    position_enu_m: np.ndarray
    covariance_enu_m2: np.ndarray
    heading_rad: float
    height_scale: float
    probability_right: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    heading_sigma_rad: float = 0.0
    height_scale_sigma: float = 0.0
    map_date: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """No fix, and why. `best` is the first guess all the same, for the log only, never for flight."""

    captured_at_ns: int
    reason: Reason
    best: Fix | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is told to the flight controller, valid at `valid_at_ns`.

    `position_enu_m` (2,), `velocity_enu_mps` (2,), `covariance` (4, 4) of east, north, v_east, v_north
    in m and m/s. `height_above_ground_m` is the telemetry's; of one above home, that above the ground at the
    position, by the map's heights. `height_above_home_m` is as it was told, where it was told so.
    `heading_rad` is measured from the map (nan where it was not).
    """

    valid_at_ns: int
    position_enu_m: np.ndarray
    velocity_enu_mps: np.ndarray
    covariance: np.ndarray
    heading_rad: float
    height_above_ground_m: float
    probability_right: float
    height_above_home_m: float | None = None

    @property
    def told_height_m(self) -> float:
        """The height to tell the vehicle, which is as it told it: the map's ground is none of its estimator's."""
        return self.height_above_ground_m if self.height_above_home_m is None else self.height_above_home_m


GUESSES = 5  # of a frame that are logged; recall@5 is what papers print


@dataclass(frozen=True, slots=True)
class Step:
    """All that one call of `Localizer.step` has to say. `estimate` is set exactly when it is published.

    `held`: pictures held the position here, by the map (`reason` is None then) or by each other (visual odometry).
    `rivals_enu_m`: the next guesses after the first, of other places, for the log as well.
    """

    captured_at_ns: int
    source: str
    state: State
    estimate: Estimate | None
    reason: Reason | None
    best_position_enu_m: np.ndarray | None
    fix: Fix | None
    stage_ms: Mapping[str, float]
    detail: str = ""
    held: bool = False
    rivals_enu_m: tuple[np.ndarray, ...] = ()

    @property
    def published(self) -> bool:
        return self.estimate is not None
