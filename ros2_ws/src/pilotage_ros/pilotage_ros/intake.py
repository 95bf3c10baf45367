"""What has come in, until it is a frame with its telemetry: checks, the telemetry of each instant, the pairing.

No ROS here: messages are taken by their attributes, images as serialized bytes that are decoded only if a frame's turn
comes. Two clocks: `now_ns` is the node's (Unix or simulated time, that of the stamps), `arrived_ns` the monotonic one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from onboard.camera import CameraModel
from onboard.config import RectifyConfig
from onboard.errors import CameraError
from onboard.flight import ros
from onboard.frames import BODY_FROM_CAMERA_DOWN, GIMBAL_FROM_CAMERA
from onboard.home import HeightZero
from onboard.live.worker import FrameItem
from onboard.pairing import Pairing, TelemetrySource
from onboard.records import Frame, Reason, Telemetry
from onboard.telemetry import TelemetryBuffer
from pilotage_ros import readings
from pilotage_ros.troubles import Trouble, Troubles

Deserialize = Callable[[bytes, str], Any]
_SILENT_POLLS = 50  # where every frame counts: a part of the telemetry that says no more is waited for no more
_FOR_EVER_NS = 10**18
_MOST_WAITING = 1000  # frames, where none is dropped and there is no camera_info yet
_MOUNT_WAIT_NS = 2_000_000_000  # for /tf_static, after camera_info
_APART_NS = 10_000_000_000
_QUIET_LOOKS = 3


class Intake:
    """One activation's worth of input. Not for several threads at once, but `FrameItem.frame` may run on another.

    `deserialize` makes a message of bytes and a type's name. `telemetry` replaces the topics as the source of
    telemetry (a MAVLink companion). `every_frame`: no frame is given up, as replay would not.
    """

    def __init__(
        self,
        deserialize: Deserialize,
        troubles: Troubles,
        config: RectifyConfig = RectifyConfig(),
        *,
        image_topic: str = "image",
        body_frame: str = "base_link",
        every_frame: bool = False,
        telemetry: TelemetrySource | None = None,
    ) -> None:
        self._deserialize, self._troubles = deserialize, troubles
        self.image_topic, self._body_frame, self._every_frame = image_topic, body_frame, every_frame
        self.height_topic = "height"  # its name says whether a bare number is above ground or above home
        self._zero = HeightZero()
        self._on_gimbal = config.on_gimbal
        self._buffer = _PatientBuffer(round(config.max_telemetry_age_ms * 1e6), every_frame)
        wait_ns = _FOR_EVER_NS if every_frame else self._buffer.max_age_ns
        self._pairing: Pairing[tuple[str, bytes]] = Pairing(telemetry or self._buffer, wait_ns)
        self.camera: CameraModel | None = None
        self.body_from_camera: np.ndarray | None = None  # set when the camera is known and the mount found or given up
        self.mount_words = ""
        self.refused: Counter[Trouble] = Counter()
        self.rates = {part: Rate() for part in ("image", "attitude", "height", "velocity")}
        self._camera_frame, self._image_frame = "", ""
        self._attitude_frame = body_frame
        self._transforms: list[Any] = []
        self._info_at_ns: int | None = None

    def expect(self, part: str) -> None:
        """Somebody publishes this part. Where every frame counts, frames wait for it if it is telemetry."""
        if part != "image":
            self._buffer.heard(part)

    def use_camera(self, camera: CameraModel, arrived_ns: int) -> None:
        """A calibration from a file: no camera_info is waited for."""
        self.camera, self._info_at_ns = camera, arrived_ns

    def camera_info(self, message: Any, arrived_ns: int, now_ns: int) -> None:
        """The first one that is a calibration holds; another one later is another camera, and refused."""
        frame = message.header.frame_id.lstrip("/")
        try:
            camera = ros.camera_model(message, rectified=is_rectified(self.image_topic))
        except CameraError as error:
            self._refuse(Trouble.BAD_CAMERA_INFO, now_ns, str(error))
            return
        if self.camera is None:
            self.camera, self._camera_frame, self._info_at_ns = camera, frame, arrived_ns
        elif not self._camera_frame:
            self._camera_frame = frame  # the calibration is a file's, the mount that of the camera itself
        elif frame != self._camera_frame or not _same(camera, self.camera):
            kept = f"{self._camera_frame} {self.camera.width}x{self.camera.height}"
            self._refuse(
                Trouble.TWO_CAMERAS, now_ns, f"camera_info of {frame} {camera.width}x{camera.height} besides {kept}"
            )

    def telemetry_at(self, at_ns: int) -> Telemetry | Reason:
        """What the vehicle said at an instant."""
        return self._pairing.buffer.at(at_ns)

    def tf_static(self, message: Any) -> None:
        self._transforms += message.transforms

    def telemetry(self, part: str, message: Any, kind: str, now_ns: int) -> None:
        """A message of `readings.KINDS[part]`."""
        if ros.has_zero_stamp(message):
            self._refuse(Trouble.ZERO_STAMP, now_ns, f"on {part}, {kind}")
            return
        at_ns = ros.stamp_ns(message, now_ns)
        self.rates[part].tick(at_ns)
        self._buffer.heard(part)
        if part == "attitude":
            self._buffer.add_attitude(at_ns, *ros.attitude(message, kind))
            header = getattr(message, "header", None)
            if kind == ros.IMU and header is not None:
                self._attitude_frame = header.frame_id.lstrip("/")
        elif part == "height":
            ros.keep_height(self._buffer, self._zero, at_ns, now_ns, message, kind, self.height_topic)
        else:
            self._buffer.add_velocity(at_ns, ros.velocity_ned_mps(message, kind))

    def home(self, message: Any, now_ns: int) -> None:
        """A HomePosition: where heights above home are counted from."""
        self._zero.home(*ros.home_deg(message), now_ns)

    def image(self, raw: bytes, kind: str, arrived_ns: int, now_ns: int) -> None:
        """A serialized image, of which only the header is read here."""
        header = readings.header_of(raw)
        if header is None:
            self._refuse(Trouble.BROKEN_MESSAGE, now_ns, f"on {self.image_topic}")
            return
        if header.stamp_ns <= 0:
            self._refuse(Trouble.ZERO_STAMP, now_ns, f"on {self.image_topic}, {kind}")
            return
        if not self._image_frame:
            self._image_frame = header.frame_id
        if header.frame_id != self._image_frame:
            self._refuse(Trouble.TWO_CAMERAS, now_ns, f"images of {header.frame_id} besides {self._image_frame}")
            return
        if abs(now_ns - header.stamp_ns) > _APART_NS and not self._every_frame:
            apart_s = (now_ns - header.stamp_ns) * 1e-9
            self._troubles.strike(
                Trouble.CLOCKS_APART, now_ns, f"an image is {apart_s:.0f} s old; is use_sim_time right?"
            )
        self.rates["image"].tick(header.stamp_ns)
        if self.body_from_camera is None and (not self._every_frame or len(self._pairing) >= _MOST_WAITING):
            return  # nothing can be made of it yet
        self._pairing.frame(header.stamp_ns, arrived_ns, (kind, raw))

    def settle(self, arrived_ns: int) -> bool:
        """Find the mount once the camera is known. True when it is settled now and was not before."""
        if self.camera is None or self.body_from_camera is not None or self._info_at_ns is None:
            return False
        if self._on_gimbal:
            self.body_from_camera, self.mount_words = GIMBAL_FROM_CAMERA, "on a gimbal, looking where it points"
            return True
        bodies = {self._body_frame, self._attitude_frame}
        found = ros.mount(self._transforms, bodies, self._camera_frame) if self._camera_frame else None
        if found is None and arrived_ns - self._info_at_ns < _MOUNT_WAIT_NS:
            return False
        if found is None:
            way = f"{self._body_frame} to {self._camera_frame or 'the camera'}"
            self._troubles.set(Trouble.NO_MOUNT, True, f"{way}; assumed: top of the image forward, looking down")
        self.body_from_camera = BODY_FROM_CAMERA_DOWN if found is None else found
        self.mount_words = "assumed, looking down" if found is None else f"/tf_static to {self._camera_frame}"
        return True

    def poll(self) -> None:
        """Called at a steady pace by whoever hands the messages in."""
        self._buffer.poll()

    def ready(self, arrived_ns: int, now_ns: Callable[[], int]) -> Iterator[FrameItem]:
        """The frames that need not wait any longer. `now_ns` is asked when an image turns out to be bad."""
        if self.body_from_camera is None:
            return
        for captured_at_ns, (kind, raw), telemetry in self._pairing.ready(arrived_ns):
            yield self._item(captured_at_ns, kind, raw, telemetry, now_ns)

    def look(self, active_for_ns: int, now_ns: int) -> None:
        """Name what does not come at all, or no longer. Called about once a second."""
        if active_for_ns < _MOUNT_WAIT_NS:
            return
        self._troubles.set(
            Trouble.NO_CAMERA_INFO, self.camera is None, "expected beside the images, or camera_info_file"
        )
        self._troubles.set(Trouble.NO_IMAGE, self.rates["image"].silent(), f"on {self.image_topic}")
        if self._pairing.buffer is self._buffer:
            self._troubles.set(Trouble.NO_ATTITUDE, self.rates["attitude"].silent(), "expected on topic attitude")
            self._troubles.set(Trouble.NO_HEIGHT, self.rates["height"].silent(), "expected on topic height")
        self._troubles.expire(now_ns)

    def _item(
        self, captured_at_ns: int, kind: str, raw: bytes, telemetry: Telemetry | Reason, now_ns: Callable[[], int]
    ) -> FrameItem:
        source = f"{self.image_topic}@{captured_at_ns}"
        return FrameItem(
            captured_at_ns, source, lambda: self._frame(captured_at_ns, source, kind, raw, now_ns), telemetry
        )

    def _frame(
        self, captured_at_ns: int, source: str, kind: str, raw: bytes, now_ns: Callable[[], int]
    ) -> Frame | None:
        """The decoded image; None where it is none, and the trouble is named. On the localizer's thread."""
        message = self._deserialize(raw, kind)
        image = ros.image_bgr(message, kind)
        if image is None:
            encoding = getattr(message, "encoding", "")
            known = kind != ros.IMAGE or encoding in ros.ENCODINGS
            trouble = Trouble.UNDECODABLE_IMAGE if known else Trouble.WRONG_ENCODING
            detail = f"on {self.image_topic}" if known else f"{encoding!r}; expected {', '.join(ros.ENCODINGS)}"
            self._refuse(trouble, now_ns(), detail)
            return None
        assert self.camera is not None
        if image.shape[:2] != (self.camera.height, self.camera.width):
            found, wanted = f"{image.shape[1]}x{image.shape[0]}", f"{self.camera.width}x{self.camera.height}"
            self._refuse(Trouble.WRONG_SIZE, now_ns(), f"{found}, not {wanted}")
            return None
        return Frame(captured_at_ns, image, source)

    def _refuse(self, trouble: Trouble, now_ns: int, detail: str) -> None:
        self.refused[trouble] += 1
        self._troubles.strike(trouble, now_ns, detail)


class Rate:
    """How often something comes, by its own stamps."""

    def __init__(self) -> None:
        self._stamps_ns: deque[int] = deque(maxlen=50)
        self._looks = _QUIET_LOOKS  # since the last one came
        self.count = 0

    def tick(self, at_ns: int) -> None:
        self._stamps_ns.append(at_ns)
        self._looks = 0
        self.count += 1

    def silent(self) -> bool:
        """Whether nothing came since this was asked three times ago; to be asked once a second."""
        self._looks += 1
        return self._looks > _QUIET_LOOKS

    @property
    def hz(self) -> float | None:
        stamps = list(self._stamps_ns)
        if len(stamps) < 2 or stamps[-1] <= stamps[0]:
            return None
        return (len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0])


class _PatientBuffer(TelemetryBuffer):
    """Where every frame counts: a part that is still being heard is waited for, however late its messages are.

    Messages of one topic overtake those of another where the executor is busy, and all are late when it was held up;
    so silence is counted in polls, each of which is a chance to be heard. (In a recording the time of logging says how
    long to wait.)
    """

    def __init__(self, max_age_ns: int, patient: bool) -> None:
        super().__init__(max_age_ns)
        self._patient = patient
        self._polls: dict[str, int] = {}  # since the part was last heard

    def heard(self, part: str) -> None:
        self._polls[part] = 0

    def poll(self) -> None:
        for part in self._polls:
            self._polls[part] += 1

    def passed(self, t_ns: int) -> bool:
        if not self._patient:
            return super().passed(t_ns)
        parts: dict[str, Any] = {"attitude": self._attitude, "height": self._height, "velocity": self._velocity}
        return all(polls > _SILENT_POLLS or parts[part].reaches(t_ns) for part, polls in self._polls.items())


def is_rectified(topic: str) -> bool:
    """Whether images of this topic are free of distortion, by ROS's custom: `image_rect`, also below it."""
    return any("rect" in part for part in topic.split("/")[-2:])


def _same(one: CameraModel, other: CameraModel) -> bool:
    return (one.width, one.height, one.distortion_model, one.distortion) == (
        other.width,
        other.height,
        other.distortion_model,
        other.distortion,
    ) and bool(np.array_equal(one.matrix, other.matrix))
