"""A flight recorded as rosbag2 (a folder, or one MCAP or db3 file), streamed in the order of its log.

Messages are valid at their header's stamp, and telemetry may be logged after the frame that it belongs to:
a frame waits until all telemetry has passed its capture time, at most a second of log.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.errors import CameraError, FlightError
from onboard.flight import ros
from onboard.flight.choose import choose
from onboard.flight.rosbag import BROKEN, types_without_definitions
from onboard.flight.source import FlightItem, Topics, Truth
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.home import HeightZero
from onboard.pairing import Pairing
from onboard.records import Frame, Reason, Telemetry
from onboard.telemetry import TelemetryBuffer

_log = logging.getLogger(__name__)

_WAIT_NS = 1_000_000_000
_FIRST_IMAGES = 10  # of these one at least must be readable
_TELEMETRY = ("attitude", "height", "velocity", "home")


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
            self._check_types(reader)
            self.frame_count = chosen["image"].msgcount
            info, _ = self._first(reader, "camera_info")
            self.camera = self._camera(info)
            attitude, _ = self._first(reader, "attitude")
            self._check_attitude(attitude)
            self._notes: Counter[str] = Counter()
            self._camera_frame = self._check_first_images(reader)
            self.body_from_camera, self._mount = self._find_mount(
                reader, {"base_link", ros.body_frame(attitude, self._topics["attitude"][1])}, info.header.frame_id
            )

    @property
    def facts(self) -> Mapping[str, str]:
        return {
            "kind": "rosbag2",
            **{part: f"{topic} ({kind})" for part, (topic, kind) in self._topics.items()},
            "mount": self._mount,
            **({"notes": "; ".join(f"{note} ({n})" for note, n in self._notes.items())} if self._notes else {}),
        }

    def items(self) -> Iterator[FlightItem]:
        """The frames in order of capture. Raises FlightError where the recording turns out to be broken."""
        self._notes.clear()
        buffer, zero = TelemetryBuffer(self._max_age_ns), HeightZero()
        pairing: Pairing[bytes] = Pairing(buffer, _WAIT_NS)  # of undecoded messages, by the clock of the log
        with self._reader() as reader:
            for part, logged_at_ns, raw in self._messages(reader, ("image", *_TELEMETRY)):
                message = self._decoded(reader, part, raw)
                at_ns = ros.stamp_ns(message, logged_at_ns)
                if ros.has_zero_stamp(message):
                    self._note(f"{part} with a stamp of zero, taken to be of the time of logging")
                if part == "image" and message.header.frame_id != self._camera_frame:  # another lens than camera_info's
                    self._note(f"image of another camera, frame_id {message.header.frame_id!r}, left out")
                elif part == "image":
                    pairing.frame(at_ns, logged_at_ns, raw)
                else:
                    self._keep(buffer, zero, part, at_ns, logged_at_ns, message)
                for captured_at_ns, image, telemetry in pairing.ready(logged_at_ns):
                    yield self._item(reader, captured_at_ns, image, telemetry)
            for captured_at_ns, image, telemetry in pairing.rest():
                yield self._item(reader, captured_at_ns, image, telemetry)

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

    def _keep(
        self, buffer: TelemetryBuffer, zero: HeightZero, part: str, at_ns: int, logged_at_ns: int, message: Any
    ) -> None:
        topic, kind = self._topics[part]
        if part == "attitude":
            buffer.add_attitude(at_ns, *ros.attitude(message, kind))
        elif part == "height":
            ros.keep_height(buffer, zero, at_ns, logged_at_ns, message, kind, topic)
        elif part == "home":
            zero.home(*ros.home_deg(message), logged_at_ns)
        else:
            buffer.add_velocity(at_ns, ros.velocity_ned_mps(message, kind))

    def _item(self, reader: AnyReader, captured_at_ns: int, raw: bytes, telemetry: Telemetry | Reason) -> FlightItem:
        topic, kind = self._topics["image"]
        message = self._decoded(reader, "image", raw)
        image = ros.image_bgr(message, kind)
        if image is None:
            self._note(f"image that cannot be read, {ros.image_kind(message, kind)}")
        elif image.shape[:2] != (self.camera.height, self.camera.width):
            self._note(f"image of another size, {image.shape[1]}x{image.shape[0]}")
        source = f"{topic}@{captured_at_ns}"
        frame = Frame(captured_at_ns, image, source) if image is not None else None
        return FlightItem(captured_at_ns, source, frame, telemetry)

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
                "record the attitude of the flight controller, for instance /mavros/imu/data, or name it with --topic",
            )

    def _check_first_images(self, reader: AnyReader) -> str:
        """The frame_id of the first image that can be read; FlightError where none of the first can, or none fits."""
        topic, kind = self._topics["image"]
        found = ""
        for _, _, raw in islice(self._messages(reader, ("image",)), _FIRST_IMAGES):
            message = self._decoded(reader, "image", raw)
            image = ros.image_bgr(message, kind)
            if image is None:
                found = ros.image_kind(message, kind)
            elif image.shape[:2] == (self.camera.height, self.camera.width):
                return str(message.header.frame_id)
            else:
                raise FlightError(
                    f"image size on {topic} of {self._path}",
                    f"{image.shape[1]}x{image.shape[0]}",
                    f"{self.camera.width}x{self.camera.height} as in {self._topics['camera_info'][0]}",
                    "record the camera_info of these images",
                )
        raise FlightError(
            f"images on {topic} of {self._path} that cannot be read",
            found,
            "JPEG or PNG" if kind == ros.COMPRESSED_IMAGE else f"an encoding of {', '.join(ros.ENCODINGS)}",
            "record another image topic, or name one with --topic image=NAME",
        )

    def _check_types(self, reader: AnyReader) -> None:
        """A type that neither ROS itself nor the bag describes cannot be read."""
        for topic, kind in self._topics.values():
            if kind not in reader.typestore.types:
                raise FlightError(
                    f"unknown type of {topic} in {self._path}",
                    kind,
                    "a type of ROS 2, or a bag that carries its definitions, as MCAP does",
                    "convert it: ros2 bag convert",
                )

    def _note(self, note: str) -> None:
        """Counted for the summary; told once."""
        if note not in self._notes:
            _log.warning("%s: %s", self._path, note)
        self._notes[note] += 1

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
        parts_of: dict[tuple[str, str], list[str]] = {}  # Odometry may be attitude and velocity in one
        for part in parts:
            if part in self._topics:
                parts_of.setdefault(self._topics[part], []).append(part)
        with self._told_in_one_line():
            wanted = [c for c in reader.connections if (c.topic, c.msgtype) in parts_of]
            messages = reader.messages(wanted)
        while True:
            with self._told_in_one_line():
                entry = next(messages, None)
            if entry is None:
                return
            connection, logged_at_ns, raw = entry
            for part in parts_of[connection.topic, connection.msgtype]:
                yield part, logged_at_ns, bytes(raw)

    def _decoded(self, reader: AnyReader, part: str, raw: bytes) -> Any:
        with self._told_in_one_line():
            return reader.deserialize(raw, self._topics[part][1])

    @contextmanager
    def _reader(self) -> Iterator[AnyReader]:
        with self._told_in_one_line():
            reader = AnyReader(self._files(), default_typestore=types_without_definitions())
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
        except BROKEN as error:
            raise FlightError(
                "broken recording",
                f"{self._path} ({str(error) or type(error).__name__})",
                "a whole rosbag2 (MCAP or sqlite3)",
                "copy it again, or repair it with `mcap recover`",
            ) from error
