"""From our records to the MAVLink messages that carry a position: pure functions, one a message.

Stamps are taken as they are: whoever calls has carried `valid_at_ns` into the clock that the firmware wants.

| field                | what goes in                                                                          |
|----------------------|---------------------------------------------------------------------------------------|
| time_usec            | the instant that the estimate is valid at, whole microseconds, rounded down           |
| x, y                 | north, east of the origin in the firmware's own metres (see `globe`)                  |
| z                    | down, minus the height above the origin: always true, never 0 for "unknown"           |
| q                    | the vehicle's own attitude, returned to it; NaN where it or its heading is unknown     |
| vx, vy, vz           | the velocity turned by that same q into the body (forward, right, down)               |
| pose covariance      | 21 upper-triangle numbers of x, y, z, roll, pitch, yaw, as the firmware reads them     |
|                      | (see `covariance`): north before east                                                 |
| velocity covariance  | the horizontal block, turned by the heading alone                                     |

**Velocity.** ArduPilot turns (vx, vy, vz) back to NED by the q of the same message, so the pair is consistent
whatever q's own error is. It needs all of q: a heading alone would leave the tilt's share in. A missing vertical
speed is told as 0, for one NaN in the body would become three in NED.

**Yaw.** We do not measure the vehicle's yaw, and q repeats what the vehicle said, so the three angle variances say
"no information". (Only where the vehicle has no heading and the map gave one does q hold ours, under the same
variance.) They must be numbers: ArduPilot limits them by a function that records an internal error on NaN, which
blocks arming and makes the position error 50 m; the same goes for the variance of z.

**PX4** fuses whatever attitude it gets, so it gets none, and the velocity as north, east, down. Without a known
vertical speed it gets no velocity: a made-up 0 would be fused as well.

**Precision.** x, y, z are float32: the last digit is 0.0005 m at 5 km from the origin, 0.001 m at 10 km and 0.008 m
at 100 km. degE7 in the global messages is 0.011 m.
"""

from __future__ import annotations

import math

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import euler_from_rotation, quaternion_from_euler, rotation_from_quaternion
from onboard.mavlink.tell.covariance import ardupilot_pose_covariance, largest_sigma, pose_covariance
from onboard.mavlink.tell.place import Reference
from onboard.records import Estimate, Telemetry

SENSOR_ID = 1  # of GLOBAL_POSITION_SENSOR: what PX4's EKF2_AGP0_ID has to be; 0 is no sensor to it
GPS_EPOCH_NS = 315_964_800 * 1_000_000_000  # 1980-01-06 in Unix time
_LEAP_S = 18  # GPS is ahead of UTC by this since 2017
_WEEK_MS = 7 * 24 * 3600 * 1000
_SATELLITES, _DOP = 10, 1.0  # what the firmware's arming checks want to see; the accuracy fields tell the truth
_VERTICAL_SPEED_VARIANCE_M2PS2 = 100.0  # the vehicle's own, returned to it: no information
_NAN4 = (math.nan,) * 4


def odometry(
    estimate: Estimate,
    telemetry: Telemetry | None,
    reference: Reference,
    reset_counter: int = 0,
    height_above_home_m: float | None = None,
) -> mav.MAVLink_odometry_message:
    """ODOMETRY in LOCAL_FRD / BODY_FRD, the only pair of frames that ArduPilot reads.

    `height_above_home_m` defaults to the height that the vehicle told: right where that is counted from the origin.
    """
    quat = attitude_quat_wxyz(estimate, telemetry)
    return _odometry(
        estimate,
        _ned_m(estimate, reference, height_above_home_m),
        reset_counter,
        frames=(mav.MAV_FRAME_LOCAL_FRD, mav.MAV_FRAME_BODY_FRD),
        quat_wxyz=quat,
        velocity_mps=_velocity_body_mps(estimate, telemetry, quat),
        pose_upper=ardupilot_pose_covariance(estimate.covariance[:2, :2]),
        velocity_upper=_velocity_covariance(estimate, quat),
    )


def px4_odometry(
    estimate: Estimate,
    telemetry: Telemetry | None,
    reference: Reference,
    reset_counter: int = 0,
    height_above_home_m: float | None = None,
) -> mav.MAVLink_odometry_message:
    """ODOMETRY in LOCAL_NED for PX4's external vision: position and velocity, never an attitude."""
    velocity, variances = _velocity_ned_mps(estimate, telemetry)
    return _odometry(
        estimate,
        _ned_m(estimate, reference, height_above_home_m),
        reset_counter,
        frames=(mav.MAV_FRAME_LOCAL_NED, mav.MAV_FRAME_LOCAL_NED),
        quat_wxyz=_NAN4,
        velocity_mps=velocity,
        pose_upper=pose_covariance(estimate.covariance[:2, :2]),
        velocity_upper=variances,
    )


def vision_position_estimate(
    estimate: Estimate,
    telemetry: Telemetry | None,
    reference: Reference,
    reset_counter: int = 0,
    height_above_home_m: float | None = None,
) -> mav.MAVLink_vision_position_estimate_message:
    """VISION_POSITION_ESTIMATE: local NED metres and the vehicle's own angles in rad, no velocity."""
    north, east, down = _ned_m(estimate, reference, height_above_home_m)
    quat = attitude_quat_wxyz(estimate, telemetry)
    roll, pitch, yaw = (math.nan,) * 3 if quat is _NAN4 else euler_from_rotation(rotation_from_quaternion(quat))
    return mav.MAVLink_vision_position_estimate_message(
        usec=estimate.valid_at_ns // 1000,
        x=north,
        y=east,
        z=down,
        roll=roll,
        pitch=pitch,
        yaw=yaw,
        covariance=ardupilot_pose_covariance(estimate.covariance[:2, :2]),
        reset_counter=reset_counter % 256,
    )


def gps_input(
    estimate: Estimate, reference: Reference, height_above_home_m: float | None = None
) -> mav.MAVLink_gps_input_message:
    """GPS_INPUT: a made-up receiver whose accuracy fields are true. `valid_at_ns` must be Unix time.

    The week fields have to be set; ValueError for a stamp before GPS began (a clock that counts from boot).
    """
    if estimate.valid_at_ns < GPS_EPOCH_NS:
        raise ValueError(f"GPS_INPUT needs Unix time, not {estimate.valid_at_ns} ns")
    week, week_ms = divmod((estimate.valid_at_ns - GPS_EPOCH_NS) // 1_000_000 + _LEAP_S * 1000, _WEEK_MS)
    latitude, longitude = reference.geodetic(estimate.position_enu_m)
    ignore = mav.GPS_INPUT_IGNORE_FLAG_VEL_VERT | mav.GPS_INPUT_IGNORE_FLAG_VERTICAL_ACCURACY
    east_mps, north_mps, speed_sigma = 0.0, 0.0, 0.0
    if np.isfinite(estimate.velocity_enu_mps).all():
        east_mps, north_mps = (float(v) for v in estimate.velocity_enu_mps)
        speed_sigma = largest_sigma(estimate.covariance[2:, 2:])
    else:
        ignore |= mav.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ
    if not speed_sigma > 0:  # none, or NaN
        ignore, speed_sigma = ignore | mav.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY, 0.0
    return mav.MAVLink_gps_input_message(
        time_usec=estimate.valid_at_ns // 1000,
        gps_id=0,
        ignore_flags=ignore,
        time_week_ms=week_ms,
        time_week=week,
        fix_type=mav.GPS_FIX_TYPE_3D_FIX,
        lat=round(latitude * 1e7),
        lon=round(longitude * 1e7),
        alt=reference.home.altitude_m + _height_m(estimate, height_above_home_m),
        hdop=_DOP,
        vdop=_DOP,
        vn=north_mps,
        ve=east_mps,
        vd=0.0,
        speed_accuracy=speed_sigma,
        horiz_accuracy=largest_sigma(estimate.covariance[:2, :2]),
        vert_accuracy=0.0,
        satellites_visible=_SATELLITES,
        yaw=0,  # 0 is "no yaw" here
    )


def global_position_sensor(
    estimate: Estimate, reference: Reference, sent_at_ns: int, height_above_home_m: float | None = None
) -> mav.MAVLink_global_position_sensor_message:
    """GLOBAL_POSITION_SENSOR: `time_usec` is when it leaves, `processing_time` how old the estimate is by then.

    `sent_at_ns` is told by the clock of `valid_at_ns`; the two stamps subtract to the validity to the microsecond.
    """
    latitude, longitude = reference.geodetic(estimate.position_enu_m)
    sent_usec = max(sent_at_ns, estimate.valid_at_ns) // 1000
    return mav.MAVLink_global_position_sensor_message(
        target_system=0,
        target_component=0,
        id=SENSOR_ID,
        time_usec=sent_usec,
        processing_time=sent_usec - estimate.valid_at_ns // 1000,
        source=mav.GLOBAL_POSITION_SRC_VISION,
        flags=0,
        lat=round(latitude * 1e7),
        lon=round(longitude * 1e7),
        alt_ellipsoid=math.nan,
        alt=reference.home.altitude_m + _height_m(estimate, height_above_home_m),
        eph=largest_sigma(estimate.covariance[:2, :2]),
        epv=math.nan,
    )


def quality(probability_right: float) -> int:
    """0 (unknown) to 100. Never -1: the firmware drops such a message, and what failed is not sent at all."""
    return round(100 * min(1.0, max(0.0, probability_right))) if math.isfinite(probability_right) else 0


def attitude_quat_wxyz(estimate: Estimate, telemetry: Telemetry | None) -> tuple[float, float, float, float]:
    """ned_from_body as the vehicle told it; NaN where it is unknown, or its heading is and the map gave none."""
    if telemetry is None:
        return _NAN4
    quat = telemetry.attitude_quat_wxyz
    if not np.isfinite(quat).all() or np.linalg.norm(quat) < 0.5:
        return _NAN4
    if telemetry.heading_known:
        return quat
    if math.isfinite(estimate.heading_rad):
        roll, pitch, _ = euler_from_rotation(rotation_from_quaternion(quat))
        return quaternion_from_euler(roll, pitch, estimate.heading_rad)
    return _NAN4


def _ned_m(estimate: Estimate, reference: Reference, height_above_home_m: float | None) -> tuple[float, float, float]:
    """North, east, down of the origin in the firmware's own metres."""
    north, east = reference.north_east_m(estimate.position_enu_m)
    return north, east, -_height_m(estimate, height_above_home_m)


def _height_m(estimate: Estimate, height_above_home_m: float | None) -> float:
    """Above the origin: the height that the vehicle told of itself where the other is not known."""
    return estimate.told_height_m if height_above_home_m is None else height_above_home_m


def _odometry(
    estimate: Estimate,
    ned_m: tuple[float, float, float],
    reset_counter: int,
    *,
    frames: tuple[int, int],
    quat_wxyz: tuple[float, float, float, float],
    velocity_mps: tuple[float, float, float],
    pose_upper: list[float],
    velocity_upper: list[float],
) -> mav.MAVLink_odometry_message:
    """Both firmwares' ODOMETRY. `frames`: of pose and velocity; `..._upper`: the 21 numbers of a covariance."""
    return mav.MAVLink_odometry_message(
        time_usec=estimate.valid_at_ns // 1000,
        frame_id=frames[0],
        child_frame_id=frames[1],
        x=ned_m[0],
        y=ned_m[1],
        z=ned_m[2],
        q=list(quat_wxyz),
        vx=velocity_mps[0],
        vy=velocity_mps[1],
        vz=velocity_mps[2],
        rollspeed=math.nan,
        pitchspeed=math.nan,
        yawspeed=math.nan,
        pose_covariance=pose_upper,
        velocity_covariance=velocity_upper,
        reset_counter=reset_counter % 256,
        estimator_type=mav.MAV_ESTIMATOR_TYPE_VISION,
        quality=quality(estimate.probability_right),
    )


def _velocity_body_mps(
    estimate: Estimate, telemetry: Telemetry | None, quat_wxyz: tuple[float, float, float, float]
) -> tuple[float, float, float]:
    """Forward, right, down; all NaN where the velocity or the attitude is unknown."""
    if quat_wxyz is _NAN4 or not np.isfinite(estimate.velocity_enu_mps).all():
        return math.nan, math.nan, math.nan
    down = telemetry.velocity_ned_mps[2] if telemetry is not None and telemetry.velocity_ned_mps is not None else 0.0
    east, north = estimate.velocity_enu_mps
    velocity_ned = np.array([north, east, down if math.isfinite(down) else 0.0])
    forward, right, below = rotation_from_quaternion(quat_wxyz).T @ velocity_ned
    return float(forward), float(right), float(below)


def _velocity_ned_mps(
    estimate: Estimate, telemetry: Telemetry | None
) -> tuple[tuple[float, float, float], list[float]]:
    """North, east, down and the 21 numbers of their covariance; all NaN where one of the three is unknown."""
    upper = [math.nan] * 21
    down = math.nan
    if telemetry is not None and telemetry.velocity_ned_mps is not None:
        down = telemetry.velocity_ned_mps[2]
    east, north = (float(v) for v in estimate.velocity_enu_mps)
    (ee, en), (_, nn) = estimate.covariance[2:, 2:]
    if not np.isfinite([north, east, down, ee, en, nn]).all():
        return (math.nan, math.nan, math.nan), upper
    upper[0], upper[1], upper[6], upper[11] = float(nn), float(en), float(ee), _VERTICAL_SPEED_VARIANCE_M2PS2
    return (north, east, down), upper


def _velocity_covariance(estimate: Estimate, quat_wxyz: tuple[float, float, float, float]) -> list[float]:
    """21 numbers of vx, vy, vz and the rates, of which the horizontal block is known.

    The turn is by the heading alone: the vertical speed has no variance of ours to tilt in.
    """
    upper = [math.nan] * 21
    block = np.asarray(estimate.covariance, dtype=float)[2:, 2:]
    if quat_wxyz is _NAN4 or not np.isfinite(block).all() or not np.isfinite(estimate.velocity_enu_mps).all():
        return upper
    heading = euler_from_rotation(rotation_from_quaternion(quat_wxyz))[2]
    cos, sin = math.cos(heading), math.sin(heading)
    level_from_enu = np.array([[sin, cos], [cos, -sin]])  # forward, right of east, north
    turned = level_from_enu @ block @ level_from_enu.T
    upper[0], upper[1], upper[6] = float(turned[0, 0]), float(turned[0, 1]), float(turned[1, 1])
    return upper
