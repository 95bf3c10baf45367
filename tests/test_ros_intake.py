"""What comes in to the ROS node: headers, frames, telemetry, the mount; what cannot be used is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from toy_ros import (
    HIGH,
    T0,
    WIDE,
    S,
    camera_info,
    deserialized,
    header,
    image,
    imu,
    new,
    ready,
    serialized,
    settled,
    static_transform,
    telemetry_until,
)

from onboard.flight import ros
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.records import HeightReference, Telemetry
from pilotage_ros import readings
from pilotage_ros.intake import Intake, is_rectified
from pilotage_ros.troubles import Trouble, Troubles


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


class Home:
    """A HomePosition, of which only the place is read."""

    class geo:
        latitude, longitude = 47.0, 8.0


@pytest.fixture
def intake(troubles: Troubles) -> Intake:
    return Intake(deserialized, troubles)


@pytest.mark.parametrize("kind", ["Image", "CompressedImage"])
def test_the_header_of_a_serialized_image_is_read_without_the_image(kind: str) -> None:
    raw = image(T0 + 123, "down/optical")
    if kind == "CompressedImage":
        fields = header(T0 + 123, "down/optical"), "jpeg", np.arange(50, dtype=np.uint8)
        raw = serialized(new("sensor_msgs/CompressedImage", *fields))
    assert readings.header_of(raw) == readings.Header(T0 + 123, "down/optical")


def test_a_big_endian_header_is_read_too() -> None:
    raw = b"\x00\x00\x00\x00" + (17).to_bytes(4, "big") + (5).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"ab\x00"
    assert readings.header_of(raw + b"\x00" * 8) == readings.Header(17 * S + 5, "ab")


@pytest.mark.parametrize(
    "raw", [b"", b"\x00\x01\x00\x00", b"\x05" * 64, b"\x00\x01\x00\x00" + b"\x01" * 8 + b"\xff\xff\xff\x7f" + b"x" * 9]
)
def test_bytes_that_are_no_message_have_no_header(raw: bytes) -> None:
    assert readings.header_of(raw) is None


def test_no_prefix_of_a_message_makes_the_header_reader_fail() -> None:
    raw = image(T0, "camera")[:40]
    told = [readings.header_of(raw[:n]) for n in range(len(raw))]
    assert set(told) == {None, readings.Header(T0, "camera")}


def test_a_navsatfix_without_a_fix_is_no_place() -> None:
    status = new("sensor_msgs/NavSatStatus", -1, 0)
    nothing = new("sensor_msgs/NavSatFix", header(T0), status, 47.0, 8.0, 0.0, np.zeros(9), 0)
    assert readings.gps_degrees(nothing) is None
    nothing.status.status = 0
    assert readings.gps_degrees(nothing) == (47.0, 8.0)


def test_a_frame_leaves_with_the_telemetry_of_its_instant_and_is_decoded_only_when_asked(troubles: Troubles) -> None:
    decoded = []

    def deserialize(raw: bytes, kind: str) -> Any:
        decoded.append(kind)
        return deserialized(raw, kind)

    intake = settled(Intake(deserialize, troubles))
    telemetry_until(intake, T0)
    intake.image(image(T0 + S // 20), ros.IMAGE, 0, T0)
    assert ready(intake) == []
    telemetry_until(intake, T0 + S // 10)
    [item] = ready(intake)
    assert (item.captured_at_ns, decoded) == (T0 + S // 20, [])
    assert isinstance(item.telemetry, Telemetry)
    assert item.telemetry.height_above_ground_m == pytest.approx(100.0)
    assert item.telemetry.attitude_quat_wxyz == pytest.approx((1.0, 0.0, 0.0, 0.0))  # level, facing north
    frame = item.frame()  # type: ignore[operator,misc]
    assert frame.image_bgr.shape == (HIGH, WIDE, 3)
    assert (frame.captured_at_ns, decoded) == (T0 + S // 20, [ros.IMAGE])
    assert troubles.now() == {}


def test_the_mount_is_that_of_tf_static(intake: Intake) -> None:
    """A camera that looks down, its image's top forward: x right, y back, z down, in a body of x ahead, z up."""
    half = math.sqrt(0.5)
    intake.camera_info(camera_info("lens"), 0, T0)
    assert not intake.settle(0)
    intake.tf_static(static_transform("base_link", "lens", -half, half, 0.0, 0.0))
    assert intake.settle(0)
    np.testing.assert_allclose(intake.body_from_camera, BODY_FROM_CAMERA_DOWN, atol=1e-9)


def test_without_a_transform_the_mount_is_assumed_after_two_seconds_and_named(
    intake: Intake, troubles: Troubles
) -> None:
    intake.camera_info(camera_info(), 0, T0)
    assert not intake.settle(2 * S - 1)
    assert intake.settle(2 * S)
    assert not intake.settle(3 * S)  # once
    np.testing.assert_array_equal(intake.body_from_camera, BODY_FROM_CAMERA_DOWN)
    assert "base_link to camera" in troubles.now()[Trouble.NO_MOUNT]


def test_camera_info_that_never_arrives_is_named(intake: Intake, troubles: Troubles) -> None:
    intake.look(S, T0)
    assert troubles.now() == {}  # give it time
    intake.look(3 * S, T0)
    missing = {Trouble.NO_CAMERA_INFO, Trouble.NO_IMAGE, Trouble.NO_ATTITUDE, Trouble.NO_HEIGHT}
    assert set(troubles.now()) == missing
    settled(intake)
    telemetry_until(intake, T0)
    intake.image(image(T0), ros.IMAGE, 0, T0)
    intake.look(4 * S, T0)
    assert troubles.now() == {}


def test_a_slow_camera_is_not_a_missing_one(intake: Intake, troubles: Troubles) -> None:
    intake.image(image(T0), ros.IMAGE, 0, T0)
    for second, missing in ((3, False), (4, False), (5, False), (6, True)):
        intake.look(second * S, T0)
        assert (Trouble.NO_IMAGE in troubles.now()) is missing


def test_a_camera_info_without_a_calibration_is_named(intake: Intake, troubles: Troubles) -> None:
    intake.camera_info(camera_info(focal_px=0.0), 0, T0)
    assert intake.camera is None
    assert "calibrate" in troubles.now()[Trouble.BAD_CAMERA_INFO]


@pytest.mark.parametrize(
    "other",
    [camera_info("second"), camera_info(size=(32, 24)), camera_info(focal_px=51.0)],
    ids=["name", "size", "lens"],
)
def test_a_second_camera_info_is_refused_and_named(intake: Intake, troubles: Troubles, other: Any) -> None:
    settled(intake)
    intake.camera_info(camera_info(), 0, T0)
    assert troubles.now() == {}  # the same one again
    before = intake.camera
    intake.camera_info(other, 0, T0)
    assert intake.camera is before
    assert Trouble.TWO_CAMERAS in troubles.now()


def test_images_of_a_second_camera_are_refused_and_named(intake: Intake, troubles: Troubles) -> None:
    settled(intake)
    intake.image(image(T0, "camera"), ros.IMAGE, 0, T0)
    intake.image(image(T0 + 1, "other"), ros.IMAGE, 0, T0)
    telemetry_until(intake, T0 + S)
    assert [item.captured_at_ns for item in ready(intake)] == [T0]
    assert troubles.now()[Trouble.TWO_CAMERAS] == "images of other besides camera"


def test_a_stamp_of_zero_is_refused_and_named(intake: Intake, troubles: Troubles) -> None:
    settled(intake)
    intake.image(image(0), ros.IMAGE, 0, T0)
    intake.telemetry("attitude", imu(0), ros.IMU, T0)
    telemetry_until(intake, T0)
    assert ready(intake, 10 * S) == []
    assert intake.refused[Trouble.ZERO_STAMP] == 2
    assert Trouble.ZERO_STAMP in troubles.now()


def test_a_bare_number_is_valid_when_it_arrives(intake: Intake) -> None:
    intake.telemetry("attitude", imu(T0), ros.IMU, T0)
    intake.telemetry("height", new("std_msgs/Float64", 55.0), ros.FLOAT64, T0)
    told = intake.telemetry_at(T0)
    assert isinstance(told, Telemetry)
    assert told.height_above_ground_m == 55.0


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/mavros/global_position/rel_alt", (HeightReference.HOME, (47.0, 8.0))),
        ("/height", (HeightReference.GROUND, None)),
    ],
)
def test_a_bare_number_is_above_home_where_its_topic_is_that_of_mavros(
    intake: Intake, topic: str, expected: tuple[HeightReference, tuple[float, float] | None]
) -> None:
    intake.height_topic = topic
    intake.home(Home, T0)
    telemetry_until(intake, T0)
    intake.telemetry("height", new("std_msgs/Float64", 55.0), ros.FLOAT64, T0)
    told = intake.telemetry_at(T0)
    assert isinstance(told, Telemetry)
    assert (told.height_above_ground_m, told.height_reference, told.home_deg) == (55.0, *expected)


@pytest.mark.parametrize(
    ("raw", "trouble"),
    [
        (image(T0, encoding="yuv422"), Trouble.WRONG_ENCODING),
        (image(T0, size=(32, 24)), Trouble.WRONG_SIZE),
    ],
    ids=["encoding", "size"],
)
def test_an_image_that_cannot_be_used_is_no_frame_and_named(
    intake: Intake, troubles: Troubles, raw: bytes, trouble: Trouble
) -> None:
    settled(intake)
    intake.image(raw, ros.IMAGE, 0, T0)
    telemetry_until(intake, T0 + S)
    [item] = ready(intake)
    assert item.frame() is None  # type: ignore[operator,misc]
    assert list(troubles.now()) == [trouble]


def test_stamps_of_another_clock_are_named(intake: Intake, troubles: Troubles) -> None:
    intake.image(image(T0), ros.IMAGE, 0, T0 + 3600 * S)
    assert "3600 s old" in troubles.now()[Trouble.CLOCKS_APART]


def test_frames_before_camera_info_are_kept_only_where_every_frame_counts(troubles: Troubles) -> None:
    for every_frame, kept in ((False, 0), (True, 3)):
        intake = Intake(deserialized, troubles, every_frame=every_frame)
        for k in range(3):
            intake.image(image(T0 + k), ros.IMAGE, 0, T0)
        settled(intake)
        telemetry_until(intake, T0 + S)
        assert len(ready(intake)) == kept


def test_where_every_frame_counts_a_frame_waits_for_each_part_that_is_still_heard(troubles: Troubles) -> None:
    """However late: a part that lags behind the others by seconds is not a part that is missing."""
    intake = settled(Intake(deserialized, troubles, every_frame=True))
    for part in ("image", "attitude", "height", "velocity"):
        intake.expect(part)
    intake.image(image(T0 + S // 2), ros.IMAGE, 0, T0)
    telemetry_until(intake, T0 + S)
    twist = new("geometry_msgs/Twist", *[new("geometry_msgs/Vector3", 1.0, 0.0, 0.0)] * 2)
    for late in range(3):  # an hour by the clock, as when the executor was held up
        for _ in range(50):
            intake.poll()
        assert ready(intake, late * 3600 * S) == []
        intake.telemetry("velocity", new("geometry_msgs/TwistStamped", header(T0 + late), twist), ros.TWIST, T0)
    for polls in range(51):
        assert ready(intake) == [], polls
        intake.poll()
    assert len(ready(intake)) == 1  # it says no more


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/cam/image_rect", True),
        ("/cam/image_rect/compressed", True),
        ("/cam/image_raw", False),
        ("/rect/a/b/image", False),
    ],
)
def test_rectified_images_are_known_by_their_name(topic: str, rectified: bool) -> None:
    assert is_rectified(topic) is rectified
