"""A toy flight as ROS messages, and bags of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from toy_flight import CAMERA, MS, START_NS, jpeg

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, INFO, IMU = "/camera/image_raw/compressed", "/camera/camera_info", "/mavros/imu/data"
HEIGHT, VELOCITY, FIX, TF = "/height_above_ground", "/mavros/local_position/velocity_local", "/truth/fix", "/tf_static"


def message(name: str, **fields: Any) -> Any:
    return STORE.types[name](**fields)


def header(at_ns: int, frame_id: str = "base_link") -> Any:
    stamp = message("builtin_interfaces/msg/Time", sec=at_ns // 10**9, nanosec=at_ns % 10**9)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def vector(*xyz: float) -> Any:
    return message("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, xyz), strict=True)))


def quaternion(*wxyz: float) -> Any:
    return message("geometry_msgs/msg/Quaternion", **dict(zip("wxyz", map(float, wxyz), strict=True)))


def imu(at_ns: int, wxyz: tuple[float, ...], covariance0: float = 0.0) -> Any:
    covariance, zero = np.zeros(9), np.zeros(9)
    covariance[0] = covariance0
    return message(
        "sensor_msgs/msg/Imu",
        header=header(at_ns),
        orientation=quaternion(*wxyz),
        orientation_covariance=covariance,
        angular_velocity=vector(0, 0, 0),
        angular_velocity_covariance=zero,
        linear_acceleration=vector(0, 0, 0),
        linear_acceleration_covariance=zero,
    )


def height(at_ns: int, metres: float) -> Any:
    return message(
        "sensor_msgs/msg/Range",
        header=header(at_ns),
        radiation_type=1,
        field_of_view=0.1,
        min_range=1.0,
        max_range=500.0,
        range=metres,
        variance=0.0,
    )


def velocity(at_ns: int, *enu_mps: float) -> Any:
    twist = message("geometry_msgs/msg/Twist", linear=vector(*enu_mps), angular=vector(0, 0, 0))
    return message("geometry_msgs/msg/TwistStamped", header=header(at_ns, "map"), twist=twist)


def image(at_ns: int, data: np.ndarray) -> Any:
    return message("sensor_msgs/msg/CompressedImage", header=header(at_ns, "optical"), format="jpeg", data=data)


def camera_info(at_ns: int, matrix: np.ndarray = CAMERA.matrix, width: int = 64) -> Any:
    roi = message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(
        "sensor_msgs/msg/CameraInfo",
        header=header(at_ns, "optical"),
        height=48,
        width=width,
        distortion_model="plumb_bob",
        d=np.array(CAMERA.distortion),
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([matrix, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def nav_fix(at_ns: int, latitude_deg: float, longitude_deg: float) -> Any:
    return message(
        "sensor_msgs/msg/NavSatFix",
        header=header(at_ns),
        status=message("sensor_msgs/msg/NavSatStatus", status=0, service=1),
        latitude=latitude_deg,
        longitude=longitude_deg,
        altitude=0.0,
        position_covariance=np.zeros(9),
        position_covariance_type=0,
    )


def transform(at_ns: int, parent: str, child: str, *wxyz: float) -> Any:
    pose = message("geometry_msgs/msg/Transform", translation=vector(0, 0, 0), rotation=quaternion(*wxyz))
    stamped = "geometry_msgs/msg/TransformStamped"
    return message(stamped, header=header(at_ns, parent), child_frame_id=child, transform=pose)


def pose(wxyz: tuple[float, ...]) -> Any:
    origin = message("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
    return message("geometry_msgs/msg/Pose", position=origin, orientation=quaternion(*wxyz))


def odometry(at_ns: int, wxyz: tuple[float, ...], flu_mps: tuple[float, ...], yaw_variance: float = 0.0) -> Any:
    covariance = np.zeros(36)
    covariance[35] = yaw_variance
    twist = message("geometry_msgs/msg/Twist", linear=vector(*flu_mps), angular=vector(0, 0, 0))
    return message(
        "nav_msgs/msg/Odometry",
        header=header(at_ns, "odom"),
        child_frame_id="base_link",
        pose=message("geometry_msgs/msg/PoseWithCovariance", pose=pose(wxyz), covariance=covariance),
        twist=message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )


FACING_NORTH_ENU = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))  # REP-103: yaw counts from east, to the left
# Optical axes x right, y back, z down of a camera that looks down, in FLU: half a turn about the axis (1, -1, 0).
LOOKING_DOWN_FLU = (0.0, math.sqrt(0.5), -math.sqrt(0.5), 0.0)

Logged = tuple[str, int, Any]


def toy_messages() -> Iterator[Logged]:
    """Four frames half a second apart, telemetry at 10 Hz that climbs 1 m/s, logged 30 ms late."""
    tf = transform(START_NS, "base_link", "optical", *LOOKING_DOWN_FLU)
    yield TF, START_NS, message("tf2_msgs/msg/TFMessage", transforms=[tf])
    for i in range(21):
        at_ns = START_NS + i * 100 * MS
        late_ns = at_ns + 30 * MS
        yield IMU, late_ns, imu(at_ns, FACING_NORTH_ENU)
        yield HEIGHT, late_ns, height(at_ns, 60 + i / 10)
        yield VELOCITY, late_ns, velocity(at_ns, 3, 4, 1)
        if i % 5 == 1:
            frame_ns = at_ns + 50 * MS
            yield IMAGE, frame_ns, image(frame_ns, jpeg(i))
            yield INFO, frame_ns, camera_info(frame_ns)
            yield FIX, frame_ns, nav_fix(frame_ns, 10 + i / 1e5, 20 - i / 1e5)


ALTITUDE_KIND, HOME_KIND = "mavros_msgs/msg/Altitude", "mavros_msgs/msg/HomePosition"
PX4_ATTITUDE_KIND = "px4_msgs/msg/VehicleAttitude"
PX4_LOCAL_KIND = "px4_msgs/msg/VehicleLocalPosition"
MORE = get_typestore(Stores.ROS2_JAZZY)
MORE.register(
    get_types_from_msg(
        "std_msgs/Header header\nfloat32 monotonic\nfloat32 amsl\nfloat32 local\nfloat32 relative\n"
        "float32 terrain\nfloat32 bottom_clearance\n",
        ALTITUDE_KIND,
    )
    | get_types_from_msg("float64 latitude\nfloat64 longitude\nfloat64 altitude\n", "geographic_msgs/msg/GeoPoint")
    | get_types_from_msg(
        "std_msgs/Header header\ngeographic_msgs/GeoPoint geo\ngeometry_msgs/Point position\n"
        "geometry_msgs/Quaternion orientation\ngeometry_msgs/Vector3 approach\n",
        HOME_KIND,
    )
    | get_types_from_msg("uint64 timestamp\nuint64 timestamp_sample\nfloat32[4] q\n", PX4_ATTITUDE_KIND)
    | get_types_from_msg(
        "uint64 timestamp\nuint64 timestamp_sample\nbool v_xy_valid\nbool v_z_valid\nfloat32 vx\nfloat32 vy\n"
        "float32 vz\nfloat32 dist_bottom\nbool dist_bottom_valid\n",
        PX4_LOCAL_KIND,
    )
)


def write_bag(
    path: Path,
    messages: Iterator[Logged] | list[Logged],
    plugin: StoragePlugin = StoragePlugin.MCAP,
    compressed: bool = False,
    cut: tuple[str, int] | None = None,
) -> Path:
    """Write messages in the order of logging; the one of `cut` (topic, logged at) loses its second half."""
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compressed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, logged_at_ns, body in sorted(messages, key=lambda m: m[1]):
            kind = body.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=MORE)
            raw = MORE.serialize_cdr(body, kind)
            writer.write(
                connections[topic], logged_at_ns, raw[: len(raw) // 2] if cut == (topic, logged_at_ns) else raw
            )
    return path


def without(*topics: str) -> list[Logged]:
    return [m for m in toy_messages() if m[0] not in topics]


def changed(topic: str, make: Callable[[int], Any]) -> list[Logged]:
    """The toy flight with the messages of one topic made anew from their index."""
    index = iter(range(1000))
    return [(t, at, make(next(index)) if t == topic else body) for t, at, body in toy_messages()]
