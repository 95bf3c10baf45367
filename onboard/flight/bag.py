"""A flight recorded as rosbag2 (a folder, or one MCAP or db3 file), streamed in the order of its log.

Messages are valid at their header's stamp, and telemetry may be logged after the frame that it belongs to:
a frame waits until all telemetry has passed its capture time, at most a second of log.
"""

from __future__ import annotations

import heapq
import importlib
import logging
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.errors import CameraError, FlightError
from onboard.flight import ros
from onboard.flight.choose import choose
from onboard.flight.source import FlightItem, Topics, Truth
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.records import Frame
from onboard.telemetry import TelemetryBuffer

_log = logging.getLogger(__name__)

_WAIT_NS = 1_000_000_000
_TELEMETRY = ("attitude", "height", "velocity")


def _zstd_errors() -> Iterator[type[Exception]]:
    """ZstdError of whichever library this Python's rosbags unpacks chunks with."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            yield importlib.import_module(name).ZstdError
        except ModuleNotFoundError:
            continue


# What the readers raise on bytes that are not what they should be, besides their own errors.
_BROKEN: tuple[type[Exception], ...] = (
    AnyReaderError,
    ReaderError,
    SerdeError,
    TypesysError,
    struct.error,
    sqlite3.Error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    AssertionError,
    RuntimeError,  # lz4's
    *_zstd_errors(),
)


class BagFlight:
    """A bag with images, camera_info, attitude and height. Raises FlightError where one is missing or broken."""

    def __init__(self, path: Path | str, config: RectifyConfig = RectifyConfig(), topics: Topics = Topics()) -> None:
        self._path = Path(path)
        self._max_age_ns = round(config.max_telemetry_age_ms * 1e6)
        self.name = self._path.resolve().stem if self._path.is_file() else self._path.resolve().name
        with self._reader() as reader:
            with self._told_in_one_line():
                connections = list(reader.connections)
            chosen = choose(connections, topics, self._path)
            self._topics = {part: (c.topic, c.msgtype) for part, c in chosen.items()}
            self.frame_count = chosen["image"].msgcount
            info, _ = self._first(reader, "camera_info")
            self.camera = self._camera(info)
            attitude, _ = self._first(reader, "attitude")
            self._check_attitude(attitude)
            self._check_first_image(reader)
            self.body_from_camera, self._mount = self._find_mount(
                reader, {"base_link", attitude.header.frame_id.lstrip("/")}, info.header.frame_id
            )

    @property
    def facts(self) -> Mapping[str, str]:
        return {
            "kind": "rosbag2",
            **{part: f"{topic} ({kind})" for part, (topic, kind) in self._topics.items()},
            "mount": self._mount,
        }

    def items(self) -> Iterator[FlightItem]:
        """The frames in order of capture. Raises FlightError where the recording turns out to be broken."""
        buffer = TelemetryBuffer(self._max_age_ns)
        waiting: list[tuple[int, int, int, bytes]] = []  # captured, order, logged, the undecoded message
        with self._reader() as reader:
            for order, (part, logged_at_ns, raw) in enumerate(self._messages(reader, ("image", *_TELEMETRY))):
                message = self._decoded(reader, part, raw)
                at_ns = ros.stamp_ns(message, logged_at_ns)
                if part == "image":
                    heapq.heappush(waiting, (at_ns, order, logged_at_ns, raw))
                else:
                    self._keep(buffer, part, at_ns, message)
                while waiting and (buffer.passed(waiting[0][0]) or logged_at_ns - waiting[0][2] > _WAIT_NS):
                    yield self._item(reader, buffer, heapq.heappop(waiting))
            while waiting:
                yield self._item(reader, buffer, heapq.heappop(waiting))

    def truth(self) -> Truth | None:
        """The recorded NavSatFix with a fix; None where there is none."""
        if "truth" not in self._topics:
            return None
        fixes = {}
        with self._reader() as reader:
            for part, logged_at_ns, raw in self._messages(reader, ("truth",)):
                message = self._decoded(reader, part, raw)
                if message.status.status >= 0 and np.isfinite([message.latitude, message.longitude]).all():
                    fixes[ros.stamp_ns(message, logged_at_ns)] = (message.latitude, message.longitude)
        if not fixes:
            return None
        times = sorted(fixes)
        degrees = np.array([fixes[t] for t in times], dtype=float)
        return Truth(np.array(times, dtype=np.int64), degrees[:, 0], degrees[:, 1])

    def _keep(self, buffer: TelemetryBuffer, part: str, at_ns: int, message: Any) -> None:
        kind = self._topics[part][1]
        if part == "attitude":
            buffer.add_attitude(at_ns, *ros.attitude(message, kind))
        elif part == "height":
            buffer.add_height(at_ns, ros.height_m(message, kind))
        else:
            buffer.add_velocity(at_ns, ros.velocity_ned_mps(message, kind))

    def _item(self, reader: AnyReader, buffer: TelemetryBuffer, entry: tuple[int, int, int, bytes]) -> FlightItem:
        captured_at_ns, _, _, raw = entry
        topic, kind = self._topics["image"]
        image = ros.image_bgr(self._decoded(reader, "image", raw), kind)
        source = f"{topic}@{captured_at_ns}"
        frame = Frame(captured_at_ns, image, source) if image is not None else None
        return FlightItem(captured_at_ns, source, frame, buffer.at(captured_at_ns))

    def _camera(self, info: Any) -> CameraModel:
        try:
            return ros.camera_model(info, rectified="rect" in self._topics["image"][0].split("/")[-1])
        except CameraError as error:
            raise FlightError(
                f"unusable camera_info on {self._topics['camera_info'][0]} of {self._path}",
                error,
                "",
                "calibrate the camera and record its camera_info",
            ) from error

    def _check_attitude(self, message: Any) -> None:
        if self._topics["attitude"][1] == ros.IMU and message.orientation_covariance[0] == -1.0:
            raise FlightError(
                f"images without attitude: {self._topics['attitude'][0]} of {self._path}",
                "says by its covariance that it holds no orientation",
                "an Imu with orientation",
                "record the attitude of the flight controller, for instance /mavros/imu/data",
            )

    def _check_first_image(self, reader: AnyReader) -> None:
        topic, kind = self._topics["image"]
        image = ros.image_bgr(self._first(reader, "image")[0], kind)
        if image is not None and image.shape[:2] != (self.camera.height, self.camera.width):
            raise FlightError(
                f"image size on {topic} of {self._path}",
                f"{image.shape[1]}x{image.shape[0]}",
                f"{self.camera.width}x{self.camera.height} as in {self._topics['camera_info'][0]}",
                "record the camera_info of these images",
            )

    def _find_mount(self, reader: AnyReader, body_frames: set[str], camera_frame: str) -> tuple[np.ndarray, str]:
        """body_from_camera by /tf_static; straight down, top of the image forward, where that does not tell."""
        static = [c for c in reader.connections if c.topic.endswith("/tf_static") and c.msgtype == ros.TF]
        transforms: list[Any] = []
        if static:
            with self._told_in_one_line():
                for connection, _, raw in reader.messages(static):
                    message: Any = reader.deserialize(raw, connection.msgtype)
                    transforms += message.transforms
        found = ros.mount(transforms, body_frames, camera_frame)
        if found is not None:
            return found, f"{static[0].topic} to {camera_frame}"
        assumed = "assumed: top of the image forward, looking down"
        _log.info("%s: no static transform from base_link to %r; mount %s", self._path, camera_frame, assumed)
        return BODY_FROM_CAMERA_DOWN, assumed

    def _first(self, reader: AnyReader, part: str) -> tuple[Any, int]:
        for _, logged_at_ns, raw in self._messages(reader, (part,)):
            return self._decoded(reader, part, raw), logged_at_ns
        raise FlightError(f"no message on {self._topics[part][0]} of {self._path}", None, "one at least")

    def _messages(self, reader: AnyReader, parts: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
        """(part, time of logging, undecoded message) in the order of the log."""
        part_of = {self._topics[part]: part for part in parts if part in self._topics}
        with self._told_in_one_line():
            wanted = [c for c in reader.connections if (c.topic, c.msgtype) in part_of]
            messages = reader.messages(wanted)
        while True:
            with self._told_in_one_line():
                entry = next(messages, None)
            if entry is None:
                return
            connection, logged_at_ns, raw = entry
            yield part_of[connection.topic, connection.msgtype], logged_at_ns, bytes(raw)

    def _decoded(self, reader: AnyReader, part: str, raw: bytes) -> Any:
        with self._told_in_one_line():
            return reader.deserialize(raw, self._topics[part][1])

    @contextmanager
    def _reader(self) -> Iterator[AnyReader]:
        with self._told_in_one_line():
            reader = AnyReader(self._files(), default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            reader.open()
        try:
            yield reader
        finally:
            reader.close()

    def _files(self) -> list[Path]:
        """The folder with its metadata.yaml, or its storage files where a recorder died before writing that."""
        if self._path.is_file() or (self._path / "metadata.yaml").is_file():
            return [self._path]
        return sorted(self._path.glob("*.mcap")) or sorted(self._path.glob("*.db3"))

    @contextmanager
    def _told_in_one_line(self) -> Iterator[None]:
        """Wrapped round the reader only, never round our own work."""
        try:
            yield
        except _BROKEN as error:
            raise FlightError(
                "broken recording",
                f"{self._path} ({str(error) or type(error).__name__})",
                "a whole rosbag2 (MCAP or sqlite3)",
                "copy it again, or repair it with `mcap recover`",
            ) from error
