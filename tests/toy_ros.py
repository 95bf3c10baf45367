"""Messages for the ROS node's parts that need no ROS.

They are those of `rosbags`, serialized and read again as a running system would have them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from onboard.flight import ros
from onboard.live.worker import FrameItem
from onboard.records import Estimate, Reason, State, Step
from pilotage_ros.intake import Intake

PACKAGE = Path(__file__).resolve().parents[1] / "ros2_ws" / "src" / "pilotage_ros"
STORE = get_typestore(Stores.ROS2_JAZZY)
S = 1_000_000_000
T0 = 1_700_000_000 * S
WIDE, HIGH = 64, 48


class Blank:
    """A message of any type: every field is there, and is another blank until it is set."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = Blank()
        setattr(self, name, value)
        return value


def new(kind: str, *fields: Any) -> Any:
    return STORE.types[kind.replace("/", "/msg/")](*fields)


def header(at_ns: int, frame_id: str = "camera") -> Any:
    return new("std_msgs/Header", new("builtin_interfaces/Time", *divmod(at_ns, S)), frame_id)


def serialized(message: Any) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def deserialized(raw: bytes, kind: str) -> Any:
    return STORE.deserialize_cdr(raw, kind)


def image(at_ns: int, frame_id: str = "camera", encoding: str = "bgr8", size: tuple[int, int] = (WIDE, HIGH)) -> bytes:
    pixels = np.full(size[0] * size[1] * 3, 77, np.uint8)
    return serialized(
        new("sensor_msgs/Image", header(at_ns, frame_id), size[1], size[0], encoding, 0, size[0] * 3, pixels)
    )


def camera_info(frame_id: str = "camera", size: tuple[int, int] = (WIDE, HIGH), focal_px: float = 50.0) -> Any:
    k = np.array([focal_px, 0, size[0] / 2, 0, focal_px, size[1] / 2, 0, 0, 1.0])
    region = new("sensor_msgs/RegionOfInterest", 0, 0, 0, 0, False)
    no_projection = np.zeros(12)
    return new(
        "sensor_msgs/CameraInfo",
        header(T0, frame_id),
        size[1],
        size[0],
        "plumb_bob",
        np.zeros(5),
        k,
        np.eye(3).ravel(),
        no_projection,
        0,
        0,
        region,
    )


def imu(at_ns: int, x: float = 0.0, y: float = 0.0, z: float = math.sqrt(0.5), w: float = math.sqrt(0.5)) -> Any:
    """By default level and facing north: the body's x axis 90 degrees left of east."""
    nothing, vector = np.zeros(9), new("geometry_msgs/Vector3", 0.0, 0.0, 0.0)
    turn = new("geometry_msgs/Quaternion", x, y, z, w)
    return new("sensor_msgs/Imu", header(at_ns, "base_link"), turn, nothing, vector, nothing, vector, nothing)


def height(at_ns: int, metres: float = 100.0) -> Any:
    return new("sensor_msgs/Range", header(at_ns), 0, 0.1, 0.0, 0.0, metres, 0.0)


def static_transform(parent: str, child: str, x: float, y: float, z: float, w: float) -> Any:
    turn = new("geometry_msgs/Quaternion", x, y, z, w)
    moved = new("geometry_msgs/Transform", new("geometry_msgs/Vector3", 0.0, 0.0, 0.0), turn)
    return new("tf2_msgs/TFMessage", [new("geometry_msgs/TransformStamped", header(T0, parent), child, moved)])


def estimate(heading_rad: float = 0.4, at_ns: int = T0) -> Estimate:
    covariance = np.array([[4.0, 1.0, 0, 0], [1.0, 9.0, 0, 0], [0, 0, 0.25, 0.1], [0, 0, 0.1, 0.5]])
    return Estimate(at_ns, np.array([120.0, -45.0]), np.array([3.0, 4.0]), covariance, heading_rad, 88.0, 0.999)


def step(told: Estimate | None, state: State = State.TRACKING, reason: Reason | None = None) -> Step:
    return Step(T0, "/camera@1", state, told, reason, None, None, {"embed": 3.0})


def settled(intake: Intake, arrived_ns: int = 0) -> Intake:
    intake.camera_info(camera_info(), arrived_ns, T0)
    intake.tf_static(static_transform("base_link", "camera", 0.0, 0.0, 0.0, 1.0))
    assert intake.settle(arrived_ns)
    return intake


def telemetry_until(intake: Intake, at_ns: int) -> None:
    for part, kind, message in (("attitude", ros.IMU, imu(at_ns)), ("height", ros.RANGE, height(at_ns))):
        intake.telemetry(part, message, kind, at_ns)


def ready(intake: Intake, arrived_ns: int = 0) -> list[FrameItem]:
    return list(intake.ready(arrived_ns, lambda: T0))
