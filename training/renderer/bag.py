"""A flight as a rosbag2 (MCAP, version 9): what a user's own recorder would have written.

| topic                                | type                         | what                                          |
|--------------------------------------|------------------------------|-----------------------------------------------|
| /camera/image_raw/compressed         | sensor_msgs/CompressedImage  | JPEG                                          |
| /camera/camera_info                  | sensor_msgs/CameraInfo       | intrinsics, once a frame                      |
| /mavros/imu/data                     | sensor_msgs/Imu              | orientation: ENU from FLU body (REP-103)      |
| /height_above_ground                 | sensor_msgs/Range            | `range`: metres above the ground right below  |
| /mavros/local_position/velocity_local| geometry_msgs/TwistStamped   | ENU, m/s                                      |
| /tf_static                           | tf2_msgs/TFMessage           | base_link (FLU) to the camera's optical frame |
| /truth/fix                           | sensor_msgs/NavSatFix        | truth at each frame, for scoring only         |

Every header stamp is the instant of capture.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from onboard.camera import CameraModel
from onboard.frames import ENU_FROM_NED, FLU_FROM_FRD, MapFrame, quaternion_from_rotation
from training.renderer.errors import RenderError
from training.renderer.flight import Flight

IMAGE_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
IMU_TOPIC = "/mavros/imu/data"
HEIGHT_TOPIC = "/height_above_ground"
VELOCITY_TOPIC = "/mavros/local_position/velocity_local"
TF_STATIC_TOPIC = "/tf_static"
TRUTH_TOPIC = "/truth/fix"
BODY_FRAME, CAMERA_FRAME = "base_link", "camera_optical_frame"

_TOPICS = {
    IMAGE_TOPIC: "sensor_msgs/msg/CompressedImage",
    CAMERA_INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    IMU_TOPIC: "sensor_msgs/msg/Imu",
    HEIGHT_TOPIC: "sensor_msgs/msg/Range",
    VELOCITY_TOPIC: "geometry_msgs/msg/TwistStamped",
    TF_STATIC_TOPIC: "tf2_msgs/msg/TFMessage",
    TRUTH_TOPIC: "sensor_msgs/msg/NavSatFix",
}
_NOT_GIVEN = np.array([-1.0] + [0.0] * 8)  # a covariance that starts with -1 says: this field holds nothing


def write_bag(folder: Path, flight: Flight, jpegs: Iterable[bytes], frame: MapFrame) -> None:
    """Write a flight and its frames, in the order of time. Written beside and renamed.

    Raises RenderError where the folder is something else than a bag, or frames are missing.
    """
    if folder.exists() and not (folder / "metadata.yaml").is_file():
        raise RenderError("not a bag", folder, "a new folder or an older bag", "choose another --out")
    beside = folder.with_name(f".{folder.name}.part")  # the MCAP file inside is named after its folder
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with Writer(beside / folder.name, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            _Messages(writer).all_of(flight, jpegs, frame)
        shutil.rmtree(folder, ignore_errors=True)
        (beside / folder.name).rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class _Messages:
    """Fills ROS messages and writes them."""

    def __init__(self, writer: Writer) -> None:
        self.store = get_typestore(Stores.ROS2_JAZZY)
        self.writer = writer
        self.connections = {
            topic: writer.add_connection(topic, kind, typestore=self.store) for topic, kind in _TOPICS.items()
        }

    def all_of(self, flight: Flight, jpegs: Iterable[bytes], frame: MapFrame) -> None:
        told, truth = flight.telemetry, flight.frames
        self.mount(int(told.at_ns[0]), flight.body_from_camera)
        next_told = written = 0
        for index, jpeg in enumerate(jpegs):
            at_ns = int(truth.at_ns[index])
            while next_told < len(told.at_ns) and told.at_ns[next_told] <= at_ns:
                self.telemetry(flight, next_told)
                next_told += 1
            self.picture(at_ns, jpeg, flight.camera)
            self.truth(at_ns, frame, truth.position_enu_m[index])
            written += 1
        for rest in range(next_told, len(told.at_ns)):
            self.telemetry(flight, rest)
        if written != len(truth.at_ns):
            raise RenderError("frames of a flight", written, str(len(truth.at_ns)))

    def message(self, name: str, **fields: Any) -> Any:
        return self.store.types[name](**fields)

    def header(self, at_ns: int, frame_id: str) -> Any:
        stamp = self.message("builtin_interfaces/msg/Time", sec=at_ns // 10**9, nanosec=at_ns % 10**9)
        return self.message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def vector(self, xyz: Iterable[float]) -> Any:
        x, y, z = (float(v) for v in xyz)
        return self.message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)

    def quaternion(self, rotation: np.ndarray) -> Any:
        w, x, y, z = quaternion_from_rotation(rotation)
        return self.message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def write(self, topic: str, at_ns: int, **fields: Any) -> None:
        kind = _TOPICS[topic]
        self.writer.write(self.connections[topic], at_ns, self.store.serialize_cdr(self.message(kind, **fields), kind))

    def mount(self, at_ns: int, body_from_camera: np.ndarray) -> None:
        flu_from_camera = FLU_FROM_FRD @ body_from_camera
        transform = self.message(
            "geometry_msgs/msg/Transform", translation=self.vector((0, 0, 0)), rotation=self.quaternion(flu_from_camera)
        )
        stamped = self.message(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(at_ns, BODY_FRAME),
            child_frame_id=CAMERA_FRAME,
            transform=transform,
        )
        self.write(TF_STATIC_TOPIC, at_ns, transforms=[stamped])

    def telemetry(self, flight: Flight, index: int) -> None:
        told = flight.telemetry
        at_ns = int(told.at_ns[index])
        self.write(
            IMU_TOPIC,
            at_ns,
            header=self.header(at_ns, BODY_FRAME),
            orientation=self.quaternion(ENU_FROM_NED @ told.ned_from_body[index] @ FLU_FROM_FRD),
            orientation_covariance=np.diag([1e-4, 1e-4, 1.5e-3]).ravel(),
            angular_velocity=self.vector((0, 0, 0)),
            angular_velocity_covariance=_NOT_GIVEN,
            linear_acceleration=self.vector((0, 0, 0)),
            linear_acceleration_covariance=_NOT_GIVEN,
        )
        self.write(
            HEIGHT_TOPIC,
            at_ns,
            header=self.header(at_ns, BODY_FRAME),
            radiation_type=1,
            field_of_view=0.05,
            min_range=1.0,
            max_range=1000.0,
            range=float(told.height_above_ground_m[index]),
            variance=0.0,
        )
        twist = self.message(
            "geometry_msgs/msg/Twist", linear=self.vector(told.velocity_enu_mps[index]), angular=self.vector((0, 0, 0))
        )
        self.write(VELOCITY_TOPIC, at_ns, header=self.header(at_ns, "map"), twist=twist)

    def picture(self, at_ns: int, jpeg: bytes, camera: CameraModel) -> None:
        header = self.header(at_ns, CAMERA_FRAME)
        self.write(IMAGE_TOPIC, at_ns, header=header, format="jpeg", data=np.frombuffer(jpeg, np.uint8))
        window = self.message(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self.write(
            CAMERA_INFO_TOPIC,
            at_ns,
            header=header,
            height=camera.height,
            width=camera.width,
            distortion_model=camera.distortion_model,
            d=np.array(camera.distortion, dtype=float),
            k=camera.matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.hstack([camera.matrix, np.zeros((3, 1))]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=window,
        )

    def truth(self, at_ns: int, frame: MapFrame, position_enu_m: np.ndarray) -> None:
        latitude, longitude = frame.geodetic_from_enu(position_enu_m[:2])
        status = self.message("sensor_msgs/msg/NavSatStatus", status=0, service=1)
        self.write(
            TRUTH_TOPIC,
            at_ns,
            header=self.header(at_ns, BODY_FRAME),
            status=status,
            latitude=latitude,
            longitude=longitude,
            altitude=float(position_enu_m[2]),
            position_covariance=np.zeros(9),
            position_covariance_type=0,
        )
