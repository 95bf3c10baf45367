"""A recorded bag: its frames with the telemetry of their instant, in our frames, and what it lacks is named."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from toy_bag import (
    FACING_NORTH_ENU,
    FIX,
    HEIGHT,
    IMAGE,
    IMU,
    INFO,
    LOOKING_DOWN_FLU,
    TF,
    VELOCITY,
    camera_info,
    changed,
    header,
    height,
    image,
    imu,
    message,
    toy_messages,
    transform,
    without,
    write_bag,
)
from toy_flight import CAMERA, MS, START_NS, angles_deg, jpeg, picture, told_in_one_line

from onboard.errors import FlightError
from onboard.flight import open_flight
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.records import Reason, Telemetry


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_bag(tmp_path / "bag", toy_messages())


def test_a_bag_gives_its_frames_with_the_telemetry_of_their_instant(bag: Path) -> None:
    flight = open_flight(bag)
    items = list(flight.items())
    assert (flight.name, flight.frame_count, len(items)) == ("bag", 4, 4)
    assert [item.captured_at_ns - START_NS for item in items] == [t * MS for t in (150, 650, 1150, 1650)]
    for item in items:
        assert item.frame is not None
        assert item.frame.image_bgr.shape == (48, 64, 3)
        assert isinstance(item.telemetry, Telemetry)
    heights = [item.telemetry.height_above_ground_m for item in items if isinstance(item.telemetry, Telemetry)]
    assert heights == pytest.approx([60.15, 60.65, 61.15, 61.65], abs=1e-4)  # interpolated to the capture, not held
    assert flight.camera.distortion == CAMERA.distortion
    np.testing.assert_array_equal(flight.camera.matrix, CAMERA.matrix)


def test_enu_and_flu_become_ned_and_frd(bag: Path) -> None:
    telemetry = next(iter(open_flight(bag).items())).telemetry
    assert angles_deg(telemetry) == pytest.approx((0, 0, 0), abs=1e-9)  # yaw 90 degrees in ENU is north
    assert isinstance(telemetry, Telemetry)
    assert telemetry.velocity_ned_mps == pytest.approx((4, 3, -1))  # east 3, north 4, up 1


@pytest.mark.parametrize(
    ("enu_from_flu_wxyz", "expected_deg"),
    [
        ((1, 0, 0, 0), (0, 0, 90)),  # no rotation: facing east
        ((math.cos(0.1), 0, math.sin(0.1), 0), (0, -math.degrees(0.2), 90)),  # about left: the nose goes down
        ((math.cos(0.1), math.sin(0.1), 0, 0), (math.degrees(0.2), 0, 90)),  # about forward: the right side goes down
        ((0, 0, 0, 1), (0, 0, -90)),  # facing west
    ],
)
def test_imu_orientation_golden_vectors(
    tmp_path: Path, enu_from_flu_wxyz: tuple[float, ...], expected_deg: tuple[float, ...]
) -> None:
    made = changed(IMU, lambda i: imu(START_NS + i * 100 * MS, enu_from_flu_wxyz))
    telemetry = next(iter(open_flight(write_bag(tmp_path / "bag", made)).items())).telemetry
    assert angles_deg(telemetry) == pytest.approx(expected_deg, abs=1e-9)


def test_the_mount_comes_from_static_transforms_else_looks_down(tmp_path: Path, bag: Path) -> None:
    np.testing.assert_allclose(open_flight(bag).body_from_camera, BODY_FROM_CAMERA_DOWN, atol=1e-12)
    flight = open_flight(write_bag(tmp_path / "none", without(TF)))
    np.testing.assert_array_equal(flight.body_from_camera, BODY_FROM_CAMERA_DOWN)
    assert "assumed" in flight.facts["mount"]
    # By way of a second frame: the camera's body turned by 90 degrees to the left about up.
    chain = [
        transform(START_NS, "base_link", "gimbal", math.sqrt(0.5), 0, 0, math.sqrt(0.5)),
        transform(START_NS, "gimbal", "optical", *LOOKING_DOWN_FLU),
    ]
    turned = [*without(TF), (TF, START_NS, message("tf2_msgs/msg/TFMessage", transforms=chain))]
    flight = open_flight(write_bag(tmp_path / "turned", turned))
    top_of_image_camera = np.array([0.0, -1.0, 0.0])
    np.testing.assert_allclose(flight.body_from_camera @ top_of_image_camera, [0, -1, 0], atol=1e-12)  # to the left


def test_bag_truth_is_the_nav_sat_fix(bag: Path) -> None:
    truth = open_flight(bag).truth()
    assert truth is not None
    assert truth.at(START_NS + 400 * MS) == pytest.approx((10.000035, 19.999965), abs=1e-9)
    assert truth.at(START_NS) is None


def test_a_lone_mcap_a_folder_without_metadata_and_sqlite_open_alike(tmp_path: Path, bag: Path) -> None:
    lone = tmp_path / "lone.mcap"
    shutil.copyfile(next(bag.glob("*.mcap")), lone)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(lone, bare / "recorder_died.mcap")
    sqlite = write_bag(tmp_path / "sqlite", toy_messages(), StoragePlugin.SQLITE3)
    expected = [item.telemetry for item in open_flight(bag).items()]
    for path in (lone, bare, sqlite, next(sqlite.glob("*.db3"))):
        flight = open_flight(path)
        assert flight.frame_count == 4
        assert [item.telemetry for item in flight.items()] == expected
    assert open_flight(lone).name == "lone"


def test_frames_logged_out_of_order_come_in_order_of_capture(tmp_path: Path) -> None:
    late = [(t, at + (600 if body.header.stamp.nanosec == 150 * MS else 0) * MS, body) if t == IMAGE else (t, at, body)
            for t, at, body in toy_messages()]  # fmt: skip
    slow = [(t, at + (700 if t in (IMU, HEIGHT, VELOCITY) else 0) * MS, body) for t, at, body in late]
    times = [item.captured_at_ns for item in open_flight(write_bag(tmp_path / "bag", slow)).items()]
    assert len(times) == 4
    assert times == sorted(times)


def test_telemetry_that_dies_leaves_counted_reasons_and_no_hanging_frames(tmp_path: Path) -> None:
    died = [m for m in toy_messages() if not (m[0] == HEIGHT and m[1] > START_NS + 300 * MS)]
    told = [item.telemetry for item in open_flight(write_bag(tmp_path / "bag", died)).items()]
    assert isinstance(told[0], Telemetry)
    assert told[1:] == [Reason.NO_HEIGHT] * 3


@pytest.mark.parametrize("nan", [(math.nan,) * 4, (0.0, 0.0, 0.0, 0.0)])
def test_an_imu_that_turns_nan_is_a_reason_of_the_frames_beside_it(tmp_path: Path, nan: tuple[float, ...]) -> None:
    made = changed(IMU, lambda i: imu(START_NS + i * 100 * MS, nan if i == 7 else FACING_NORTH_ENU))
    told = [item.telemetry for item in open_flight(write_bag(tmp_path / "bag", made)).items()]
    assert told[1] is Reason.BAD_TELEMETRY
    assert all(isinstance(t, Telemetry) for t in (told[0], *told[2:]))


def test_a_height_out_of_the_sensors_range_is_no_height(tmp_path: Path) -> None:
    made = changed(HEIGHT, lambda i: height(START_NS + i * 100 * MS, math.inf if i > 10 else 60.0))
    told = [item.telemetry for item in open_flight(write_bag(tmp_path / "bag", made)).items()]
    assert told[2:] == [Reason.NO_HEIGHT] * 2
    assert isinstance(told[0], Telemetry)


def test_an_unreadable_image_is_a_frame_without_image(tmp_path: Path) -> None:
    junk = np.arange(50, dtype=np.uint8)
    made = changed(IMAGE, lambda i: image(START_NS + (150 + 500 * i) * MS, junk if i == 2 else jpeg(i)))
    frames = [item.frame is None for item in open_flight(write_bag(tmp_path / "bag", made)).items()]
    assert frames == [False, False, True, False]


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8"])
def test_raw_images_with_padded_rows_are_read(tmp_path: Path, encoding: str) -> None:
    bgr = picture(5)
    pixels = {"bgr8": bgr, "rgb8": bgr[..., ::-1], "mono8": bgr[..., :1]}[encoding]
    rows = pixels.reshape(48, -1)
    padded = np.pad(rows, ((0, 0), (0, 8)))

    def raw(at_ns: int) -> Any:
        return message(
            "sensor_msgs/msg/Image",
            header=header(at_ns, "optical"),
            height=48,
            width=64,
            encoding=encoding,
            is_bigendian=0,
            step=padded.shape[1],
            data=padded.ravel(),
        )

    made = [("/camera/image_raw", at, raw(at)) if t == IMAGE else (t, at, body) for t, at, body in toy_messages()]
    frame = next(iter(open_flight(write_bag(tmp_path / "bag", made)).items())).frame
    assert frame is not None
    expected = bgr if encoding != "mono8" else np.repeat(bgr[..., :1], 3, axis=2)
    np.testing.assert_array_equal(frame.image_bgr, expected)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (IMAGE, ("no image", "CompressedImage")),
        (INFO, ("no camera info", "CameraInfo")),
        (IMU, ("no attitude", "sensor_msgs/msg/Imu")),
        (HEIGHT, ("no height", "sensor_msgs/msg/Range")),
    ],
)
def test_a_bag_that_lacks_a_part_says_which_and_what_it_has(tmp_path: Path, gone: str, words: tuple[str, ...]) -> None:
    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", without(gone)))
    told_in_one_line(raised, *words, "topics found", VELOCITY)
    assert gone not in str(raised.value)


def test_velocity_and_truth_may_be_missing(tmp_path: Path) -> None:
    flight = open_flight(write_bag(tmp_path / "bag", without(VELOCITY, FIX)))
    assert flight.truth() is None
    telemetry = [item.telemetry for item in flight.items()]
    assert all(isinstance(t, Telemetry) and t.velocity_ned_mps is None for t in telemetry)


def test_an_imu_without_orientation_is_no_attitude(tmp_path: Path) -> None:
    made = changed(IMU, lambda i: imu(START_NS + i * 100 * MS, (1.0, 0, 0, 0), covariance0=-1.0))
    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", made))
    told_in_one_line(raised, "images without attitude", IMU)


def test_a_driver_without_calibration_is_refused(tmp_path: Path) -> None:
    made = changed(INFO, lambda i: camera_info(START_NS, np.zeros((3, 3))))
    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", made))
    told_in_one_line(raised, INFO, "calibrate")


def test_images_of_another_size_than_camera_info_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", changed(INFO, lambda i: camera_info(START_NS, width=128))))
    told_in_one_line(raised, "64x48", "128x48")


def test_a_bag_folder_whose_file_is_gone_or_whose_metadata_is_junk_is_refused(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [1, 2")
    with pytest.raises(FlightError, match="broken recording"):
        open_flight(bag)
    next(bag.glob("*.mcap")).unlink()
    with pytest.raises(FlightError, match="broken recording"):
        open_flight(bag)
