"""The ROS node's parts that need no ROS: conversions, parameters, what comes in, what is said of it.

Messages are those of `rosbags`, serialized and read again as a running system would have them.
"""

from __future__ import annotations

import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_world
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from onboard import __version__
from onboard.config import Config
from onboard.errors import ConfigError, MapError
from onboard.flight import ros
from onboard.frames import BODY_FROM_CAMERA_DOWN
from onboard.live.worker import FrameItem, WorkerStatus
from onboard.records import Estimate, Reason, State, Step, Telemetry
from onboard.region import RegionMap
from onboard.replay.mcap import ResultsBag

PACKAGE = Path(__file__).resolve().parents[1] / "ros2_ws" / "src" / "pilotage_ros"
sys.path.insert(0, str(PACKAGE))  # installed by colcon, where there is ROS

from pilotage_ros import diagnostics, messages, parameters, readings  # noqa: E402
from pilotage_ros.brain import Brain, on_map, start_on_map  # noqa: E402
from pilotage_ros.intake import Intake, is_rectified  # noqa: E402
from pilotage_ros.troubles import Trouble, Troubles  # noqa: E402

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


@pytest.fixture
def troubles() -> Troubles:
    return Troubles()


@pytest.fixture
def intake(troubles: Troubles) -> Intake:
    return Intake(deserialized, troubles)


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


# ---- what comes in


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


# ---- what is said of it


def test_a_trouble_is_told_once_when_it_begins_and_once_when_it_ends(troubles: Troubles) -> None:
    for k in range(100):
        troubles.strike(Trouble.WRONG_ENCODING, T0 + k * S // 10, "'yuv422'")
    troubles.expire(T0 + 12 * S)
    [change] = troubles.changes()
    assert change.line == "image encoding not known: 'yuv422'"
    troubles.expire(T0 + 13 * S)
    assert [(c.began, c.line) for c in troubles.changes()] == [(False, "over: image encoding not known")]
    assert troubles.changes() == []


def test_diagnostics_name_the_troubles_and_how_bad_they_are(intake: Intake, troubles: Troubles) -> None:
    assert diagnostics.input_status(intake, troubles.now()).level is diagnostics.Level.OK
    troubles.set(Trouble.NO_MOUNT, True, "base_link to lens")
    assert diagnostics.input_status(intake, troubles.now()).level is diagnostics.Level.WARN
    troubles.set(Trouble.NO_CAMERA_INFO, True)
    status = diagnostics.input_status(intake, troubles.now())
    assert status.level is diagnostics.Level.ERROR
    assert (
        status.message == "no static transform from the body to the camera: base_link to lens; no camera_info arrives"
    )


def test_diagnostics_tell_state_reason_rates_and_latency() -> None:
    last = step(None, State.ACQUIRING, Reason.WEAK_MATCH)
    worker = WorkerStatus(10, 4, 6, last, 2.0, (80.0, 95.0), (60.0, 70.0), 0.5, None, "")
    status = diagnostics.localizer_status(worker, {"weak_match": 3}, 1.5)
    assert (status.level, status.message) == (diagnostics.Level.WARN, "acquiring: weak_match")
    assert status.values["frames dropped"] == "6"
    assert status.values["latency, 95 % [ms]"] == "95.00"
    assert status.values["no fix: weak_match"] == "3"
    filled = diagnostics.write_status(Blank(), status, lambda key, value: (key, value))
    assert (filled.level, filled.name) == (b"\x01", "pilotage: localizer")
    assert ("rate [Hz]", "2.00") in filled.values


# ---- what goes out


def test_what_the_node_publishes_is_what_replay_writes_into_its_results(tmp_path: Path) -> None:
    told = step(estimate())
    bag = ResultsBag(toy_world.PLACE)
    bag.add(told)
    bag.write(tmp_path / "results.mcap")
    with AnyReader([tmp_path / "results.mcap"]) as reader:
        written = {c.topic.split("/")[-1]: reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages()}
    assert told.estimate is not None
    degrees = toy_world.PLACE.geodetic_from_enu(told.estimate.position_enu_m)
    ours = {
        "fix": messages.write_fix(Blank(), told.estimate, degrees, "base_link"),
        "pose": messages.write_pose(Blank(), told.estimate, "map"),
        "odometry": messages.write_odometry(Blank(), told.estimate, "map", "base_link"),
        "ellipse": messages.write_ellipse(Blank(), told, "map"),
    }
    for name, message in ours.items():
        assert_same(message, written[name], name)


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    """Every field that we set has the very value that they have."""
    for field, value in vars(ours).items():
        other, name = getattr(theirs, field), f"{where}.{field}"
        if isinstance(value, Blank):
            assert_same(value, other, name)
        elif isinstance(value, str):
            assert value == other, name
        else:
            as_stored = np.float32(value) if ".color." in name else value
            np.testing.assert_array_equal(as_stored, other, err_msg=name)


def test_a_step_without_an_estimate_takes_the_ellipse_away() -> None:
    delete = STORE.types["visualization_msgs/msg/Marker"].DELETE
    assert messages.write_ellipse(Blank(), step(None, State.LOST), "map").action == delete


@pytest.mark.parametrize("heading_deg", [0.0, 33.0, 180.0, -90.0])
def test_map_from_odom_takes_the_body_to_where_the_map_says_it_is(heading_deg: float) -> None:
    """Whatever the odometry's own drift: map <- odom <- body is the estimate's place and heading."""
    told = estimate(math.radians(heading_deg))
    yaw_in_odom, x, y = 2.2, 7.0, -3.0
    odom_from_body = Blank()
    turn, place = odom_from_body.rotation, odom_from_body.translation
    turn.x, turn.y, turn.z, turn.w = 0.0, 0.0, math.sin(yaw_in_odom / 2), math.cos(yaw_in_odom / 2)
    place.x, place.y, place.z = x, y, 55.0
    found = messages.map_from_odom(told, odom_from_body)
    assert found is not None
    east, north, yaw = found
    sin, cos = math.sin(yaw), math.cos(yaw)
    assert (east + cos * x - sin * y, north + sin * x + cos * y) == pytest.approx((120.0, -45.0))
    forward = yaw + yaw_in_odom
    assert (math.sin(forward), math.cos(forward)) == pytest.approx(
        (
            math.cos(told.heading_rad),
            math.sin(told.heading_rad),
        )  # clockwise from north, against anticlockwise from east
    )
    message = messages.write_transform(Blank(), T0, found, "map", "odom")
    assert (message.header.frame_id, message.child_frame_id) == ("map", "odom")


def test_a_heading_that_was_not_measured_moves_no_transform() -> None:
    odom_from_body = Blank()
    turn, place = odom_from_body.rotation, odom_from_body.translation
    turn.x, turn.y, turn.z, turn.w = 0.0, 0.0, 0.0, 1.0
    place.x, place.y, place.z = 0.0, 0.0, 0.0
    assert messages.map_from_odom(estimate(math.nan), odom_from_body) is None
    turn.w = 0.0  # no rotation
    assert messages.map_from_odom(estimate(), odom_from_body) is None


def test_mavros_is_told_the_vehicles_own_attitude_and_velocity_in_the_body() -> None:
    """Facing east, flying 3 m/s east and 4 m/s north: 3 ahead and 4 to the left."""
    east = toy_world.quaternion(0.0, 0.0, 90.0)
    message = messages.write_mavros_odometry(Blank(), estimate(), east, "map", "base_link")
    q = message.pose.pose.orientation
    assert (q.w, q.x, q.y, q.z) == pytest.approx((1.0, 0.0, 0.0, 0.0))
    assert message.pose.pose.position.z == 88.0
    linear = message.twist.twist.linear
    assert (linear.x, linear.y, linear.z) == pytest.approx((3.0, 4.0, 0.0))
    covariance = message.twist.covariance.reshape(6, 6)
    np.testing.assert_allclose(covariance[:2, :2], [[0.25, 0.1], [0.1, 0.5]], atol=1e-9)
    pose = messages.write_mavros_pose(Blank(), estimate(), toy_world.quaternion(0.0, 0.0, 0.0), "map")
    assert pose.pose.pose.orientation.z == pytest.approx(math.sqrt(0.5))  # north is left of east
    assert pose.pose.covariance[35] > 30  # a yaw that was not measured is not told as one


# ---- parameters


def test_every_setting_is_a_parameter_under_its_own_words() -> None:
    names = {spec.name for spec in parameters.config_specs()}
    assert names == {f"{section}.{key}" for section, keys in Config().to_dict().items() for key in keys}


def test_a_settings_comment_is_its_description_and_its_name_gives_the_unit() -> None:
    by_name = {spec.name: spec for spec in parameters.config_specs()}
    coast = by_name["track.coast_s"]
    assert coast.description == "the longest that an estimate may live on motion alone [seconds]"
    assert "[share]" in by_name["fix.min_probability_right"].description
    assert by_name["rectify.max_tilt_deg"].high == 180.0
    assert all(spec.description for spec in parameters.all_specs())


def test_every_default_lies_in_its_range_and_every_end_of_a_range_is_a_valid_setting() -> None:
    for spec in parameters.config_specs():
        if spec.low is None or spec.high is None:
            continue
        kind = type(spec.default)
        assert spec.low <= float(spec.default) <= spec.high, spec.name
        for end in (spec.low, spec.high):
            parameters.config_of({spec.name: kind(end)})


def test_parameters_become_the_config_they_were_made_of() -> None:
    values = {spec.name: spec.default for spec in parameters.all_specs()}
    assert parameters.config_of(values) == Config()
    assert parameters.config_of(values | {"track.coast_s": 5.0}).track.coast_s == 5.0


def test_a_change_is_refused_with_its_reason() -> None:
    specs = parameters.all_specs()
    present = {spec.name: spec.default for spec in specs}

    def why(active: bool = False, **changes: Any) -> str:
        return parameters.why_not(specs, present, {k.replace("__", "."): v for k, v in changes.items()}, active)

    assert why(track__coast_s=5.0) == ""
    assert (
        why(True, track__coast_s=5.0) == "track.coast_s cannot be changed while the node is active: deactivate it first"
    )
    assert why(True, track__coast_s=present["track.coast_s"]) == ""  # no change
    assert why(True, start="47,8") == ""
    assert why(True, use_sim_time=True) == ""  # not ours
    assert "expected 1 to 100" in why(link__rate_hz=0.0)
    assert "expected one of auto" in why(image_type="sensor_msgs/msg/PointCloud2")


# ---- model, map and localizer


@pytest.fixture
def brain(hand_engine: toy_world.HandEngine, hand_map: RegionMap) -> Brain:
    made = Brain(hand_engine, hand_map, toy_world.HAND_CONFIDENCE, Config())  # type: ignore[arg-type]
    made.build(toy_world.toy_camera(), BODY_FROM_CAMERA_DOWN)
    return made


def test_a_reset_forgets_the_track_and_nothing_else(brain: Brain, world: toy_world.World) -> None:
    def fly(moments: list[toy_world.Moment]) -> list[Step]:
        return [brain.step(m.frame, m.telemetry, m.frame.captured_at_ns, m.frame.source) for m in moments]

    moments = toy_world.make_flight(world, 8)
    assert fly(moments[:5])[-1].state is State.TRACKING
    brain.reset()
    assert fly(moments[5:6])[0].state is not State.TRACKING
    brain.start_at(moments[0].position_enu_m)
    again = fly(moments)
    assert again[-1].published
    assert again[-1].estimate is not None
    assert float(np.hypot(*(again[-1].estimate.position_enu_m - moments[-1].position_enu_m))) < 8.0


def test_another_map_is_taken_and_a_bad_one_leaves_the_old(brain: Brain, hand_map: RegionMap, tmp_path: Path) -> None:
    brain.start_at(np.zeros(2))
    with pytest.raises(MapError):
        brain.load_map(str(tmp_path))
    assert brain.region is hand_map
    assert brain.start_enu_m is not None
    brain.load_map(str(hand_map.path))
    assert brain.region is not hand_map
    assert brain.start_enu_m is None


@pytest.mark.parametrize("start", ["here", "1,2,3", "95,0", "nan,0", "0,0"])
def test_a_start_that_is_no_place_on_the_map_is_an_error_in_one_line(hand_map: RegionMap, start: str) -> None:
    with pytest.raises(ConfigError) as error:
        start_on_map(start, hand_map)
    assert "\n" not in str(error.value)


def test_a_start_on_the_map_is_found_in_its_frame(hand_map: RegionMap) -> None:
    assert start_on_map("", hand_map) is None
    latitude, longitude = hand_map.frame.geodetic_from_enu(np.array([30.0, -20.0]))
    np.testing.assert_allclose(start_on_map(f"{latitude:.9f},{longitude:.9f}", hand_map), [30.0, -20.0], atol=1e-3)
    np.testing.assert_array_equal(on_map(np.array([1.0, 2.0]), hand_map), [1.0, 2.0])


# ---- the package


def test_the_package_is_one_that_colcon_takes_for_ament_python() -> None:
    """An odd e-mail in package.xml makes colcon build it as plain Python, silently."""
    manifest = ElementTree.parse(PACKAGE / "package.xml").getroot()
    mail = manifest.find("maintainer").get("email")  # type: ignore[union-attr]
    assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", mail or "")
    assert manifest.findtext("export/build_type") == "ament_python"
    assert (PACKAGE / "resource" / "pilotage_ros").is_file()
    set_up = (PACKAGE / "setup.py").read_text()
    assert f'version="{manifest.findtext("version")}"' in set_up
    assert f'email="{mail}"' in set_up
    assert manifest.findtext("version") == __version__


def test_the_parts_tested_here_import_no_ros() -> None:
    names = {name.split(".")[0] for name in sys.modules}
    if "rclpy" not in names:  # where ROS is sourced, other tests may have imported it
        assert not names & {"rcl_interfaces", "sensor_msgs", "geometry_msgs", "tf2_ros"}
    pure = ("intake", "readings", "messages", "troubles", "brain", "diagnostics")
    texts = [(PACKAGE / "pilotage_ros" / f"{name}.py").read_text() for name in pure]
    assert not any(re.search(r"^\s*(import|from) (rclpy|\w+_msgs|tf2_ros)", text, re.MULTILINE) for text in texts)
