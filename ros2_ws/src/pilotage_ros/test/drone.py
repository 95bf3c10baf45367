"""A toy drone for the tests: its flight over the toy world of `tests/toy_world.py`, as ROS messages."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, Imu, Range
from tf2_msgs.msg import TFMessage

TESTS = next(
    (folder / "tests" for folder in Path(__file__).resolve().parents if (folder / "tests" / "toy_world.py").is_file()),
    None,
)
if TESTS is not None:
    sys.path.insert(0, str(TESTS))

from onboard.camera import CameraModel  # noqa: E402
from onboard.frames import ENU_FROM_NED, FLU_FROM_FRD, quaternion_from_rotation, rotation_from_quaternion  # noqa: E402

CAMERA_FRAME = "camera_optical_frame"
_STATIC = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Drone:
    """Publishes moments of a toy flight on the topics that the node listens to."""

    def __init__(self, node: Node, camera: CameraModel) -> None:
        self._node, self._camera = node, camera
        self._image = node.create_publisher(Image, "image", 10)
        self._info = node.create_publisher(CameraInfo, "camera_info", 10)
        self._imu = node.create_publisher(Imu, "attitude", 100)
        self._height = node.create_publisher(Range, "height", 100)
        self._velocity = node.create_publisher(TwistStamped, "velocity", 100)
        self._tf = node.create_publisher(TFMessage, "/tf", 100)
        self._tf_static = node.create_publisher(TFMessage, "/tf_static", _STATIC)
        self._tf_static.publish(_mount())

    def tell(self, moment: Any, at_ns: int, encoding: str = "bgr8") -> None:
        """A frame, and the telemetry of its instant and of just after it."""
        self._info.publish(camera_info(self._camera, at_ns))
        self._image.publish(image(moment.frame.image_bgr, at_ns, encoding))
        for stamp_ns in (at_ns, at_ns + 1_000_000):
            self._imu.publish(imu(moment.telemetry.attitude_quat_wxyz, stamp_ns))
            self._height.publish(height(moment.telemetry.height_above_ground_m, stamp_ns))
            self._velocity.publish(velocity(moment.telemetry.velocity_ned_mps, stamp_ns))

    def tell_odometry_tf(self, at_ns: int) -> None:
        """The vehicle's own odometry: somewhere else, turned otherwise, and it does not move."""
        told = TransformStamped(child_frame_id="base_link")
        _stamp(told, at_ns, "odom")
        told.transform.translation.x, told.transform.rotation.w = 5.0, 1.0
        self._tf.publish(TFMessage(transforms=[told]))


def camera_info(camera: CameraModel, at_ns: int) -> CameraInfo:
    message = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    message.k = camera.matrix.ravel()
    _stamp(message, at_ns, CAMERA_FRAME)
    return message


def image(image_bgr: np.ndarray, at_ns: int, encoding: str = "bgr8") -> Image:
    rows, cols = image_bgr.shape[:2]
    message = Image(height=rows, width=cols, encoding=encoding, step=3 * cols)
    message.data = image_bgr.tobytes()
    _stamp(message, at_ns, CAMERA_FRAME)
    return message


def imu(attitude_wxyz: tuple[float, float, float, float], at_ns: int) -> Imu:
    enu_from_flu = ENU_FROM_NED @ rotation_from_quaternion(attitude_wxyz) @ FLU_FROM_FRD.T
    message = Imu()
    q = message.orientation
    q.w, q.x, q.y, q.z = quaternion_from_rotation(enu_from_flu)
    _stamp(message, at_ns, "base_link")
    return message


def height(height_above_ground_m: float, at_ns: int) -> Range:
    message = Range(range=float(height_above_ground_m))
    _stamp(message, at_ns, "base_link")
    return message


def velocity(velocity_ned_mps: tuple[float, float, float], at_ns: int) -> TwistStamped:
    message = TwistStamped()
    linear = message.twist.linear
    linear.x, linear.y, linear.z = velocity_ned_mps[1], velocity_ned_mps[0], -velocity_ned_mps[2]
    _stamp(message, at_ns, "map")
    return message


def odometry_place(message: Odometry) -> np.ndarray:
    return np.array([message.pose.pose.position.x, message.pose.pose.position.y])


def _mount() -> TFMessage:
    """Looks straight down, the top of the image forward."""
    told = TransformStamped(child_frame_id=CAMERA_FRAME)
    _stamp(told, 0, "base_link")
    half = math.sqrt(0.5)
    told.transform.rotation.x, told.transform.rotation.y, told.transform.rotation.w = -half, half, 0.0
    return TFMessage(transforms=[told])


def _stamp(message: Any, at_ns: int, frame_id: str) -> None:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(at_ns, 1_000_000_000)
    message.header.frame_id = frame_id
