"""What the vehicle says of itself, one record per kind: in our units and frames, `at_ns` by our clock.

A field that the vehicle does not know is NaN (a number) or None (a vector).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pymavlink.dialects.v20 import ardupilotmega as mav

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

_GRAVITY_MPS2 = 9.80665
_UNKNOWN_U16 = 65535


@dataclass(frozen=True, slots=True)
class LocalPosition:
    """LOCAL_POSITION_NED: metres from the vehicle's origin, and m/s."""

    at_ns: int
    position_ned_m: Vector
    velocity_ned_mps: Vector


@dataclass(frozen=True, slots=True)
class GlobalPosition:
    """GLOBAL_POSITION_INT: what the estimator holds; `relative_height_m` is above home."""

    at_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    relative_height_m: float
    velocity_ned_mps: Vector


@dataclass(frozen=True, slots=True)
class GpsReading:
    """GPS_RAW_INT. `error_m` is the receiver's claimed horizontal 1 sigma; the velocity is horizontal, down is 0."""

    at_ns: int
    fix_type: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    error_m: float
    velocity_ned_mps: Vector | None
    satellites: int


@dataclass(frozen=True, slots=True)
class EstimatorReading:
    """EKF_STATUS_REPORT (ArduPilot) or ESTIMATOR_STATUS (PX4). A ratio above 1 means that a measurement is refused.

    The low ten bits of both flags mean the same. Above them they differ, so those two are read here. `position_sigma_m`
    is the claimed horizontal error (PX4 only).
    """

    at_ns: int
    flags: int
    velocity_ratio: float
    pos_horiz_ratio: float
    pos_vert_ratio: float
    compass_ratio: float
    terrain_ratio: float
    position_sigma_m: float
    uninitialised: bool
    gps_glitch: bool

    @property
    def attitude_known(self) -> bool:
        return bool(self.flags & mav.EKF_ATTITUDE) and not self.uninitialised

    @property
    def velocity_known(self) -> bool:
        """Horizontally, and measured by something: without aiding it is held at zero, whatever the vehicle does."""
        return bool(self.flags & mav.EKF_VELOCITY_HORIZ) and not self.flags & mav.EKF_CONST_POS_MODE


@dataclass(frozen=True, slots=True)
class GimbalReading:
    """GIMBAL_DEVICE_ATTITUDE_STATUS: roll and pitch from the horizon, yaw from north or from the vehicle's nose."""

    at_ns: int
    device: int
    quat_wxyz: Quaternion
    yaw_from_north: bool


@dataclass(frozen=True, slots=True)
class ImuReading:
    """Specific force of the body (forward, right, down), m/s2: a vehicle at rest reads -9.8 downwards."""

    at_ns: int
    specific_force_frd_mps2: Vector


def local_position(message: mav.MAVLink_message, at_ns: int) -> LocalPosition:
    return LocalPosition(at_ns, (message.x, message.y, message.z), (message.vx, message.vy, message.vz))


def global_position(message: mav.MAVLink_message, at_ns: int) -> GlobalPosition:
    return GlobalPosition(
        at_ns,
        message.lat / 1e7,
        message.lon / 1e7,
        message.alt / 1000,
        message.relative_alt / 1000,
        (message.vx / 100, message.vy / 100, message.vz / 100),
    )


def gps(message: mav.MAVLink_message, at_ns: int) -> GpsReading:
    velocity = None
    if message.vel != _UNKNOWN_U16 and message.cog != _UNKNOWN_U16:
        speed, course = message.vel / 100, math.radians(message.cog / 100)
        velocity = (speed * math.cos(course), speed * math.sin(course), 0.0)
    return GpsReading(
        at_ns,
        message.fix_type,
        message.lat / 1e7,
        message.lon / 1e7,
        message.alt / 1000,
        message.h_acc / 1000 if message.h_acc else math.nan,
        velocity,
        0 if message.satellites_visible == 255 else message.satellites_visible,
    )


def estimator(message: mav.MAVLink_message, at_ns: int) -> EstimatorReading:
    if message.get_type() == "EKF_STATUS_REPORT":
        return EstimatorReading(
            at_ns,
            message.flags,
            message.velocity_variance,
            message.pos_horiz_variance,
            message.pos_vert_variance,
            message.compass_variance,
            message.terrain_alt_variance,
            math.nan,
            bool(message.flags & mav.EKF_UNINITIALIZED),
            bool(message.flags & mav.EKF_GPS_GLITCHING),
        )
    return EstimatorReading(
        at_ns,
        message.flags,
        message.vel_ratio,
        message.pos_horiz_ratio,
        message.pos_vert_ratio,
        message.mag_ratio,
        message.hagl_ratio,
        message.pos_horiz_accuracy,
        False,
        bool(message.flags & mav.ESTIMATOR_GPS_GLITCH),
    )


def gimbal(message: mav.MAVLink_message, at_ns: int) -> GimbalReading:
    """Devices that do not say whose yaw it is tell it from north exactly where the yaw is locked (MAVLink's rule)."""
    from_nose = message.flags & mav.GIMBAL_DEVICE_FLAGS_YAW_IN_VEHICLE_FRAME
    from_north = message.flags & (mav.GIMBAL_DEVICE_FLAGS_YAW_IN_EARTH_FRAME | mav.GIMBAL_DEVICE_FLAGS_YAW_LOCK)
    w, x, y, z = message.q
    return GimbalReading(at_ns, message.gimbal_device_id, (w, x, y, z), bool(from_north) and not from_nose)


def imu(message: mav.MAVLink_message, at_ns: int) -> ImuReading:
    """HIGHRES_IMU counts m/s2; SCALED_IMU, and RAW_IMU as ArduPilot sends it, thousandths of g."""
    unit = 1.0 if message.get_type() == "HIGHRES_IMU" else _GRAVITY_MPS2 / 1000
    return ImuReading(at_ns, (message.xacc * unit, message.yacc * unit, message.zacc * unit))
