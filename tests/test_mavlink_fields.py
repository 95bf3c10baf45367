"""The fields of the messages that carry a fix, against golden vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_link import (
    ALTITUDE,
    EAST_M,
    FLAT_EAST_M,
    FLAT_NORTH_M,
    LATITUDE,
    LONGITUDE,
    NORTH_M,
    START_NS,
    estimate,
    frame,
    reference,
    telemetry,
)

from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.peer.received import decode
from onboard.mavlink.tell import commands, messages
from onboard.mavlink.tell.place import Home, Reference
from onboard.records import Telemetry

FLOAT32 = 2.0**-23


def over_the_wire(message: mav.MAVLink_message) -> mav.MAVLink_message:
    """What the other end makes of it: packed, parsed, float32."""
    parser = mav.MAVLink(None)
    (result,) = parser.parse_buffer(message.pack(mav.MAVLink(None, srcSystem=1, srcComponent=197)))
    return result


def test_a_height_told_above_home_goes_back_as_it_was_whatever_the_maps_ground_made_of_it() -> None:
    told = estimate(height_above_ground_m=31.0, height_above_home_m=50.0)
    odometry = over_the_wire(messages.odometry(told, telemetry(), reference()))
    gps = over_the_wire(messages.gps_input(told, reference()))
    assert odometry.z == -50.0
    assert gps.alt == pytest.approx(ALTITUDE + 50.0, abs=1e-3)


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
