"""ROS messages become our records: REP-103 frames (ENU, FLU) become NED and FRD, stamps become nanoseconds.

Messages come as `rosbags` deserializes them: objects with the fields of the message definition.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from onboard.camera import CameraModel
from onboard.frames import ENU_FROM_NED, FLU_FROM_FRD, quaternion_from_rotation, rotation_from_quaternion
from onboard.home import HeightZero
from onboard.records import HeightReference
from onboard.telemetry import TelemetryBuffer

COMPRESSED_IMAGE, IMAGE = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
IMU, QUATERNION = "sensor_msgs/msg/Imu", "geometry_msgs/msg/QuaternionStamped"
POSE = "geometry_msgs/msg/PoseStamped"
RANGE, FLOAT64, FLOAT32 = "sensor_msgs/msg/Range", "std_msgs/msg/Float64", "std_msgs/msg/Float32"
TWIST, ODOMETRY = "geometry_msgs/msg/TwistStamped", "nav_msgs/msg/Odometry"
ALTITUDE, HOME = "mavros_msgs/msg/Altitude", "mavros_msgs/msg/HomePosition"
PX4_ATTITUDE, PX4_LOCAL = "px4_msgs/msg/VehicleAttitude", "px4_msgs/msg/VehicleLocalPosition"
NAVSAT = "sensor_msgs/msg/NavSatFix"
TF = "tf2_msgs/msg/TFMessage"

_NOT_A_ROTATION = (math.nan, math.nan, math.nan, math.nan)
_UNKNOWN_YAW_VARIANCE_RAD2 = (math.pi / 2) ** 2
# Bytes a pixel, and how OpenCV makes BGR of them.
ENCODINGS: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "8UC3": (3, None),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
    # OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first four.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2BGR),
}
_SAME_CLOCK_NS = 60_000_000_000


def stamp_ns(message: Any, logged_at_ns: int) -> int:
    """When a message is valid: its header's stamp; the time of logging where it has none.

    PX4's messages have microseconds instead: of our clock where its agent keeps it in step, else since boot, and
    then they do not count.
    """
    header = getattr(message, "header", None)
    if header is not None:
        stamp = int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
        return stamp if stamp > 0 else logged_at_ns
    stamp = int(getattr(message, "timestamp_sample", 0)) * 1000
    return stamp if stamp > 0 and abs(stamp - logged_at_ns) < _SAME_CLOCK_NS else logged_at_ns


def has_zero_stamp(message: Any) -> bool:
    """Whether a message has a header that nobody stamped."""
    header = getattr(message, "header", None)
    return header is not None and int(header.stamp.sec) == 0 and int(header.stamp.nanosec) == 0


def attitude(message: Any, kind: str) -> tuple[tuple[float, float, float, float], bool]:
    """(ned_from_body quaternion w, x, y, z; whether its heading means something) of a message of an attitude's type.

    Imu, QuaternionStamped, PoseStamped and Odometry tell enu_from_flu, PX4's VehicleAttitude ned_from_frd. What is
    not a rotation comes out as NaN: a frame's reason, not an error.
    """
    quat_wxyz, yaw_variance_rad2 = _orientation(message, kind)
    if yaw_variance_rad2 is None or not abs(math.hypot(*quat_wxyz) - 1.0) <= 0.1:
        return _NOT_A_ROTATION, False
    if kind == PX4_ATTITUDE:
        return quat_wxyz, True
    enu_from_flu = rotation_from_quaternion(quat_wxyz)
    ned_from_frd = ENU_FROM_NED.T @ enu_from_flu @ FLU_FROM_FRD
    return quaternion_from_rotation(ned_from_frd), bool(yaw_variance_rad2 < _UNKNOWN_YAW_VARIANCE_RAD2)


def _orientation(message: Any, kind: str) -> tuple[tuple[float, float, float, float], float | None]:
    """(w, x, y, z as told; the variance of yaw in rad2, None where the message says that it has no orientation)."""
    variance: float | None = 0.0
    if kind == PX4_ATTITUDE:
        w, x, y, z = (float(v) for v in message.q)
        return (w, x, y, z), variance
    if kind == IMU:
        q, covariance = message.orientation, message.orientation_covariance
        variance = None if covariance[0] == -1.0 else float(covariance[8])  # -1: sensor_msgs' "no orientation"
    elif kind == POSE:
        q = message.pose.orientation
    elif kind == ODOMETRY:
        q, variance = message.pose.pose.orientation, float(message.pose.covariance[35])
    else:
        q = message.quaternion
    return (float(q.w), float(q.x), float(q.y), float(q.z)), variance


def body_frame(message: Any, kind: str) -> str:
    """The name of the vehicle's frame, where a message of an attitude's type tells it; else REP 105's base_link."""
    if kind in (IMU, QUATERNION):
        return str(message.header.frame_id).lstrip("/")
    return str(message.child_frame_id).lstrip("/") if kind == ODOMETRY else "base_link"


def height_m(message: Any, kind: str) -> float:
    """Height of Range (NaN outside what the sensor can measure), of Altitude or of a bare number; see the next one.

    MAVROS's Altitude: the clearance below where that is measured, else the height above the start. PX4's local
    position: the distance to the ground where valid.
    """
    if kind == ALTITUDE:
        clearance, relative = float(message.bottom_clearance), float(message.relative)
        return clearance if clearance >= 0.0 else relative
    if kind == PX4_LOCAL:
        return float(message.dist_bottom) if message.dist_bottom_valid else math.nan
    if kind != RANGE:
        return float(message.data)
    measured, low, high = float(message.range), float(message.min_range), float(message.max_range)
    if high > low and not low <= measured <= high:
        return math.nan
    return measured


def height_reference(message: Any, kind: str, topic: str) -> HeightReference:
    """What that height is above: home where Altitude holds no clearance, and of MAVROS's rel_alt, a bare number."""
    no_clearance = kind == ALTITUDE and not float(message.bottom_clearance) >= 0.0  # nan too
    above_home = no_clearance or (kind in (FLOAT64, FLOAT32) and "rel_alt" in topic)
    return HeightReference.HOME if above_home else HeightReference.GROUND


def keep_height(
    buffer: TelemetryBuffer, zero: HeightZero, at_ns: int, now_ns: int, message: Any, kind: str, topic: str
) -> None:
    """Put a height into the buffer, with the home that it is counted from; `now_ns` is by the clock of `zero`."""
    metres, reference = height_m(message, kind), height_reference(message, kind, topic)
    home = zero.height(metres, now_ns) if reference is HeightReference.HOME else None
    buffer.add_height(at_ns, metres, reference, home)


def home_deg(message: Any) -> tuple[float, float]:
    """(latitude, longitude) of a HomePosition."""
    return float(message.geo.latitude), float(message.geo.longitude)


def velocity_ned_mps(message: Any, kind: str) -> tuple[float, float, float]:
    """(3,) of TwistStamped (ENU), of Odometry, whose twist is told in the body (FLU), or of PX4's local position."""
    if kind == PX4_LOCAL:
        valid = message.v_xy_valid and message.v_z_valid
        return (float(message.vx), float(message.vy), float(message.vz)) if valid else (math.nan, math.nan, math.nan)
    linear = message.twist.linear if kind == TWIST else message.twist.twist.linear
    velocity = np.array([linear.x, linear.y, linear.z], dtype=float)
    if kind == ODOMETRY:
        q = message.pose.pose.orientation
        quat_wxyz = (float(q.w), float(q.x), float(q.y), float(q.z))
        if not abs(math.hypot(*quat_wxyz) - 1.0) <= 0.1:
            return (math.nan, math.nan, math.nan)
        velocity = rotation_from_quaternion(quat_wxyz) @ velocity
    north, east, down = ENU_FROM_NED.T @ velocity
    return float(north), float(east), float(down)


def image_bgr(message: Any, kind: str) -> np.ndarray | None:
    """uint8 (H, W, 3) of CompressedImage or Image; None where it cannot be decoded."""
    data = np.ascontiguousarray(message.data, dtype=np.uint8)
    if kind == COMPRESSED_IMAGE:
        return cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if message.encoding not in ENCODINGS:
        return None
    channels, to_bgr = ENCODINGS[message.encoding]
    rows, cols, step = int(message.height), int(message.width), int(message.step)
    if rows <= 0 or cols <= 0 or step < cols * channels or data.size < rows * step:
        return None
    pixels = data[: rows * step].reshape(rows, step)[:, : cols * channels].reshape(rows, cols, channels)
    return np.ascontiguousarray(pixels) if to_bgr is None else cv2.cvtColor(np.ascontiguousarray(pixels), to_bgr)


def image_kind(message: Any, kind: str) -> str:
    """What an image says that it is, for messages about it."""
    return f"format {message.format!r}" if kind == COMPRESSED_IMAGE else f"encoding {message.encoding!r}"


def camera_model(message: Any, rectified: bool = False) -> CameraModel:
    """The lens of a CameraInfo; `rectified` images are seen through its projection matrix, undistorted.

    Raises CameraError where the numbers are no camera (a driver without calibration sends zeros).
    """
    size = int(message.width), int(message.height)
    if rectified:
        return CameraModel(*size, np.asarray(message.p, dtype=float).reshape(3, 4)[:, :3], ())
    model = {"": "plumb_bob", "fisheye": "equidistant"}.get(message.distortion_model, message.distortion_model)
    distortion = tuple(float(v) for v in message.d)
    if model == "rational_polynomial" and not distortion:
        model = "plumb_bob"
    return CameraModel(*size, np.asarray(message.k, dtype=float).reshape(3, 3), distortion, model)


def mount(transforms: Iterable[Any], body_frames: Iterable[str], camera_frame: str) -> np.ndarray | None:
    """body_from_camera (3, 3), FRD, by the static transforms from the camera's optical frame up to the body (FLU).

    None where they do not lead there.
    """
    parents = {}
    for transform in transforms:
        q = transform.transform.rotation
        rotation = rotation_from_quaternion((float(q.w), float(q.x), float(q.y), float(q.z)))
        parents[transform.child_frame_id.lstrip("/")] = (transform.header.frame_id.lstrip("/"), rotation)
    wanted, frame, here_from_camera = set(body_frames), camera_frame.lstrip("/"), np.eye(3)
    for _ in range(len(parents) + 1):  # at most that many steps, should they run in a ring
        if frame in wanted:
            return FLU_FROM_FRD.T @ here_from_camera if np.isfinite(here_from_camera).all() else None
        if frame not in parents:
            return None
        frame, parent_from_here = parents[frame]
        here_from_camera = parent_from_here @ here_from_camera
    return None
