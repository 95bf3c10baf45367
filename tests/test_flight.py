"""Recorded flights: what goes in comes out in our frames, and what is broken is refused in one line."""

from __future__ import annotations

import csv
import math
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from onboard.camera import CameraModel
from onboard.errors import CameraError, ConfigError, FlightError
from onboard.flight import Topics, Truth, open_flight, ros
from onboard.flight.choose import parse_topics
from onboard.flight.exif import attitude_from_gimbal, attitude_from_xmp, parse_xmp, read_photo
from onboard.flight.photos import PhotoOptions, flight_from_photos
from onboard.frames import BODY_FROM_CAMERA_DOWN, euler_from_rotation, rotation_from_euler, rotation_from_quaternion
from onboard.records import Reason, Telemetry

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
CAMERA = CameraModel(64, 48, np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]]), (0.01, 0.0, 0.0, 0.0, 0.0))
DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "flights"


def angles_deg(telemetry: Telemetry | Reason) -> tuple[float, ...]:
    """(roll, pitch, yaw) in degrees."""
    assert isinstance(telemetry, Telemetry), telemetry
    return tuple(map(math.degrees, euler_from_rotation(rotation_from_quaternion(telemetry.attitude_quat_wxyz))))


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return cv2.imencode(".jpg", picture(seed, size))[1].ravel()


def told_in_one_line(raised: pytest.ExceptionInfo[Any], *words: str) -> None:
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# The flight folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames, in the table in another order than in time."""
    path = tmp_path / "folder"
    (path / "photos").mkdir(parents=True)
    CAMERA.to_yaml(path / "camera.yaml")
    for i in range(3):
        cv2.imwrite(str(path / f"photos/{i}.png"), picture(i))
    write_table(
        path,
        [
            ["photos/2.png", START_NS + 2000 * MS, 1, 2, "", 62, 10.0002, 20.0002, 4, 5],
            ["photos/0.png", START_NS, 0, 0, 0, 60, 10.0, 20.0, "", ""],
            ["photos/1.png", START_NS + 1000 * MS, -3, 4, 90, 61, 10.0001, 20.0001, 1, 2],
        ],
    )
    return path


HEADER = [
    "file",
    "captured_at_ns",
    "roll_deg",
    "pitch_deg",
    "yaw_deg",
    "height_above_ground_m",
    "latitude_deg",
    "longitude_deg",
    "velocity_north_mps",
    "velocity_east_mps",
]


def write_table(folder: Path, rows: list[list[Any]], header: list[str] = HEADER) -> None:
    with (folder / "frames.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def change(folder: Path, row: int, column: str, value: str) -> None:
    with (folder / "frames.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    rows[row][header.index(column)] = value
    write_table(folder, rows, header)


def test_a_flight_folder_gives_its_frames_in_order_of_time(folder: Path) -> None:
    flight = open_flight(folder)
    items = list(flight.items())
    assert (flight.name, flight.frame_count) == ("folder", 3)
    assert [item.captured_at_ns for item in items] == [START_NS, START_NS + 1000 * MS, START_NS + 2000 * MS]
    np.testing.assert_array_equal(flight.body_from_camera, BODY_FROM_CAMERA_DOWN)
    assert flight.camera.focal_px == 50.0
    for i, item in enumerate(items):
        assert item.frame is not None
        np.testing.assert_array_equal(item.frame.image_bgr, picture(i))
    first, second, third = (item.telemetry for item in items)
    assert angles_deg(second) == pytest.approx((-3, 4, 90))
    assert isinstance(first, Telemetry)
    assert first.attitude_quat_wxyz == pytest.approx((1, 0, 0, 0))  # 0, 0, 0: straight down, top of the image north
    assert first.velocity_ned_mps is None
    assert isinstance(second, Telemetry)
    assert second.heading_known
    assert second.velocity_ned_mps == (1.0, 2.0, 0.0)
    assert isinstance(third, Telemetry)
    assert not third.heading_known  # an empty yaw
    assert third.height_above_ground_m == 62.0


def test_truth_is_told_to_the_scorer_and_not_to_the_frames(folder: Path) -> None:
    flight = open_flight(folder)
    truth = flight.truth()
    assert truth is not None
    assert truth.at(START_NS + 500 * MS) == pytest.approx((10.00005, 20.00005))
    names = {name for item in flight.items() for name in (*dir(item), *dir(item.telemetry), *dir(item.frame))}
    assert not [name for name in names if "latitude" in name or "longitude" in name or "truth" in name]


def test_truth_is_not_extrapolated_nor_drawn_over_gaps() -> None:
    truth = Truth(
        np.array([0, 1000, 9000], dtype=np.int64) * MS, np.array([0.0, 1.0, 2.0]), np.array([179.9, -179.9, 5.0])
    )
    assert truth.at(-1) is None
    assert truth.at(9000 * MS + 1) is None
    assert truth.at(5000 * MS) is None
    assert truth.at(9000 * MS) == (2.0, 5.0)
    assert truth.at(250 * MS) == pytest.approx((0.25, 179.95))  # over the date line


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("roll_deg", "", Reason.BAD_TELEMETRY),
        ("pitch_deg", "nan", Reason.BAD_TELEMETRY),
        ("yaw_deg", "nan", Reason.BAD_TELEMETRY),
        ("roll_deg", "inf", Reason.BAD_TELEMETRY),
        ("height_above_ground_m", "", Reason.NO_HEIGHT),
        ("height_above_ground_m", "nan", Reason.NO_HEIGHT),
    ],
)
def test_what_a_row_does_not_know_is_a_reason_of_that_frame(
    folder: Path, column: str, value: str, reason: Reason
) -> None:
    change(folder, 2, column, value)
    told = [item.telemetry for item in open_flight(folder).items()]
    assert told[1] is reason
    assert isinstance(told[0], Telemetry)
    assert isinstance(told[2], Telemetry)


def test_a_number_that_is_none_names_file_line_and_column(folder: Path) -> None:
    change(folder, 1, "pitch_deg", "level")
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "frames.csv, line 3, column pitch_deg: 'level'")


def test_a_time_that_is_no_whole_number_is_refused(folder: Path) -> None:
    change(folder, 0, "captured_at_ns", "1.7e18")
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "captured_at_ns", "1.7e18", "nanoseconds")


def test_missing_columns_are_named(folder: Path) -> None:
    write_table(folder, [["photos/0.png", START_NS, 60]], ["file", "captured_at_ns", "height_above_ground_m"])
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "roll_deg, pitch_deg, yaw_deg")


def test_a_table_without_rows_is_refused(folder: Path) -> None:
    write_table(folder, [])
    with pytest.raises(FlightError, match="no frames"):
        open_flight(folder)


def test_missing_images_are_counted_and_the_first_is_named(folder: Path) -> None:
    (folder / "photos/1.png").unlink()
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "1 of 3 images", "photos/1.png")


def test_an_image_that_cannot_be_decoded_is_a_frame_without_image(folder: Path) -> None:
    (folder / "photos/1.png").write_bytes(b"no image at all")
    assert [item.frame is None for item in open_flight(folder).items()] == [False, True, False]


def test_an_image_of_another_size_than_the_camera_is_refused(folder: Path) -> None:
    cv2.imwrite(str(folder / "photos/2.png"), picture(0, (32, 24)))
    with pytest.raises(FlightError) as raised:
        open_flight(folder)
    told_in_one_line(raised, "photos/2.png", "32x24", "64x48")


def test_pixels_are_taken_as_they_are_stored(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    Image.fromarray(picture()).save(folder / "photos/turned.jpg", exif=exif)
    change(folder, 1, "file", "photos/turned.jpg")
    frame = next(open_flight(folder).items()).frame
    assert frame is not None
    assert frame.image_bgr.shape == (48, 64, 3)


def test_a_folder_without_camera_is_refused(folder: Path) -> None:
    (folder / "camera.yaml").unlink()
    with pytest.raises(CameraError, match="no camera file"):
        open_flight(folder)


def test_what_is_no_flight_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FlightError, match=r"no flight: .*nowhere"):
        open_flight(tmp_path / "nowhere")
    with pytest.raises(FlightError) as raised:
        open_flight(tmp_path)
    told_in_one_line(raised, "frames.csv", "from-photos")


# The bag

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, INFO, IMU = "/camera/image_raw/compressed", "/camera/camera_info", "/mavros/imu/data"
HEIGHT, VELOCITY, FIX, TF = "/height_above_ground", "/mavros/local_position/velocity_local", "/truth/fix", "/tf_static"
ALL = (IMAGE, INFO, IMU, HEIGHT, VELOCITY, FIX, TF)


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


def test_topics_can_be_told(tmp_path: Path) -> None:
    radar = [("/radar/range", at, height(at - 30 * MS, 99.0)) for t, at, _ in toy_messages() if t == HEIGHT]
    path = write_bag(tmp_path / "bag", [*toy_messages(), *radar])
    assert HEIGHT in open_flight(path).facts["height"]
    told = next(iter(open_flight(path, topics=Topics(height="/radar/range")).items())).telemetry
    assert isinstance(told, Telemetry)
    assert told.height_above_ground_m == 99.0
    with pytest.raises(FlightError, match=r"no height in .*: /sonar"):
        open_flight(path, topics=Topics(height="/sonar"))


def test_topics_are_told_as_part_and_name() -> None:
    assert parse_topics(["image=/a", "height=/b=c"]) == Topics(image="/a", height="/b=c")
    for wrong in (["picture=/a"], ["image"], ["image="], ["image=/a", "image=/b"]):
        with pytest.raises(ConfigError, match="--topic") as raised:
            parse_topics(wrong)
        told_in_one_line(raised, "camera_info")


def test_topics_told_for_a_flight_folder_are_refused(folder: Path) -> None:
    with pytest.raises(FlightError, match="leave --topic out"):
        open_flight(folder, topics=Topics(image="/cam"))


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


def test_a_pose_may_tell_the_attitude_but_an_imu_goes_before_it(tmp_path: Path) -> None:
    topic = "/mavros/local_position/pose"
    poses = [
        (topic, at, message("geometry_msgs/msg/PoseStamped", header=header(at - 30 * MS), pose=pose(FACING_NORTH_ENU)))
        for t, at, _ in toy_messages()
        if t == IMU
    ]
    setpoints = [("/a/setpoint_position/local", at, body) for _, at, body in poses]
    both = open_flight(write_bag(tmp_path / "both", [*toy_messages(), *poses]))
    assert IMU in both.facts["attitude"]
    alone = open_flight(write_bag(tmp_path / "alone", [*without(IMU), *poses, *setpoints]))
    assert topic in alone.facts["attitude"]
    assert angles_deg(next(iter(alone.items())).telemetry) == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize(("yaw_variance", "known"), [(0.01, True), (100.0, False)])
def test_odometry_alone_tells_attitude_and_velocity(tmp_path: Path, yaw_variance: float, known: bool) -> None:
    told = [
        ("/odom", at, odometry(at - 30 * MS, FACING_NORTH_ENU, (4.0, -3.0, 1.0), yaw_variance))
        for t, at, _ in toy_messages()
        if t == IMU
    ]
    flight = open_flight(write_bag(tmp_path / "bag", [*without(IMU, VELOCITY), *told]))
    telemetry = next(iter(flight.items())).telemetry
    assert angles_deg(telemetry)[:2] == pytest.approx((0, 0), abs=1e-9)
    assert isinstance(telemetry, Telemetry)
    assert telemetry.heading_known is known
    assert telemetry.velocity_ned_mps == pytest.approx((4, 3, -1))  # forward is north, right is east


ALTITUDE_KIND = "mavros_msgs/msg/Altitude"
PX4_ATTITUDE_KIND = "px4_msgs/msg/VehicleAttitude"
PX4_LOCAL_KIND = "px4_msgs/msg/VehicleLocalPosition"
MORE = get_typestore(Stores.ROS2_JAZZY)
MORE.register(
    get_types_from_msg(
        "std_msgs/Header header\nfloat32 monotonic\nfloat32 amsl\nfloat32 local\nfloat32 relative\n"
        "float32 terrain\nfloat32 bottom_clearance\n",
        ALTITUDE_KIND,
    )
    | get_types_from_msg("uint64 timestamp\nuint64 timestamp_sample\nfloat32[4] q\n", PX4_ATTITUDE_KIND)
    | get_types_from_msg(
        "uint64 timestamp\nuint64 timestamp_sample\nbool v_xy_valid\nbool v_z_valid\nfloat32 vx\nfloat32 vy\n"
        "float32 vz\nfloat32 dist_bottom\nbool dist_bottom_valid\n",
        PX4_LOCAL_KIND,
    )
)


def altitude(at_ns: int, clearance_m: float) -> Any:
    return MORE.types[ALTITUDE_KIND](header(at_ns), 0.0, 500.0, 90.0, 90.0, math.nan, clearance_m)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize(("clearance_m", "expected_m"), [(61.5, 61.5), (math.nan, 90.0), (-1.0, 90.0)])
def test_mavros_altitude_is_the_clearance_else_the_height_above_the_start(
    tmp_path: Path, plugin: StoragePlugin, clearance_m: float, expected_m: float
) -> None:
    told = [("/mavros/altitude", at, altitude(at - 30 * MS, clearance_m)) for t, at, _ in toy_messages() if t == HEIGHT]
    path = write_bag(tmp_path / "bag", [*without(HEIGHT), *told], plugin)
    telemetry = next(iter(open_flight(path).items())).telemetry
    assert isinstance(telemetry, Telemetry)
    assert telemetry.height_above_ground_m == expected_m


def px4_messages(clock_ns: int) -> list[Logged]:
    """Facing east, 5 m/s north, 62 m up; PX4's clock begins at `clock_ns` when the flight does."""
    messages: list[Logged] = []
    for t, logged_at_ns, _ in toy_messages():
        if t == IMU:
            at_us = (clock_ns + logged_at_ns - 30 * MS - START_NS) // 1000
            q = np.array([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], np.float32)
            attitude = MORE.types[PX4_ATTITUDE_KIND](at_us, at_us, q)
            local = MORE.types[PX4_LOCAL_KIND](at_us, at_us, True, True, 5.0, 0.0, -1.0, 62.0, True)
            messages.append(("/fmu/out/vehicle_attitude", logged_at_ns, attitude))
            messages.append(("/fmu/out/vehicle_local_position", logged_at_ns, local))
    return messages


@pytest.mark.parametrize("clock_ns", [START_NS, 5_000_000_000])
def test_px4_messages_tell_attitude_height_and_velocity(tmp_path: Path, clock_ns: int) -> None:
    path = write_bag(tmp_path / "bag", [*without(IMU, HEIGHT, VELOCITY), *px4_messages(clock_ns)])
    telemetry = next(iter(open_flight(path).items())).telemetry
    assert angles_deg(telemetry) == pytest.approx((0, 0, 90), abs=1e-4)
    assert isinstance(telemetry, Telemetry)
    assert telemetry.height_above_ground_m == 62.0
    assert telemetry.velocity_ned_mps == pytest.approx((5, 0, -1))


def test_px4_stamps_count_only_in_our_clock() -> None:
    ours, since_boot = (m[2] for m in (px4_messages(START_NS)[0], px4_messages(5_000_000_000)[0]))
    assert ros.stamp_ns(ours, START_NS + 30 * MS) == START_NS
    assert ros.stamp_ns(since_boot, START_NS + 30 * MS) == START_NS + 30 * MS


def test_a_type_that_nobody_describes_is_named(tmp_path: Path) -> None:
    """An sqlite3 bag without its table of definitions, as Humble writes it."""
    path = write_bag(
        tmp_path / "bag", [*without(IMU, HEIGHT, VELOCITY), *px4_messages(START_NS)], StoragePlugin.SQLITE3
    )
    with sqlite3.connect(next(path.glob("*.db3"))) as database:
        database.execute("DELETE FROM message_definitions")
    with pytest.raises(FlightError) as raised:
        open_flight(path)
    told_in_one_line(raised, "/fmu/out/vehicle_attitude", PX4_ATTITUDE_KIND, "MCAP")


def test_what_our_own_node_published_is_neither_truth_nor_telemetry(tmp_path: Path) -> None:
    own = [("/pilotage/fix", at, body) for t, at, body in toy_messages() if t == FIX]
    own += [("/pilotage/odometry", at, odometry(at, (1, 0, 0, 0), (0, 0, 0))) for _, at, _ in own]
    own += [("/pilotage/debug_image", at, body) for t, at, body in toy_messages() if t == IMAGE]
    facts = open_flight(write_bag(tmp_path / "bag", [*without(FIX, VELOCITY), *own])).facts
    assert set(facts) == {"kind", "image", "camera_info", "attitude", "height", "mount"}
    assert IMAGE in facts["image"]


def test_images_of_a_second_camera_on_the_topic_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def from_two(i: int) -> Any:
        at_ns = START_NS + (150 + 500 * i) * MS
        return image(at_ns, jpeg(i)) if i != 1 else stamped(image(at_ns, jpeg(i)), header(at_ns, "thermal"))

    path = write_bag(tmp_path / "bag", changed(IMAGE, from_two))
    flight = open_flight(path)
    assert "notes" not in flight.facts
    times = [item.captured_at_ns - START_NS for item in flight.items()]
    assert times == [t * MS for t in (150, 1150, 1650)]
    assert flight.facts["notes"] == "image of another camera, frame_id 'thermal', left out (1)"
    assert len([r for r in caplog.records if "thermal" in r.message]) == 1
    list(flight.items())
    assert flight.facts["notes"].endswith("(1)")  # counted anew


def test_images_that_change_their_size_are_told(tmp_path: Path) -> None:
    made = changed(IMAGE, lambda i: image(START_NS + (150 + 500 * i) * MS, jpeg(i, (64, 48) if i < 2 else (32, 24))))
    flight = open_flight(write_bag(tmp_path / "bag", made))
    assert len(list(flight.items())) == 4
    assert flight.facts["notes"] == "image of another size, 32x24 (2)"


def stamped(body: Any, new_header: Any) -> Any:
    body.header = new_header
    return body


def test_a_stamp_of_zero_is_the_time_of_logging_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = [(t, at, stamped(body, header(0, "optical")) if t == IMAGE else body) for t, at, body in toy_messages()]
    flight = open_flight(write_bag(tmp_path / "bag", made))
    times = [item.captured_at_ns - START_NS for item in flight.items()]
    assert times == [t * MS for t in (150, 650, 1150, 1650)]
    assert "stamp of zero" in flight.facts["notes"]
    assert flight.facts["notes"].endswith("(4)")
    assert len([r for r in caplog.records if "stamp of zero" in r.message]) == 1


def raw_image(at_ns: int, encoding: str, pixels: np.ndarray) -> Any:
    return message(
        "sensor_msgs/msg/Image",
        header=header(at_ns, "optical"),
        height=48,
        width=64,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.size // 48,
        data=pixels.ravel(),
    )


def test_an_encoding_that_is_not_read_is_named_with_those_that_are(tmp_path: Path) -> None:
    depth = np.zeros((48, 128), np.uint8)
    made = [
        ("/camera/image_raw", at, raw_image(at, "16UC1", depth)) if t == IMAGE else (t, at, body)
        for t, at, body in toy_messages()
    ]
    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", made))
    told_in_one_line(raised, "/camera/image_raw", "16UC1", "bgr8", "--topic")


def test_a_compressed_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    def h264(i: int) -> Any:
        body = image(START_NS + (150 + 500 * i) * MS, np.arange(80, dtype=np.uint8))
        body.format = "h264"
        return body

    with pytest.raises(FlightError) as raised:
        open_flight(write_bag(tmp_path / "bag", changed(IMAGE, h264)))
    told_in_one_line(raised, IMAGE, "h264", "JPEG")


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_keep_their_colours(pattern: str) -> None:
    rgb = {"r": 200, "g": 120, "b": 40}
    cell = np.array([rgb[c] for c in pattern], np.uint8).reshape(2, 2)
    bgr = ros.image_bgr(raw_image(START_NS, f"bayer_{pattern}8", np.tile(cell, (24, 32))), ros.IMAGE)
    assert bgr is not None
    np.testing.assert_array_equal(bgr[10, 10], [40, 120, 200])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_or_scrambled_mcap_is_one_line_at_any_byte(tmp_path: Path, compressed: bool) -> None:
    whole = next(write_bag(tmp_path / "bag", toy_messages(), compressed=compressed).glob("*.mcap")).read_bytes()
    assert (b"zstd" in whole) == compressed
    broken = tmp_path / "broken.mcap"
    generator = np.random.default_rng(11)
    refused = 0
    for cut in (0, 3, 8, 60, *generator.integers(100, len(whole) - 1, 20)):
        broken.write_bytes(whole[:cut])
        with pytest.raises(FlightError) as raised:
            open_flight(broken)
        told_in_one_line(raised, "broken recording", "broken.mcap", "copy it again")
    for _ in range(60):
        scrambled = np.frombuffer(whole, np.uint8).copy()
        scrambled[generator.integers(0, len(whole), 20)] = generator.integers(0, 256, 20)
        broken.write_bytes(scrambled.tobytes())
        said = complaint(broken)
        assert "\n" not in said
        refused += said != ""
    assert refused > 5


def complaint(path: Path) -> str:
    """What a whole reading of a flight has to complain of; any other error than FlightError passes through."""
    try:
        flight = open_flight(path)
        list(flight.items())
        flight.truth()
    except FlightError as error:
        return str(error)
    return ""


def test_a_bag_that_breaks_off_within_is_told_while_it_is_replayed(tmp_path: Path) -> None:
    flight = open_flight(write_bag(tmp_path / "bag", toy_messages(), cut=(IMU, START_NS + 1730 * MS)))
    items = flight.items()
    seen = [next(items) for _ in range(3)]
    assert len(seen) == 3
    with pytest.raises(FlightError) as raised:
        next(items)
    told_in_one_line(raised, "broken recording", "bag")


def test_a_bag_folder_whose_file_is_gone_or_whose_metadata_is_junk_is_refused(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [1, 2")
    with pytest.raises(FlightError, match="broken recording"):
        open_flight(bag)
    next(bag.glob("*.mcap")).unlink()
    with pytest.raises(FlightError, match="broken recording"):
        open_flight(bag)


# Photos


def xmp_packet(**tags: object) -> bytes:
    inside = " ".join(f'{name.replace("__", ":").replace("_", "-")}="{value}"' for name, value in tags.items())
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {inside}/></x:xmpmeta>'.encode()


DJI = {
    "drone_dji__GimbalYawDegree": "+42.80",
    "drone_dji__GimbalPitchDegree": "-90.00",
    "drone_dji__GimbalRollDegree": "+0.00",
    "drone_dji__RelativeAltitude": "+80.50",
}


def make_photo(
    path: Path,
    when: str = "2024:05:06 07:08:09",
    place: tuple[float, float] | None = (46.5, -91.25),
    xmp: dict[str, str] = DJI,
    **exif_tags: Any,
) -> Path:
    """A 64 x 48 JPEG with EXIF and XMP; `exif_tags` by number as tag_0x...."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "DJI", "FC0000"
    exif[0x8769] = {0x9003: when, 0xA405: 24, **{int(name[4:], 16): value for name, value in exif_tags.items()}}
    if place is not None:
        parts = [(IFDRational(int(abs(v))), IFDRational(round(abs(v) % 1 * 3600 * 1000), 60_000), 0) for v in place]
        gps = {1: "N" if place[0] >= 0 else "S", 2: parts[0], 3: "E" if place[1] >= 0 else "W", 4: parts[1]}
        exif[0x8825] = {**gps, 5: b"\x00", 6: IFDRational(3000, 10)}
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture()).save(path, exif=exif, quality=90)
    segment = b"http://ns.adobe.com/xap/1.0/\x00" + xmp_packet(**xmp)
    jpeg_bytes = path.read_bytes()
    path.write_bytes(jpeg_bytes[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg_bytes[2:])
    return path


def pilotage(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from onboard.cli import main; sys.argv[0] = 'pilotage'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def rows_of(flight: Path) -> list[dict[str, str]]:
    with (flight / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("gimbal_yaw_pitch_roll_deg", "expected_roll_pitch_yaw_deg"),
    [
        ((0, -90, 0), (0, 0, 0)),
        ((42.8, -90, 0), (0, 0, 42.8)),
        ((0, -60, 0), (0, 30, 0)),  # the optical axis leans to the top of the image, forward
        ((-100, -60, 0), (0, 30, 260)),
        ((30, -90, 180), (0, 0, 210)),  # a gimbal that tells half a turn as roll
        ((0, -100, 0), (0, -10, 0)),  # past straight down: leans to the bottom of the image
    ],
)
def test_gimbal_angles_golden_vectors(
    gimbal_yaw_pitch_roll_deg: tuple[float, float, float], expected_roll_pitch_yaw_deg: tuple[float, float, float]
) -> None:
    got = attitude_from_gimbal(*gimbal_yaw_pitch_roll_deg)
    assert got.yaw_deg is not None
    expected_roll, expected_pitch, expected_yaw = expected_roll_pitch_yaw_deg
    assert (got.roll_deg, got.pitch_deg) == pytest.approx((expected_roll, expected_pitch), abs=1e-9)
    assert (got.yaw_deg - expected_yaw + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)


def test_a_gimbal_at_minus_60_sees_the_ground_ahead() -> None:
    got = attitude_from_gimbal(90.0, -60.0, 0.0)
    assert got.yaw_deg is not None
    radians = [math.radians(a) for a in (got.roll_deg, got.pitch_deg, got.yaw_deg)]
    optical_ned = rotation_from_euler(*radians) @ BODY_FROM_CAMERA_DOWN @ np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(optical_ned, [0, 0.5, math.sqrt(0.75)], atol=1e-9)  # east, 60 degrees below level


def test_xmp_is_read_as_attributes_and_as_elements() -> None:
    raw = b'<a drone-dji:GimbalYawDegree="+10.0"/><drone-dji:GimbalPitchDegree>-80.0</drone-dji:GimbalPitchDegree>'
    attitude = attitude_from_xmp(parse_xmp(raw))
    assert (attitude.pitch_deg, attitude.yaw_deg) == pytest.approx((10.0, 10.0))


def test_without_angles_a_photo_is_level_and_its_heading_unknown() -> None:
    assert attitude_from_xmp({}).yaw_deg is None
    flight_yaw = attitude_from_xmp({"drone-dji:FlightYawDegree": "-90"})
    assert (flight_yaw.roll_deg, flight_yaw.pitch_deg, flight_yaw.yaw_deg) == (0, 0, 270)
    parrot = attitude_from_xmp({"Camera:Yaw": "5", "Camera:Pitch": "2", "Camera:Roll": "-3"})
    assert (parrot.roll_deg, parrot.pitch_deg, parrot.yaw_deg) == (-3, 2, 5)


def test_photos_become_a_flight_folder_that_opens(tmp_path: Path) -> None:
    make_photo(tmp_path / "photos/B.JPG", "2024:05:06 07:08:11", (-46.5, 91.25))
    make_photo(tmp_path / "photos/A.JPG", "2024:05:06 07:08:09")
    ran = pilotage("flight", "from-photos", tmp_path / "photos", "--out", tmp_path / "flight")
    assert ran.returncode == 0, ran.stderr
    assert "2 photos, 80.5 to 80.5 m above ground by DJI RelativeAltitude" in ran.stdout
    flight = open_flight(tmp_path / "flight")
    items = list(flight.items())
    assert [item.source for item in items] == ["photos/A.JPG", "photos/B.JPG"]
    assert items[0].captured_at_ns == 1_714_979_289_000_000_000  # 2024-05-06T07:08:09Z
    assert angles_deg(items[0].telemetry) == pytest.approx((0, 0, 42.8), abs=1e-3)
    truth = flight.truth()
    assert truth is not None
    assert truth.at(items[0].captured_at_ns) == pytest.approx((46.5, -91.25), abs=1e-6)
    assert truth.at(items[1].captured_at_ns) == pytest.approx((-46.5, 91.25), abs=1e-6)
    assert flight.camera.focal_px == pytest.approx(24 / 36 * 64)
    assert (tmp_path / "flight/photos/A.JPG").read_bytes() == (tmp_path / "photos/A.JPG").read_bytes()
    told = pilotage("flight", "info", tmp_path / "flight")
    assert told.returncode == 0, told.stderr
    assert "2 frames in 2.0 s" in told.stdout
    assert "truth: 2 positions" in told.stdout


def test_a_photo_without_gps_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    make_photo(tmp_path / "photos/A.JPG")
    make_photo(tmp_path / "photos/B.JPG", "2024:05:06 07:08:11", place=None)
    ran = pilotage("flight", "from-photos", tmp_path / "photos", "--out", tmp_path / "flight")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "B.JPG" in ran.stderr
    assert "--skip-without-gps" in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]
    summary = flight_from_photos([tmp_path / "photos"], tmp_path / "flight", PhotoOptions(skip_without_gps=True))
    assert (summary.photos, summary.skipped) == (1, 1)


@pytest.mark.parametrize("place", [(0.0, 0.0), None])
def test_null_island_is_no_place(tmp_path: Path, place: tuple[float, float] | None) -> None:
    assert read_photo(make_photo(tmp_path / "a.jpg", place=place)).latitude_deg is None


def test_heights_come_from_options_before_tags_and_are_never_guessed(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.jpg")
    for i, (options, expected) in enumerate(
        [
            (PhotoOptions(), "80.500"),
            (PhotoOptions(height_above_ground_m=70.0), "70.000"),
            (PhotoOptions(ground_altitude_m=180.0), "120.000"),
        ]
    ):
        flight_from_photos([photo], tmp_path / f"flight{i}", options)
        assert rows_of(tmp_path / f"flight{i}")[0]["height_above_ground_m"] == expected
    bare = make_photo(tmp_path / "bare.jpg", xmp={})
    with pytest.raises(FlightError) as raised:
        flight_from_photos([bare], tmp_path / "none")
    told_in_one_line(raised, "bare.jpg", "--ground-altitude-m", "--height-above-ground-m")
    assert not (tmp_path / "none").exists()


def test_times_are_strictly_rising_and_know_zones_and_subseconds(tmp_path: Path) -> None:
    photos = [make_photo(tmp_path / f"{i}.jpg") for i in range(4)]
    flight_from_photos(photos, tmp_path / "same_second")
    times = [int(row["captured_at_ns"]) for row in rows_of(tmp_path / "same_second")]
    assert [t - times[0] for t in times] == [0, 250 * MS, 500 * MS, 750 * MS]
    zoned = read_photo(make_photo(tmp_path / "zoned.jpg", tag_0x9011="+02:00", tag_0x9291="306746"))
    assert zoned.captured_at_ns == times[0] - 7200 * 10**9 + 306_746_000
    with pytest.raises(FlightError, match=r"time of .*undated"):
        read_photo(make_photo(tmp_path / "undated.jpg", when="0000:00:00 00:00:00"))


def test_cards_that_count_from_the_start_again_keep_all_their_photos(tmp_path: Path) -> None:
    make_photo(tmp_path / "card1/DJI_0001.JPG")
    make_photo(tmp_path / "card2/DJI_0001.JPG", "2024:05:06 07:20:00")
    flight_from_photos([tmp_path / "card1", tmp_path / "card2"], tmp_path / "flight")
    assert [row["file"] for row in rows_of(tmp_path / "flight")] == [
        "photos/DJI_0001.JPG",
        "photos/card2_DJI_0001.JPG",
    ]


def test_the_lens_comes_from_the_best_tags(tmp_path: Path) -> None:
    dewarp = {**DJI, "drone_dji__DewarpData": "2021-01-01;100,102,1,-2,0.1,0.2,0.3,0.4,0.5"}
    shrunk = {"tag_0xa002": 128, "tag_0xa003": 96}  # the tags speak of an original twice as large
    flight_from_photos([make_photo(tmp_path / "a.jpg", xmp=dewarp, **shrunk)], tmp_path / "dewarp")
    camera = CameraModel.from_yaml(tmp_path / "dewarp/camera.yaml")
    assert camera.distortion == (0.1, 0.2, 0.3, 0.4, 0.5)
    np.testing.assert_allclose(camera.matrix, [[50, 0, 32], [0, 51, 22.5], [0, 0, 1]])
    plane = {"tag_0x920a": 4.0, "tag_0xa20e": 11.0, "tag_0xa210": 4}  # 4 mm, 11 px per mm
    flight_from_photos([make_photo(tmp_path / "b.jpg", **plane)], tmp_path / "plane")
    assert CameraModel.from_yaml(tmp_path / "plane/camera.yaml").focal_px == pytest.approx(44.0)
    CAMERA.to_yaml(tmp_path / "mine.yaml")
    flight_from_photos([tmp_path / "a.jpg"], tmp_path / "mine", PhotoOptions(camera_yaml=tmp_path / "mine.yaml"))
    assert CameraModel.from_yaml(tmp_path / "mine/camera.yaml").distortion == CAMERA.distortion
    with pytest.raises(FlightError, match="no focal length"):
        flight_from_photos([make_photo(tmp_path / "c.jpg", tag_0xa405=0)], tmp_path / "none")


def test_photos_of_two_cameras_or_an_existing_folder_are_refused(tmp_path: Path) -> None:
    a = make_photo(tmp_path / "a.jpg")
    b = tmp_path / "b.jpg"
    with Image.open(a) as opened:
        opened.resize((32, 24)).save(b, exif=opened.getexif())
    with pytest.raises(FlightError) as raised:
        flight_from_photos([a, b], tmp_path / "flight", PhotoOptions(height_above_ground_m=50.0))
    told_in_one_line(raised, "another camera", "32x24", "64x48")
    (tmp_path / "flight").mkdir()
    with pytest.raises(FlightError, match="output is there already"):
        flight_from_photos([a], tmp_path / "flight")
    assert list((tmp_path / "flight").iterdir()) == []


def test_what_is_no_photo_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no more")
    for photos, words in (
        (tmp_path / "a.jpg", "unreadable photo"),
        (tmp_path / "nowhere", "no photos"),
        (tmp_path, "unreadable photo"),
    ):
        ran = pilotage("flight", "from-photos", photos, "--out", tmp_path / "flight")
        assert ran.returncode == 2
        assert words in ran.stderr
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "flight").exists()


def difference_deg(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


# By set: how far tags may lie from the poses found in the images: median tilt, median yaw, focal length as a share.
REAL = {"brighton": (2.0, 4.0, 0.05), "chia": (1.0, 3.0, 0.02), "garfield": (8.0, 7.0, 0.002)}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real flights: {DATA} is not there")
def test_real_photos_agree_with_the_poses_found_in_their_images(tmp_path: Path, name: str) -> None:
    max_tilt_deg, max_yaw_deg, max_focal = REAL[name]
    options = PhotoOptions(ground_altitude_m=229.0) if name == "garfield" else PhotoOptions()
    flight_from_photos([DATA / name / "photos"], tmp_path / "flight", options)
    rows = {Path(row["file"]).name: row for row in rows_of(tmp_path / "flight")}
    with (DATA / name / "poses.csv").open(newline="") as file:
        poses = list(csv.DictReader(file))
    assert len(rows) == len(poses)
    tilts, yaws, metres = [], [], []
    for pose in poses:
        row = rows[pose["file"]]
        roll = float(row["roll_deg"]) + float(pose["roll_deg"])  # poses.csv counts roll to the right
        tilts.append(math.hypot(roll, float(row["pitch_deg"]) - float(pose["pitch_deg"])))
        yaws.append(difference_deg(float(row["yaw_deg"]), float(pose["yaw_deg"])))
        metres.append(abs(float(row["latitude_deg"]) - float(pose["exif_latitude_deg"])) * 111_000)
        assert abs(int(row["captured_at_ns"]) - int(pose["captured_at_ns"])) < 1000
    assert np.median(tilts) < max_tilt_deg
    assert np.median(yaws) < max_yaw_deg
    assert max(metres) < 0.01
    made, found = (CameraModel.from_yaml(path / "camera.yaml") for path in (tmp_path / "flight", DATA / name))
    assert made.focal_px == pytest.approx(found.focal_px, rel=max_focal)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real flights: {DATA} is not there")
def test_real_flight_folders_open(name: str) -> None:
    flight = open_flight(DATA / name)
    items = list(flight.items())
    truth = flight.truth()
    assert len(items) == flight.frame_count > 0
    assert truth is not None
    for item in items:
        assert item.frame is not None
        assert isinstance(item.telemetry, Telemetry)
        assert truth.at(item.captured_at_ns) is not None
