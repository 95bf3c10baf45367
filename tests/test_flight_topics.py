"""Which topics of a bag tell what: as told, by MAVROS, by odometry, by PX4, and never by our own node."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from toy_bag import (
    ALTITUDE_KIND,
    FACING_NORTH_ENU,
    FIX,
    HEIGHT,
    HOME_KIND,
    IMAGE,
    IMU,
    MORE,
    PX4_ATTITUDE_KIND,
    PX4_LOCAL_KIND,
    VELOCITY,
    Logged,
    header,
    height,
    message,
    odometry,
    pose,
    quaternion,
    toy_messages,
    vector,
    without,
    write_bag,
)
from toy_flight import MS, START_NS, angles_deg, told_in_one_line

from onboard.errors import ConfigError, FlightError
from onboard.flight import Topics, open_flight, ros
from onboard.flight.choose import parse_topics
from onboard.records import HeightReference, Telemetry


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


def home_position(at_ns: int, latitude_deg: float, longitude_deg: float) -> Any:
    geo = MORE.types["geographic_msgs/msg/GeoPoint"](latitude_deg, longitude_deg, 400.0)
    point = message("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
    return MORE.types[HOME_KIND](header(at_ns), geo, point, quaternion(1, 0, 0, 0), vector(0, 0, 0))


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_heights_of_mavros_are_above_the_home_that_it_tells(tmp_path: Path, plugin: StoragePlugin) -> None:
    rel = "/mavros/global_position/rel_alt"
    heights = [(rel, at, message("std_msgs/msg/Float64", data=90.0)) for t, at, _ in toy_messages() if t == HEIGHT]
    topic = "/mavros/home_position/home"
    homes = [(topic, START_NS, home_position(START_NS, 10.5, 20.5))]
    with_home = open_flight(write_bag(tmp_path / "home", [*without(HEIGHT), *heights, *homes], plugin))
    assert topic in with_home.facts["home"]
    for flight, home in (
        (with_home, (10.5, 20.5)),
        (open_flight(write_bag(tmp_path / "none", [*without(HEIGHT), *heights], plugin)), None),
    ):
        told = [item.telemetry for item in flight.items()]
        assert told
        for telemetry in told:
            assert isinstance(telemetry, Telemetry)
            assert telemetry.height_above_ground_m == 90.0
            assert (telemetry.height_reference, telemetry.home_deg) == (HeightReference.HOME, home)


def test_a_rangefinder_is_above_ground_whatever_home_is(tmp_path: Path) -> None:
    homes = [("/mavros/home_position/home", START_NS, home_position(START_NS, 10.5, 20.5))]
    told = next(iter(open_flight(write_bag(tmp_path / "bag", [*toy_messages(), *homes])).items())).telemetry
    assert isinstance(told, Telemetry)
    assert (told.height_reference, told.home_deg) == (HeightReference.GROUND, None)


@pytest.mark.parametrize(("clearance_m", "above"), [(61.5, "ground"), (math.nan, "home"), (-1.0, "home")])
def test_mavros_altitude_says_by_its_clearance_what_it_is_above(clearance_m: float, above: str) -> None:
    told = altitude(START_NS, clearance_m)
    assert ros.height_reference(told, ALTITUDE_KIND, "/mavros/altitude").value == above
