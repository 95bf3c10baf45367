"""What goes out: our records are written into messages that the caller made. REP 103 and REP 105 frames.

Nothing is imported of ROS: a message is any object with the fields of its definition. The same words and numbers as
in replay's results.mcap (`onboard.replay.mcap`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onboard.frames import ENU_FROM_NED, FLU_FROM_FRD, quaternion_from_rotation, rotation_from_quaternion
from onboard.records import Estimate, State, Step

_UNKNOWN_M2 = 1e6  # variance of what is not measured: a kilometre
_UNKNOWN_RAD2 = (2 * math.pi) ** 2
_CHI2_95 = 5.991  # of two dimensions
_FLAT_M = 0.1
_COVARIANCE_KNOWN = 3
_CYLINDER, _ADD, _DELETE = 3, 0, 2
_COLOURS = {State.TRACKING: (0.0, 0.62, 0.45), State.COASTING: (0.9, 0.62, 0.0)}


def set_header(header: Any, at_ns: int, frame_id: str) -> None:
    header.stamp.sec, header.stamp.nanosec = divmod(at_ns, 1_000_000_000)
    header.frame_id = frame_id


def write_fix(message: Any, estimate: Estimate, degrees: tuple[float, float], body_frame: str) -> Any:
    """NavSatFix of an estimate at (latitude, longitude). No altitude: it is not measured."""
    set_header(message.header, estimate.valid_at_ns, body_frame)
    message.status.status, message.status.service = 0, 0
    message.latitude, message.longitude, message.altitude = degrees[0], degrees[1], math.nan
    covariance = np.zeros(9)
    covariance[[0, 1, 3, 4]] = estimate.covariance[:2, :2].ravel()
    covariance[8] = _UNKNOWN_M2
    message.position_covariance, message.position_covariance_type = covariance, _COVARIANCE_KNOWN
    return message


def write_pose(message: Any, estimate: Estimate, map_frame: str) -> Any:
    """PoseWithCovarianceStamped in the map: at the ground's height, heading as measured, else none."""
    set_header(message.header, estimate.valid_at_ns, map_frame)
    _pose(message.pose, estimate)
    return message


def write_odometry(message: Any, estimate: Estimate, map_frame: str, body_frame: str) -> Any:
    """Odometry: as `write_pose`; the twist is told in the child frame, so it is turned by the pose's own heading."""
    set_header(message.header, estimate.valid_at_ns, map_frame)
    message.child_frame_id = body_frame
    _pose(message.pose, estimate)
    heading = estimate.heading_rad if math.isfinite(estimate.heading_rad) else math.pi / 2
    sin, cos = math.sin(heading), math.cos(heading)
    body_from_enu = np.array([[sin, cos], [-cos, sin]])  # forward, left of east, north
    covariance = np.diag([0.0, 0.0, _UNKNOWN_M2, _UNKNOWN_RAD2, _UNKNOWN_RAD2, _UNKNOWN_RAD2])
    covariance[:2, :2] = body_from_enu @ estimate.covariance[2:, 2:] @ body_from_enu.T
    forward, left = (float(v) for v in body_from_enu @ estimate.velocity_enu_mps)
    linear = message.twist.twist.linear
    linear.x, linear.y, linear.z = forward, left, 0.0
    message.twist.covariance = covariance.ravel()
    return message


def write_ellipse(message: Any, step: Step, map_frame: str) -> Any:
    """Marker: the 95 % ellipse, flat on the ground; a step without an estimate takes it away."""
    set_header(message.header, step.captured_at_ns, map_frame)
    message.ns, message.id, message.type = "pilotage", 0, _CYLINDER
    estimate = step.estimate
    message.action = _DELETE if estimate is None else _ADD
    if estimate is None:
        return message
    values, vectors = np.linalg.eigh(estimate.covariance[:2, :2])
    minor, major = (2 * math.sqrt(max(float(v), 0.0) * _CHI2_95) for v in values)
    _place(message.pose, estimate.position_enu_m, math.atan2(*vectors[::-1, 1]))
    message.scale.x, message.scale.y, message.scale.z = major, minor, _FLAT_M
    colour = message.color
    colour.r, colour.g, colour.b = _COLOURS.get(step.state, (0.0, 0.0, 0.0))
    colour.a = 0.4
    return message


def write_transform(
    message: Any, at_ns: int, map_from_odom: tuple[float, float, float], map_frame: str, odom_frame: str
) -> Any:
    """TransformStamped of (east, north, yaw)."""
    set_header(message.header, at_ns, map_frame)
    message.child_frame_id = odom_frame
    east, north, yaw = map_from_odom
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = east, north, 0.0
    rotation.x, rotation.y, rotation.z, rotation.w = 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)
    return message


def map_from_odom(estimate: Estimate, odom_from_body: Any) -> tuple[float, float, float] | None:
    """(east, north, yaw) that takes the odometry's frame to the map, by a Transform of the body in it (REP 105).

    Four degrees of freedom are enough: both frames have their z axis up, and no height is corrected. None where the
    heading was not measured or the odometry is no number: the last correction then stays the best.
    """
    q, t = odom_from_body.rotation, odom_from_body.translation
    quat_wxyz = (float(q.w), float(q.x), float(q.y), float(q.z))
    numbers = (estimate.heading_rad, float(t.x), float(t.y), *quat_wxyz)
    if not all(map(math.isfinite, numbers)) or not abs(math.hypot(*quat_wxyz) - 1.0) <= 0.1:
        return None
    forward = rotation_from_quaternion(quat_wxyz)[:, 0]
    yaw = math.pi / 2 - estimate.heading_rad - math.atan2(forward[1], forward[0])
    sin, cos = math.sin(yaw), math.cos(yaw)
    turned = np.array([[cos, -sin], [sin, cos]]) @ np.array([float(t.x), float(t.y)])
    east, north = (float(v) for v in estimate.position_enu_m - turned)
    return east, north, math.atan2(sin, cos)


def write_mavros_pose(message: Any, estimate: Estimate, attitude_wxyz: tuple[float, ...], map_frame: str) -> Any:
    """PoseWithCovarianceStamped for MAVROS's vision_pose: the height that the vehicle told as z, its own attitude.

    A yaw that was not measured is never sent as a measurement: attitude is the vehicle's own, its variance unknown.
    """
    write_pose(message, estimate, map_frame)
    _own_attitude(message.pose.pose, estimate, attitude_wxyz)
    return message


def write_mavros_odometry(
    message: Any, estimate: Estimate, attitude_wxyz: tuple[float, ...], odom_frame: str, body_frame: str
) -> Any:
    """Odometry for MAVROS's odometry/out: pose as `write_mavros_pose`, velocity turned into the body's frame."""
    set_header(message.header, estimate.valid_at_ns, odom_frame)
    message.child_frame_id = body_frame
    _pose(message.pose, estimate)
    _own_attitude(message.pose.pose, estimate, attitude_wxyz)
    body_from_enu = _enu_from_flu(attitude_wxyz).T
    covariance = np.diag([0.0, 0.0, 0.0, _UNKNOWN_RAD2, _UNKNOWN_RAD2, _UNKNOWN_RAD2])
    velocity_covariance = np.zeros((3, 3))
    velocity_covariance[:2, :2], velocity_covariance[2, 2] = estimate.covariance[2:, 2:], _UNKNOWN_M2
    covariance[:3, :3] = body_from_enu @ velocity_covariance @ body_from_enu.T
    linear = message.twist.twist.linear
    linear.x, linear.y, linear.z = (float(v) for v in body_from_enu @ np.array([*estimate.velocity_enu_mps, 0.0]))
    message.twist.covariance = covariance.ravel()
    return message


def _pose(pose_with_covariance: Any, estimate: Estimate) -> None:
    known = math.isfinite(estimate.heading_rad)
    _place(pose_with_covariance.pose, estimate.position_enu_m, math.pi / 2 - estimate.heading_rad if known else 0.0)
    covariance = np.diag([0.0, 0.0, _UNKNOWN_M2, _UNKNOWN_RAD2, _UNKNOWN_RAD2, _UNKNOWN_RAD2])
    covariance[:2, :2] = estimate.covariance[:2, :2]
    pose_with_covariance.covariance = covariance.ravel()


def _place(pose: Any, position_enu_m: np.ndarray, yaw_rad: float) -> None:
    """On the ground, turned about up."""
    pose.position.x, pose.position.y, pose.position.z = float(position_enu_m[0]), float(position_enu_m[1]), 0.0
    q = pose.orientation
    q.x, q.y, q.z, q.w = 0.0, 0.0, math.sin(yaw_rad / 2), math.cos(yaw_rad / 2)


def _own_attitude(pose: Any, estimate: Estimate, attitude_wxyz: tuple[float, ...]) -> None:
    pose.position.z = float(estimate.told_height_m)
    q = pose.orientation
    q.w, q.x, q.y, q.z = quaternion_from_rotation(_enu_from_flu(attitude_wxyz))


def _enu_from_flu(ned_from_frd_wxyz: tuple[float, ...]) -> np.ndarray:
    w, x, y, z = ned_from_frd_wxyz
    return ENU_FROM_NED @ rotation_from_quaternion((w, x, y, z)) @ FLU_FROM_FRD.T
