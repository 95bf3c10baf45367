"""Fixes leave for the flight controller: fields against golden vectors, the link, the peer, and the check of both."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.config import Config, merge
from onboard.errors import ConfigError, LinkError
from onboard.frames import MapFrame, quaternion_from_euler
from onboard.mavlink import ListenerProcess, MavlinkLink, Withheld, profile_named
from onboard.mavlink.peer.listener import Listener
from onboard.mavlink.peer.received import Received, decode, read_csv
from onboard.mavlink.peer.verify import verify
from onboard.mavlink.tell import commands, messages
from onboard.mavlink.tell.place import Home, Reference
from onboard.mavlink.tell.profile import PROFILES, profile_for
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.wire.sender import Pace, PacedSender
from onboard.mavlink.wire.transport import Address, open_transport, parse_address
from onboard.records import Estimate, Telemetry

LATITUDE, LONGITUDE, ALTITUDE = 47.3977419, 8.5455938, 488.1
START_NS = 1_760_000_000_123_456_789  # 2025-10-09 08:53:20.123456789 UTC, a Thursday
EAST_M, NORTH_M = 20.0, 10.0
# The same place in ArduPilot's metres, whose degree is that of a sphere of 6,378,100 m; the ellipsoid's radii of
# curvature at this latitude are 6,370,064 m along the meridian and 6,389,735 m across.
FLAT_NORTH_M, FLAT_EAST_M = 10.0 * 6_378_100 / 6_370_064, 20.0 * 6_378_100 / 6_389_735
FLOAT32 = 2.0**-23


def frame() -> MapFrame:
    return MapFrame(LATITUDE, LONGITUDE)


def reference() -> Reference:
    return Reference(Home.at(LATITUDE, LONGITUDE, ALTITUDE), frame())


def estimate(**changes: object) -> Estimate:
    """10 m north and 20 m east of the origin, 50 m up, moving east at 5 m/s."""
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = [[4.0, 1.5], [1.5, 9.0]]  # east, north
    covariance[2:, 2:] = [[0.25, 0.02], [0.02, 0.16]]
    values: dict = {
        "valid_at_ns": START_NS,
        "position_enu_m": np.array([EAST_M, NORTH_M]),
        "velocity_enu_mps": np.array([5.0, 0.0]),
        "covariance": covariance,
        "heading_rad": math.nan,
        "height_above_ground_m": 50.0,
        "probability_right": 0.987,
    }
    return Estimate(**(values | changes))


def telemetry(roll_deg: float = 0.0, pitch_deg: float = 0.0, yaw_deg: float = 90.0, **changes: object) -> Telemetry:
    angles = (math.radians(a) for a in (roll_deg, pitch_deg, yaw_deg))
    return dataclasses.replace(Telemetry(START_NS, quaternion_from_euler(*angles), 50.0), **changes)


def over_the_wire(message: mav.MAVLink_message) -> mav.MAVLink_message:
    """What the other end makes of it: packed, parsed, float32."""
    parser = mav.MAVLink(None)
    (result,) = parser.parse_buffer(message.pack(mav.MAVLink(None, srcSystem=1, srcComponent=197)))
    return result


def wait_for(condition, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


# --- fields -----------------------------------------------------------------------------------------------------


def test_odometry_of_a_vehicle_north_east_and_up_that_flies_east_with_its_nose_to_the_east() -> None:
    message = over_the_wire(messages.odometry(estimate(), telemetry(), reference(), reset_counter=3))
    assert (message.frame_id, message.child_frame_id) == (20, 12)
    assert message.time_usec == START_NS // 1000
    assert [message.x, message.y, message.z] == pytest.approx([FLAT_NORTH_M, FLAT_EAST_M, -50.0], abs=0.006)  # of degE7
    assert [message.vx, message.vy, message.vz] == pytest.approx([5.0, 0.0, 0.0], abs=1e-6)
    assert message.q == pytest.approx([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)], abs=1e-6)
    assert message.quality == 99
    assert message.estimator_type == mav.MAV_ESTIMATOR_TYPE_VISION
    assert message.reset_counter == 3
    assert all(math.isnan(rate) for rate in (message.rollspeed, message.pitchspeed, message.yawspeed))


@pytest.mark.parametrize(
    ("yaw_deg", "body_mps"), [(0, (0.0, 5.0)), (90, (5.0, 0.0)), (180, (0.0, -5.0)), (-90, (-5.0, 0.0))]
)
def test_the_velocity_is_turned_by_the_heading(yaw_deg: float, body_mps: tuple[float, float]) -> None:
    message = messages.odometry(estimate(), telemetry(yaw_deg=yaw_deg), reference())
    assert (message.vx, message.vy) == pytest.approx(body_mps, abs=1e-9)


def test_the_firmware_gets_the_ned_velocity_back_by_the_q_of_the_message() -> None:
    climbing = telemetry(12.0, -7.0, 33.0, velocity_ned_mps=(1.0, 2.0, -1.5))
    message = over_the_wire(messages.odometry(estimate(velocity_enu_mps=np.array([5.0, -3.0])), climbing, reference()))
    w, x, y, z = message.q
    v, u = np.array([message.vx, message.vy, message.vz]), np.array([x, y, z])
    back = v + 2 * w * np.cross(u, v) + 2 * np.cross(u, np.cross(u, v))  # q * v, as ArduPilot does it
    assert back == pytest.approx([-3.0, 5.0, -1.5], abs=1e-5)


def test_an_unknown_vertical_speed_is_zero_for_a_nan_would_spread_over_all_axes() -> None:
    for unknown in (None, (0.0, 0.0, math.nan)):
        message = messages.odometry(estimate(), telemetry(20.0, velocity_ned_mps=unknown), reference())
        assert math.isfinite(message.vx + message.vy + message.vz)


def test_pose_covariance_has_north_before_east_and_numbers_where_the_firmware_limits_them() -> None:
    upper = over_the_wire(messages.odometry(estimate(), telemetry(), reference())).pose_covariance
    assert len(upper) == 21
    assert (upper[1] / upper[0], upper[6] / upper[0]) == pytest.approx((1.5 / 9.0, 4.0 / 9.0), rel=1e-6)
    assert upper[11] / upper[0] == pytest.approx(1.0 / 9.0, rel=1e-6)
    assert [upper[15], upper[18], upper[20]] == pytest.approx([math.pi**2 / 3] * 3, rel=FLOAT32)
    known = {0, 1, 6, 11, 15, 18, 20}
    assert all(math.isnan(value) == (index not in known) for index, value in enumerate(upper))


def test_velocity_covariance_is_turned_into_the_heading() -> None:
    ahead_east = messages.odometry(estimate(), telemetry(yaw_deg=90), reference()).velocity_covariance
    # forward is east, right is south
    assert (ahead_east[0], ahead_east[1], ahead_east[6]) == pytest.approx((0.25, -0.02, 0.16))
    ahead_north = messages.odometry(estimate(), telemetry(yaw_deg=0), reference()).velocity_covariance
    assert (ahead_north[0], ahead_north[1], ahead_north[6]) == pytest.approx((0.16, 0.02, 0.25))
    assert all(math.isnan(ahead_north[i]) for i in range(21) if i not in (0, 1, 6))


def test_no_velocity_and_no_covariance_are_nan_while_the_position_stays() -> None:
    bare = estimate(velocity_enu_mps=np.full(2, np.nan), covariance=np.full((4, 4), np.nan))
    message = over_the_wire(messages.odometry(bare, telemetry(), reference()))
    assert all(math.isnan(v) for v in (message.vx, message.vy, message.vz))
    assert math.isnan(message.pose_covariance[0])
    assert math.isnan(message.velocity_covariance[0])
    assert message.x == pytest.approx(FLAT_NORTH_M, abs=0.006)


@pytest.mark.parametrize(
    "lacking",
    [None, telemetry(heading_known=False), telemetry(attitude_quat_wxyz=(math.nan, 0.0, 0.0, 0.0))],
    ids=["no telemetry", "no heading", "no attitude"],
)
def test_a_yaw_that_nobody_measured_is_never_claimed(lacking: Telemetry | None) -> None:
    message = over_the_wire(messages.odometry(estimate(), lacking, reference()))
    assert all(math.isnan(v) for v in (*message.q, message.vx, message.vy, message.vz))
    vision = messages.vision_position_estimate(estimate(), lacking, reference())
    assert math.isnan(vision.yaw)


def test_the_maps_heading_stands_in_where_the_vehicle_has_none() -> None:
    message = messages.odometry(
        estimate(heading_rad=math.radians(90)), telemetry(5.0, 0.0, 12.0, heading_known=False), reference()
    )
    assert message.q == pytest.approx(telemetry(5.0, 0.0, 90.0).attitude_quat_wxyz, abs=1e-9)
    # and it does not overrule a heading that the vehicle has
    message = messages.odometry(estimate(heading_rad=math.radians(90)), telemetry(yaw_deg=12.0), reference())
    assert message.q == pytest.approx(telemetry(yaw_deg=12.0).attitude_quat_wxyz, abs=1e-9)


@pytest.mark.parametrize(
    ("probability", "percent"), [(1.0, 100), (0.994, 99), (0.0, 0), (-0.3, 0), (1.7, 100), (math.nan, 0)]
)
def test_quality_is_never_the_minus_one_that_is_dropped(probability: float, percent: int) -> None:
    assert messages.quality(probability) == percent


def test_positions_are_counted_from_the_rounded_origin_so_that_they_decode_to_the_same_place() -> None:
    anchor = MapFrame(47.39774194, 8.54559384)  # 4.4 mm and 3 mm from the nearest degE7
    home = Home.at(47.39774194, 8.54559384)
    east_north = np.array([812.25, -1403.5])
    message = over_the_wire(
        messages.odometry(estimate(position_enu_m=east_north), telemetry(), Reference(home, anchor))
    )
    fix = decode(message, home)
    back = anchor.enu_from_geodetic(fix.latitude_deg, fix.longitude_deg)
    assert np.linalg.norm(back - east_north) < 2e-4  # half a float32 digit at 1.4 km, on both axes


def test_float32_costs_less_than_a_millimetre_at_ten_kilometres() -> None:
    message = messages.odometry(estimate(position_enu_m=np.array([9000.1234, 9000.9877])), telemetry(), reference())
    heard = over_the_wire(message)
    assert math.hypot(message.x, message.y) > 10_000
    assert (heard.x, heard.y) == pytest.approx((message.x, message.y), abs=2.0**-11)


def test_estimates_in_another_frame_than_the_origins_are_carried_over() -> None:
    north, east = Reference(Home.at(LATITUDE, LONGITUDE), MapFrame(47.41, 8.56)).north_east_m(np.array([0.0, 0.0]))
    assert north == pytest.approx((47.41 - LATITUDE) * math.radians(6_378_100), abs=0.01)
    middle = math.radians((47.41 + LATITUDE) / 2)
    assert east == pytest.approx((8.56 - LONGITUDE) * math.radians(6_378_100) * math.cos(middle), abs=0.01)


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(0.0, 0.0), (-33.9, 151.2), (71.2, -156.8), (10.0, 179.9999999), (-10.0, -180.0)]
)
def test_a_place_survives_the_wire_anywhere(latitude: float, longitude: float) -> None:
    home = Home.at(latitude, longitude, 12.3456)
    origin = over_the_wire(commands.set_gps_global_origin(home, 5))
    assert Home(origin.latitude, origin.longitude, origin.altitude) == home
    assert (home.latitude_deg, home.longitude_deg) == pytest.approx((latitude, longitude), abs=5.1e-8)
    assert home.altitude_mm == 12346
    place = Reference(home, MapFrame(latitude, longitude))
    fix = decode(over_the_wire(messages.odometry(estimate(), telemetry(), place)), home)
    back = place.map_frame.enu_from_geodetic(fix.latitude_deg, fix.longitude_deg)
    assert np.linalg.norm(back - [EAST_M, NORTH_M]) < 1e-4


def test_an_origin_that_is_not_on_earth_is_refused() -> None:
    with pytest.raises(LinkError, match="origin"):
        Home.at(91.0, 0.0)
    with pytest.raises(LinkError, match="origin"):
        Home.at(math.nan, 0.0)


def test_the_heartbeat_is_that_of_an_onboard_controller_without_autopilot() -> None:
    beat = over_the_wire(commands.heartbeat())
    assert (beat.type, beat.autopilot, beat.get_srcComponent()) == (18, 8, 197)


def test_gps_input_has_weeks_accuracy_and_ignores_what_is_not_known() -> None:
    message = over_the_wire(messages.gps_input(estimate(), reference()))
    # 2025-10-09 is in GPS week 2387, which began on Sunday the 5th; GPS is 18 s ahead of UTC.
    assert message.time_week == 2387
    assert message.time_week_ms == ((4 * 24 + 8) * 3600 + 53 * 60 + 20 + 18) * 1000 + 123
    assert message.fix_type == 3
    assert message.alt == pytest.approx(ALTITUDE + 50.0, abs=1e-3)
    assert (message.ve, message.vn) == (5.0, 0.0)
    assert message.ignore_flags == 16 | 128
    assert message.horiz_accuracy == pytest.approx(math.sqrt(6.5 + math.hypot(2.5, 1.5)), rel=1e-6)
    assert message.yaw == 0
    place = frame().geodetic_from_enu(np.array([EAST_M, NORTH_M]))
    assert (message.lat, message.lon) == (round(place[0] * 1e7), round(place[1] * 1e7))
    still = messages.gps_input(estimate(velocity_enu_mps=np.full(2, np.nan)), reference())
    assert still.ignore_flags == 8 | 16 | 32 | 128


def test_gps_input_refuses_a_clock_that_counts_from_boot() -> None:
    with pytest.raises(ValueError, match="Unix time"):
        messages.gps_input(estimate(valid_at_ns=12_000_000_000), reference())


def test_global_position_sensor_says_when_it_left_and_how_old_it_is() -> None:
    message = over_the_wire(messages.global_position_sensor(estimate(), reference(), START_NS + 187_000_400))
    assert message.processing_time == 187_001  # both stamps are rounded down: .456789 + .1870004 = .6437894
    assert message.time_usec - message.processing_time == START_NS // 1000
    assert message.source == 2
    assert message.flags == 0
    assert message.eph == pytest.approx(math.sqrt(6.5 + math.hypot(2.5, 1.5)), rel=1e-6)
    assert math.isnan(message.epv)
    assert math.isnan(message.alt_ellipsoid)
    assert message.alt == pytest.approx(ALTITUDE + 50.0, abs=1e-3)


def test_vision_position_estimate_is_local_ned_with_the_vehicles_own_angles() -> None:
    message = over_the_wire(messages.vision_position_estimate(estimate(), telemetry(3.0, -4.0, 90.0), reference()))
    assert [message.x, message.y, message.z] == pytest.approx([FLAT_NORTH_M, FLAT_EAST_M, -50.0], abs=0.006)
    angles = [math.degrees(a) for a in (message.roll, message.pitch, message.yaw)]
    assert angles == pytest.approx([3.0, -4.0, 90.0], abs=1e-4)
    assert message.covariance[:12] == pytest.approx(
        messages.odometry(estimate(), telemetry(), reference()).pose_covariance[:12], rel=1e-6, nan_ok=True
    )


# --- the link ---------------------------------------------------------------------------------------------------


class Wire:
    """A transport that keeps what is written; `open` says whether it takes anything."""

    def __init__(self) -> None:
        self.address, self.packets, self.open = Address("udpout", "nowhere", 1), [], True

    def write(self, packet: bytes) -> bool:
        if self.open:
            self.packets.append(packet)
        return self.open

    def read(self, timeout_s: float) -> bytes:
        return b""

    def close(self) -> None:
        self.open = False

    def messages(self) -> list[mav.MAVLink_message]:
        parser = mav.MAVLink(None)
        return [message for packet in self.packets for message in parser.parse_buffer(packet)]


def wired(**options: object) -> tuple[Wire, MavlinkLink]:
    wire = Wire()
    link = MavlinkLink(PacedSender(wire, 7, 197), **options)
    link.set_origin(LATITUDE, LONGITUDE, ALTITUDE)
    return wire, link


def test_a_stale_estimate_is_never_repeated() -> None:
    wire, link = wired()
    assert link.send(estimate(), telemetry())
    assert not link.send(estimate(), telemetry())
    assert not link.send(estimate(valid_at_ns=START_NS - 1), telemetry())
    assert link.send(estimate(valid_at_ns=START_NS + 1), telemetry())
    assert link.withheld == {Withheld.STALE: 2}
    assert link.sent == {"SET_GPS_GLOBAL_ORIGIN": 1, "ODOMETRY": 2}
    assert [m.get_type() for m in wire.messages()] == ["SET_GPS_GLOBAL_ORIGIN", "ODOMETRY", "ODOMETRY"]


@pytest.mark.parametrize(
    "broken", [{"height_above_ground_m": math.nan}, {"position_enu_m": np.array([math.nan, 1.0])}], ids=["z", "xy"]
)
def test_what_the_firmware_drops_without_a_word_is_withheld_with_one(broken: dict) -> None:
    wire, link = wired()
    assert not link.send(estimate(**broken), telemetry())
    assert link.withheld == {Withheld.NOT_FINITE: 1}
    assert len(wire.packets) == 1
    assert link.send(estimate(), telemetry())  # the same instant, now whole, is not stale


def test_numbers_run_without_gaps_and_a_message_that_found_no_room_takes_none() -> None:
    wire, link = wired()
    for k in range(300):
        wire.open = k != 7
        assert link.send(estimate(valid_at_ns=START_NS + k), telemetry()) == (k != 7)
    assert link.withheld == {Withheld.NO_ROOM: 1}
    assert [m.get_seq() for m in wire.messages()] == [k % 256 for k in range(300)]


def test_the_same_estimates_give_the_same_bytes() -> None:
    def sent() -> list[bytes]:
        wire, link = wired()
        for k in range(5):
            link.send(estimate(valid_at_ns=START_NS + k), telemetry())
            link.heartbeat(START_NS + k)
        return wire.packets

    assert sent() == sent()


def test_the_reset_counter_grows_only_when_the_position_jumped_on_purpose() -> None:
    wire, link = wired()
    for k, jumped in enumerate([False, False, True, False, True]):
        link.send(estimate(valid_at_ns=START_NS + k), telemetry(), reset=jumped)
    wire.open = False
    assert not link.send(estimate(valid_at_ns=START_NS + 8), telemetry(), reset=True)
    wire.open = True
    link.send(estimate(valid_at_ns=START_NS + 9), telemetry())  # tells the jump whose message was lost
    assert [m.reset_counter for m in wire.messages()[1:]] == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize("unknown", [(0, 0), (0, 1), (1, 1)])
def test_an_error_that_nobody_knows_is_not_told_as_none(unknown: tuple[int, int]) -> None:
    covariance = estimate().covariance.copy()
    covariance[unknown] = math.nan
    _, link = wired()
    assert not link.send(estimate(covariance=covariance), telemetry())
    assert link.withheld == {Withheld.NOT_FINITE: 1}


def test_what_is_told_first_after_the_position_was_lost_is_a_jump_on_purpose() -> None:
    wire, link = wired()

    def tick(number: int) -> None:
        link.send(estimate(valid_at_ns=START_NS + number), telemetry())

    link.lose()  # nothing was told yet: the first place is no jump
    tick(0)
    link.lose()
    link.lose()
    tick(1)
    tick(2)
    wire.open = False
    link.lose()
    tick(3)
    wire.open = True
    tick(4)
    assert [m.reset_counter for m in wire.messages()[1:]] == [0, 1, 1, 2]


def test_the_heartbeat_goes_once_a_second() -> None:
    wire, link = wired()
    beats = [link.heartbeat(START_NS + k * 250_000_000) for k in range(9)]
    assert beats == [True, False, False, False, True, False, False, False, True]
    assert link.sent["HEARTBEAT"] == 3
    assert {(m.get_srcSystem(), m.get_srcComponent()) for m in wire.messages()} == {(7, 197)}


@pytest.mark.parametrize("name", list(PROFILES))
def test_every_profile_sends_the_messages_it_says(name: str) -> None:
    profile = profile_named(name)
    wire, link = wired(profile=profile)
    assert link.send(estimate(), telemetry())
    sent = wire.messages()
    assert [m.get_type() for m in sent[1:]] == list(profile.carriers)
    fix = decode(sent[1], link.origin)
    back = frame().enu_from_geodetic(fix.latitude_deg, fix.longitude_deg)
    assert np.linalg.norm(back - [EAST_M, NORTH_M]) < 0.01
    assert fix.time_usec == START_NS // 1000


class VehicleClock:
    """From our time to a vehicle's that was switched on `boot_ns`; None while nobody knows it."""

    def __init__(self, boot_ns: int | None) -> None:
        self.boot_ns = boot_ns

    def __call__(self, ours_ns: int) -> int | None:
        return None if self.boot_ns is None else ours_ns - self.boot_ns


TICK_NS = 100_000_000


def test_local_messages_are_stamped_in_the_vehicles_clock_and_only_while_it_is_known() -> None:
    clock = VehicleClock(None)
    wire, link = wired(stamp=clock)
    assert not link.send(estimate(), telemetry())
    assert link.withheld == {Withheld.NO_SYNC: 1}
    clock.boot_ns = START_NS - 75_000_000_000
    assert link.send(estimate(), telemetry())
    assert wire.messages()[-1].time_usec == 75_000_000


@pytest.mark.parametrize(
    ("name", "time_usec"),
    [
        ("ardupilot-odometry", 75_000_000),
        ("ardupilot-vision", 75_000_000),
        ("ardupilot-gps-input", START_NS // 1000),
        ("px4-odometry", START_NS // 1000),
        ("px4-global-position", START_NS // 1000),
    ],
)
def test_each_profile_has_its_clock_and_all_wait_for_synchronization(name: str, time_usec: int) -> None:
    clock = VehicleClock(START_NS - 75_000_000_000)
    wire, link = wired(profile=profile_named(name), stamp=clock)
    assert link.send(estimate(), telemetry())
    assert decode(wire.messages()[-1], link.origin).time_usec == time_usec
    clock.boot_ns = None
    assert not link.send(estimate(valid_at_ns=START_NS + TICK_NS), telemetry())
    assert link.withheld == {Withheld.NO_SYNC: 1}


def test_stamps_never_go_back_a_little_and_begin_anew_after_a_restart() -> None:
    clock = VehicleClock(START_NS - 75_000_000_000)
    wire, link = wired(stamp=clock)

    def tick(number: int) -> bool:
        return link.send(estimate(valid_at_ns=START_NS + number * TICK_NS), telemetry())

    assert tick(0)
    clock.boot_ns += 250_000_000  # set anew: a quarter of a second back
    assert [tick(number) for number in (1, 2, 3)] == [False, False, True]
    assert link.withheld == {Withheld.STALE: 2}
    clock.boot_ns = START_NS + 2 * TICK_NS  # it restarted
    assert tick(4)
    assert [m.time_usec for m in wire.messages()[1:]] == [75_000_000, 75_050_000, 200_000]


def test_nothing_is_told_of_the_time_before_the_vehicle_was_switched_on() -> None:
    _, link = wired(stamp=VehicleClock(START_NS + 1))
    assert not link.send(estimate(), telemetry())
    assert link.withheld == {Withheld.STALE: 1}


def test_a_profile_that_is_chosen_later_keeps_the_origin_and_brings_its_globe() -> None:
    wire, link = wired()
    link.profile = profile_named("px4-odometry")
    assert link.send(estimate(), telemetry())
    fix = decode(wire.messages()[-1], link.origin)
    assert frame().enu_from_geodetic(fix.latitude_deg, fix.longitude_deg) == pytest.approx([EAST_M, NORTH_M], abs=1e-3)
    assert wire.messages()[-1].x == pytest.approx(10.0 * 6_371_000 / 6_370_064, abs=0.006)


def test_the_vehicles_own_origin_is_used_and_not_sent_back() -> None:
    wire = Wire()
    link = MavlinkLink(PacedSender(wire, 1, 197))
    link.use_origin(Home.at(LATITUDE + 0.001, LONGITUDE, 12.0), frame())
    assert wire.packets == []
    assert link.send(estimate(), telemetry())
    assert wire.messages()[0].x == pytest.approx(FLAT_NORTH_M - 111.317, abs=0.01)


def test_a_reset_is_a_command_in_the_vehicles_time_and_needs_it() -> None:
    wire, link = wired(stamp=VehicleClock(START_NS - 75_000_000_000), target_system=9)
    assert link.reset(estimate(), START_NS + 150_000_000)
    command = wire.messages()[-1]
    assert (command.target_system, command.target_component, command.command) == (9, 1, 43003)
    assert (command.param1, command.param2) == pytest.approx((75.0, 0.15))
    _, blind = wired()
    assert not blind.reset(estimate(), START_NS)
    assert blind.withheld == {Withheld.NO_SYNC: 1}
    assert not link.reset(estimate(position_enu_m=np.array([math.nan, 0.0])), START_NS)
    wire.open = False
    assert not link.reset(estimate(), START_NS)
    assert link.withheld == {Withheld.NOT_FINITE: 1, Withheld.NO_ROOM: 1}


@pytest.mark.parametrize(
    ("autopilot", "name"), [(Autopilot.ARDUPILOT, "ardupilot-odometry"), (Autopilot.PX4, "px4-global-position")]
)
def test_the_profile_follows_from_what_the_vehicle_says_it_is(autopilot: Autopilot, name: str) -> None:
    assert profile_for(autopilot).name == name


@pytest.mark.parametrize("autopilot", [Autopilot.OTHER, Autopilot.UNKNOWN])
def test_an_unknown_autopilot_needs_a_profile_by_name(autopilot: Autopilot) -> None:
    with pytest.raises(LinkError, match=r"INAV 8.*ardupilot-odometry.*px4-odometry"):
        profile_for(autopilot, "INAV 8")
    assert profile_for(autopilot, wanted="ardupilot-gps-input").name == "ardupilot-gps-input"


def test_a_profile_of_the_other_firmware_is_refused_with_those_that_fit() -> None:
    with pytest.raises(LinkError, match=r"ArduCopter 4\.6\.1.*expected auto, ardupilot-odometry") as caught:
        profile_for(Autopilot.ARDUPILOT, "ArduCopter 4.6.1", "px4-odometry", 50.0)
    assert "px4-global-position" not in str(caught.value)
    assert profile_for(Autopilot.ARDUPILOT, wanted="ardupilot-vision").name == "ardupilot-vision"


def test_external_vision_of_px4_is_refused_below_the_rate_that_it_needs() -> None:
    with pytest.raises(LinkError, match=r"rate_hz.*10.*at least 30"):
        profile_for(Autopilot.PX4, wanted="px4-odometry", rate_hz=10.0)
    assert profile_for(Autopilot.PX4, wanted="px4-odometry", rate_hz=30.0).name == "px4-odometry"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rate_hz", 0.0),
        ("latency_ms", -1.0),
        ("silent_after_s", math.nan),
        ("switch_source_set", 4),
        ("system_id", 256),
    ],
)
def test_a_link_setting_out_of_range_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"link\.{key}"):
        merge(Config(), {"link": {key: value}})


def test_a_profile_that_needs_a_calendar_withholds_boot_time_stamps() -> None:
    _, link = wired(profile=profile_named("ardupilot-gps-input"))
    assert not link.send(estimate(valid_at_ns=5_000_000_000), telemetry())
    assert link.withheld == {Withheld.NO_UNIX_TIME: 1}


def test_an_estimate_without_an_origin_is_an_error() -> None:
    with pytest.raises(LinkError, match="set_origin"):
        MavlinkLink(PacedSender(Wire(), 1, 197)).send(estimate(), telemetry())


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(LinkError, match=r"ardupilot-odometry.*px4-global-position"):
        profile_named("betaflight")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "udp:127.0.0.1:14550",
        "udpout:127.0.0.1",
        "udpout:127.0.0.1:0",
        "udpout:127.0.0.1:http",
        "udpout:127.0.0.1:14550:1",
        "tcp:127.0.0.1:99999",
        "udpin::14550",
        "/dev/ttyTHS1",
        "COM3:57600",
    ],
)
def test_a_bad_address_is_one_line_that_shows_the_forms(address: str) -> None:
    with pytest.raises(LinkError) as caught:
        MavlinkLink.open(address)
    assert "udpout:HOST:PORT" in str(caught.value)
    assert "/dev/ttyX:BAUD" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udpout:no-such-host.invalid:14550", "cannot open"),
        ("tcp:127.0.0.1:1", "cannot open"),
        ("/dev/no-such-line:57600", "cannot open"),
        ("/dev/null:57600", "not a serial line"),
        ("/dev/null:12345", "baud rate"),
    ],
)
def test_an_address_that_cannot_be_opened_is_a_link_error(address: str, words: str) -> None:
    with pytest.raises(LinkError, match=words):
        MavlinkLink.open(address)


def test_addresses_name_their_peers() -> None:
    assert str(parse_address("udpout:127.0.0.1:14550").peer) == "udpin:127.0.0.1:14550"
    assert str(parse_address("udpin:0.0.0.0:14550").peer) == "udpout:127.0.0.1:14550"
    assert str(parse_address("udpin:[::1]:14550")) == "udpin:[::1]:14550"
    assert parse_address("/dev/ttyTHS1:921600") == Address("serial", "/dev/ttyTHS1", 921600)
    with pytest.raises(LinkError):
        _ = parse_address("tcp:127.0.0.1:5760").peer


def test_a_serial_line_carries_whole_messages_and_a_full_one_withholds() -> None:
    master, slave = pty.openpty()
    try:
        with MavlinkLink.open(f"{os.ttyname(slave)}:921600") as link:
            link.set_origin(LATITUDE, LONGITUDE)
            sent = 0
            while link.send(estimate(valid_at_ns=START_NS + sent), telemetry()):  # until nobody reads: it is full
                sent += 1
                assert sent < 2000
            assert link.withheld == {Withheld.NO_ROOM: 1}
            parser, got = mav.MAVLink(None), []
            os.set_blocking(master, False)

            def drain() -> None:
                try:
                    got.extend(parser.parse_buffer(os.read(master, 65536)) or [])
                except BlockingIOError:
                    time.sleep(0.001)

            wait_for(lambda: drain() or len(got) >= sent)
            wait_for(lambda: link.send(estimate(valid_at_ns=START_NS + 10_000), telemetry()))
            wait_for(lambda: drain() or len(got) == sent + 2)  # the origin, all that were sent, and the new one
            assert got[-1].time_usec == (START_NS + 10_000) // 1000
            assert [m.get_seq() for m in got] == [k % 256 for k in range(sent + 2)]
    finally:
        os.close(master)
        os.close(slave)


def test_tcp_carries_messages() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with MavlinkLink.open(f"tcp:127.0.0.1:{server.getsockname()[1]}") as link:
            peer, _ = server.accept()
            link.set_origin(LATITUDE, LONGITUDE)
            link.send(estimate(), telemetry())
        with peer:
            data = b"".join(iter(lambda: peer.recv(4096), b""))
    assert [m.get_type() for m in mav.MAVLink(None).parse_buffer(data)] == ["SET_GPS_GLOBAL_ORIGIN", "ODOMETRY"]


def test_udpin_withholds_until_a_peer_has_spoken() -> None:
    with MavlinkLink.open("udpin:127.0.0.1:0") as link:
        assert not link.set_origin(LATITUDE, LONGITUDE)
        assert not link.send(estimate(), telemetry())
        assert link.withheld == {Withheld.NO_ROOM: 1}


def test_the_pace_lets_a_burst_through_and_then_holds_the_rate() -> None:
    bucket = Pace(20, 1000.0)
    began = time.monotonic()
    for _ in range(20):
        bucket.wait()
    burst_s = time.monotonic() - began
    for _ in range(100):
        bucket.wait()
    assert burst_s < 0.015
    assert time.monotonic() - began >= 0.09


# --- the peer ---------------------------------------------------------------------------------------------------

FIX_COLUMNS = [
    *("captured_at_ns", "source", "state", "published", "latitude_deg", "longitude_deg"),
    *("cov_ee_m2", "cov_en_m2", "cov_nn_m2", "heading_deg", "reason", "best_latitude_deg", "best_longitude_deg"),
]


def flight(count: int) -> list[Estimate]:
    """A turn of a vehicle, 4 estimates a second, its covariance breathing."""
    turn = []
    for k in range(count):
        covariance = estimate().covariance.copy()
        covariance[:2, :2] = [[4.0 + math.sin(k), 0.3 * math.cos(k)], [0.3 * math.cos(k), 2.5 + math.cos(k)]]
        position = np.array([400 * math.sin(k / 50), 300 * math.cos(k / 50)])
        turn.append(estimate(valid_at_ns=START_NS + k * 250_000_000, position_enu_m=position, covariance=covariance))
    return turn


def write_fixes(path: Path, estimates: list[Estimate]) -> None:
    """fixes.csv as a replay writes it, with a refused frame between every two published ones."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(FIX_COLUMNS)
        for one in estimates:
            latitude, longitude = frame().geodetic_from_enu(one.position_enu_m)
            (ee, en), (_, nn) = one.covariance[:2, :2]
            place = [f"{latitude:.9f}", f"{longitude:.9f}", *(f"{c:.4f}" for c in (ee, en, nn))]
            rows.writerow([one.valid_at_ns, "a.jpg", "tracking", 1, *place, "90.000", "", *place[:2]])
            rows.writerow([one.valid_at_ns + 125_000_000, "b.jpg", "tracking", 0, *[""] * 6, "weak_match", "", ""])


@pytest.fixture
def flown(tmp_path: Path) -> tuple[Path, Path, Received]:
    """20 estimates sent to a listening process: its CSV, the fixes.csv, its sums."""
    estimates = flight(20)
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "received.csv") as listener:
        with MavlinkLink.open(listener.peer) as link:
            link.set_origin(LATITUDE, LONGITUDE, ALTITUDE)
            for one in estimates:
                link.heartbeat(one.valid_at_ns)
                assert link.send(one, telemetry())
        received = listener.stop(link.sent.total())
    write_fixes(tmp_path / "fixes.csv", estimates)
    return tmp_path / "received.csv", tmp_path / "fixes.csv", received


def test_a_listening_process_counts_and_decodes_all_that_was_sent(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, received = flown
    assert received.by_name == {"SET_GPS_GLOBAL_ORIGIN": 1, "HEARTBEAT": 5, "ODOMETRY": 20}
    assert (received.total, received.lost, received.out_of_order, received.bad) == (26, 0, 0, 0)
    assert received.origin == Home.at(LATITUDE, LONGITUDE, ALTITUDE)
    assert received.csv_path == received_csv
    result = verify(received_csv, fixes_csv)
    assert result.ok
    assert (result.matched, result.missing, result.unexpected, result.differing) == (20, 0, 0, 0)
    assert result.worst_m < 2e-4
    assert [fix.quality for fix in read_csv(received_csv)] == [99] * 20
    assert [path.name for path in received_csv.parent.iterdir() if "partial" in path.name] == []


def rewrite(path: Path, change) -> None:
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *change(rows)]) + "\n")


def test_verify_fails_when_one_message_is_missing(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown
    rewrite(received_csv, lambda rows: rows[:7] + rows[8:])
    result = verify(received_csv, fixes_csv)
    assert not result.ok
    assert (result.matched, result.missing) == (19, 1)
    assert str((START_NS + 7 * 250_000_000) // 1000) in result.problems[0]


def test_verify_fails_when_a_message_came_twice_or_from_nowhere(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown
    rewrite(received_csv, lambda rows: [*rows, rows[3]])
    assert verify(received_csv, fixes_csv).unexpected == 1
    rewrite(fixes_csv, lambda rows: [rows[0].replace("tracking,1", "tracking,0"), *rows[1:]])
    result = verify(received_csv, fixes_csv)
    assert not result.ok
    assert (result.matched, result.unexpected) == (19, 2)


@pytest.mark.parametrize(
    ("column", "by"),
    [("latitude_deg", 2e-7), ("longitude_deg", -2e-7), ("cov_ee_m2", 2e-4), ("cov_en_m2", -2e-4), ("cov_nn_m2", 2e-4)],
)
def test_verify_fails_when_one_row_differs(flown: tuple[Path, Path, Received], column: str, by: float) -> None:
    received_csv, fixes_csv, _ = flown

    def change(rows: list[str]) -> list[str]:
        cells = rows[8].split(",")  # a published row
        at = FIX_COLUMNS.index(column)
        cells[at] = f"{float(cells[at]) + by:.9f}"
        return [*rows[:8], ",".join(cells), *rows[9:]]

    rewrite(fixes_csv, change)
    result = verify(received_csv, fixes_csv)
    assert not result.ok
    assert (result.matched, result.differing, result.missing) == (19, 1, 0)


def test_verify_fails_when_north_and_east_are_swapped(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown

    def change(rows: list[str]) -> list[str]:
        table = [row.split(",") for row in rows]
        return [",".join([*c[:7], c[9], c[8], c[7], *c[10:]]) for c in table]

    rewrite(received_csv, change)
    assert verify(received_csv, fixes_csv).differing == 20


def test_positions_before_the_origin_do_not_verify(tmp_path: Path) -> None:
    estimates = flight(1)
    listener = Listener(PacketSource(messages.odometry(estimates[0], telemetry(), reference())), tmp_path / "r.csv")
    listener.finish(quiet_s=0)
    write_fixes(tmp_path / "fixes.csv", estimates)
    result = verify(tmp_path / "r.csv", tmp_path / "fixes.csv")
    assert result.differing == 1
    assert math.isnan(result.worst_m)


def test_verify_misses_the_second_of_two_rows_of_one_instant(flown: tuple[Path, Path, Received]) -> None:
    received_csv, fixes_csv, _ = flown
    rewrite(fixes_csv, lambda rows: [rows[0], rows[0], *rows[1:]])
    result = verify(received_csv, fixes_csv)
    assert (result.matched, result.missing, result.ok) == (20, 1, False)


def test_verify_names_a_file_that_is_missing_or_another(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(LinkError, match="no file of fixes"):
        verify(other, tmp_path / "fixes.csv")
    write_fixes(tmp_path / "fixes.csv", flight(1))
    with pytest.raises(LinkError, match="no file of received"):
        verify(tmp_path / "received.csv", tmp_path / "fixes.csv")
    with pytest.raises(LinkError, match="columns"):
        verify(other, tmp_path / "fixes.csv")
    with pytest.raises(LinkError, match="columns"):
        verify(other, other)


class PacketSource:
    """A transport from which packets come: messages, or bytes as they are."""

    def __init__(self, *packets: mav.MAVLink_message | bytes) -> None:
        self.address, packer = Address("udpin", "test", 1), mav.MAVLink(None, srcSystem=1, srcComponent=197)
        self._packets = []
        for number, one in enumerate(packets):
            packer.seq = number % 256
            self._packets.append(one if isinstance(one, bytes) else one.pack(packer))

    def keep(self, *order: int) -> PacketSource:
        self._packets = [self._packets[k] for k in order]
        return self

    def read(self, timeout_s: float) -> bytes:
        return self._packets.pop(0) if self._packets else b""

    def write(self, packet: bytes) -> bool:
        return False

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("order", "lost", "out_of_order"),
    [
        (range(300), 0, 0),
        ([*range(10), *range(13, 300)], 3, 0),
        ([k for k in range(300) if k not in (5, 254, 255, 256)], 4, 0),
        ([0, 1, 1, 2, 3], 0, 1),
        ([0, 2, 1, 3], 1, 1),
    ],
    ids=["whole", "gap", "gap over the wrap", "twice", "overtaken"],
)
def test_losses_show_as_gaps_of_the_numbering(tmp_path: Path, order, lost: int, out_of_order: int) -> None:
    source = PacketSource(*[commands.heartbeat()] * 300).keep(*order)
    received = Listener(source, tmp_path / "r.csv").finish(quiet_s=0)
    assert received.by_name == {"HEARTBEAT": len(list(order))}
    assert (received.lost, received.out_of_order) == (lost, out_of_order)


def test_garbage_is_counted_and_harms_nothing(tmp_path: Path) -> None:
    good = commands.heartbeat()
    broken = bytearray(good.pack(mav.MAVLink(None)))
    broken[-1] ^= 0xFF
    source = PacketSource(good, b"\x00\x01garbage", bytes(broken), good, struct.pack("<10f", *[math.nan] * 10), good)
    received = Listener(source, tmp_path / "r.csv").finish(quiet_s=0)
    assert received.by_name == {"HEARTBEAT": 3}
    assert received.bad >= 3


def test_a_peer_that_never_stops_sending_cannot_hold_the_listener(tmp_path: Path) -> None:
    class Endless(PacketSource):
        def read(self, timeout_s: float) -> bytes:
            return commands.heartbeat().pack(mav.MAVLink(None))

    began = time.monotonic()
    received = Listener(Endless(), tmp_path / "r.csv").finish(quiet_s=5.0, limit_s=0.2)
    assert received.total > 0
    assert time.monotonic() - began < 5.0


def test_two_thousand_messages_sent_as_fast_as_possible_all_arrive(tmp_path: Path) -> None:
    estimates = [estimate(valid_at_ns=START_NS + k * 1000) for k in range(2000)]
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "received.csv") as listener:
        with MavlinkLink.open(listener.peer) as link:
            link.set_origin(LATITUDE, LONGITUDE)
            assert all(link.send(one, telemetry()) for one in estimates)
        received = listener.stop(link.sent.total())
    assert received.by_name["ODOMETRY"] == 2000
    assert (received.total, received.lost) == (2001, 0)
    assert sum(1 for _ in read_csv(tmp_path / "received.csv")) == 2000


def test_the_listening_process_may_be_told_the_senders_address(tmp_path: Path) -> None:
    with open_transport(Address("udpin", "127.0.0.1", 0))._socket as probe:
        port = probe.getsockname()[1]
    with ListenerProcess(f"udpout:127.0.0.1:{port}", tmp_path / "r.csv") as listener:
        assert listener.address == f"udpin:127.0.0.1:{port}"
        assert listener.peer == f"udpout:127.0.0.1:{port}"
        with pytest.raises(LinkError, match=re.escape(f"udpin:127.0.0.1:{port}")):  # taken
            ListenerProcess(listener.address, tmp_path / "other.csv")
        assert listener.stop().total == 0
        assert listener.stop().total == 0  # asked again, the same answer
    assert not (tmp_path / "other.csv").exists()


def test_a_listening_process_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "r.csv") as listener:
        process = listener._process
    assert process.poll() is not None
    assert list(tmp_path.iterdir()) == []


def test_a_listening_process_that_died_is_a_link_error(tmp_path: Path) -> None:
    with ListenerProcess("udpin:127.0.0.1:0", tmp_path / "r.csv") as listener:
        listener._process.kill()
        listener._process.wait()
        with pytest.raises(LinkError, match="ended early"):
            listener.stop()


def test_a_listening_process_without_a_folder_to_write_to_is_a_link_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no folder"):
        ListenerProcess("udpin:127.0.0.1:0", tmp_path / "nowhere" / "r.csv")


def pilotage(*arguments: str) -> subprocess.Popen[str]:
    code = "from onboard.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("how", ["seconds", "interrupt"])
def test_the_listen_command_writes_the_positions_and_the_sums(tmp_path: Path, how: str) -> None:
    limit = ["--seconds", "1.5"] if how == "seconds" else []
    program = pilotage("listen", "udpin:127.0.0.1:0", "--out", str(tmp_path / "heard.csv"), *limit)
    address = ""
    while "listening at" not in address:
        address = program.stdout.readline()
    with MavlinkLink.open(str(parse_address(address.split()[-1]).peer)) as link:
        link.set_origin(LATITUDE, LONGITUDE)
        for one in flight(3):
            link.send(one, telemetry())
    if how == "interrupt":
        time.sleep(0.3)
        program.send_signal(signal.SIGINT)
    words, errors = program.communicate(timeout=20)
    assert program.returncode == 0, errors
    assert "ODOMETRY 3" in words
    sums = json.loads((tmp_path / "heard.json").read_text())
    assert sums["by_name"] == {"ODOMETRY": 3, "SET_GPS_GLOBAL_ORIGIN": 1}
    assert sums["origin"]["latitude_deg"] == LATITUDE
    assert len(list(read_csv(tmp_path / "heard.csv"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heard.csv", "heard.json"]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["udpout:127.0.0.1:14550"], ["udpin:127.0.0.1:0", "--seconds", "-1"]],
    ids=["address", "direction", "time"],
)
def test_the_listen_command_refuses_bad_input_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    program = pilotage("listen", *arguments, "--out", str(tmp_path / "heard.csv"))
    _, errors = program.communicate(timeout=20)
    assert program.returncode == 2
    assert errors.startswith("pilotage: ")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
