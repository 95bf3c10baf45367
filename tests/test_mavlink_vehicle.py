"""What the vehicle says becomes telemetry in our clock."""

from __future__ import annotations

import math

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_line import AIDED, MS, Line, S, settled_line

from onboard.frames import euler_from_rotation, quaternion_from_euler, rotation_from_quaternion
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.vehicle.height import HeightSource
from onboard.mavlink.vehicle.identity import version_of
from onboard.records import HeightReference, Telemetry


@pytest.fixture
def line() -> Line:
    return settled_line()


def test_a_vehicle_is_named_by_firmware_version_and_kind() -> None:
    line = Line()
    assert (line.vehicle.autopilot, line.vehicle.firmware) == (Autopilot.UNKNOWN, "")
    line.heartbeat(armed=True)
    assert line.vehicle.firmware == "ArduCopter"
    custom = list(b"265753db")
    line.say(mav.MAVLink_autopilot_version_message(5, 4 << 24 | 7 << 16, 0, 0, 0, custom, [0] * 8, [0] * 8, 0, 0, 0))
    assert line.vehicle.firmware == "ArduCopter 4.7.0-dev (265753db)"
    assert (line.vehicle.capabilities, line.vehicle.kind, line.vehicle.mode_name) == (5, "quadrotor", "Guided")
    assert line.vehicle.armed
    assert line.vehicle.alive(line.now_ns + 2 * S)
    assert not line.vehicle.alive(line.now_ns + 4 * S)


@pytest.mark.parametrize(
    ("number", "autopilot", "custom", "words"),
    [
        (0x010F02FF, Autopilot.PX4, bytes.fromhex("efcdab8967452301"), "1.15.2 (01234567)"),
        (0x040503C0, Autopilot.ARDUPILOT, b"abcd\0\0\0\0", "4.5.3-rc (abcd)"),
        (0x04050380, Autopilot.ARDUPILOT, bytes(8), "4.5.3-beta"),
    ],
)
def test_versions_read_as_each_firmware_writes_them(
    number: int, autopilot: Autopilot, custom: bytes, words: str
) -> None:
    message = mav.MAVLink_autopilot_version_message(0, number, 0, 0, 0, list(custom), [0] * 8, [0] * 8, 0, 0, 0)
    assert version_of(message, autopilot) == words


def test_a_sample_counts_from_when_it_was_so_and_not_from_its_arrival(line: Line) -> None:
    for yaw in (0.0, 0.1):
        line.now_ns += 100 * MS
        line.attitude(yaw=yaw)
        line.above_home(80)
    assert not line.vehicle.hearing.stamped_by_arrival
    got = line.vehicle.telemetry.at(line.now_ns - line.delay_ns - 50 * MS)
    assert isinstance(got, Telemetry)
    yaw = euler_from_rotation(rotation_from_quaternion(got.attitude_quat_wxyz))[2]
    assert yaw == pytest.approx(0.05, abs=0.003)
    assert got.heading_known


def test_before_the_sync_the_arrival_counts_and_a_flag_says_so() -> None:
    line = Line()
    line.attitude()
    line.above_home(80)
    assert line.vehicle.hearing.stamped_by_arrival
    assert line.telemetry().captured_at_ns == line.now_ns


def test_stamps_are_right_when_the_32_bit_boot_clock_has_gone_round() -> None:
    line = Line(up_ns=2**32 * MS - 2 * S)
    line.heartbeat()
    line.run(4)
    line.attitude()
    line.above_home(80)
    assert line.boot_ms() < 10_000
    assert line.telemetry().height_above_ground_m == 80
    assert line.vehicle.restarted == 0
    assert line.vehicle.hearing.misstamped == 0


def test_a_stamp_of_another_clock_is_dropped_and_counted(line: Line) -> None:
    line.say(mav.MAVLink_attitude_quaternion_message(line.boot_ms() + 3_600_000, 1, 0, 0, 0, 0, 0, 0))
    assert line.vehicle.hearing.misstamped == 1
    assert len(line.vehicle.telemetry._attitude) == 0


def test_euler_angles_serve_where_no_quaternion_comes(line: Line) -> None:
    def euler(yaw: float) -> None:
        line.say(mav.MAVLink_attitude_message(line.boot_ms(), 0.0, 0.0, yaw, 0, 0, 0))
        line.above_home(80)

    euler(1.0)
    assert line.telemetry().attitude_quat_wxyz == pytest.approx(quaternion_from_euler(0, 0, 1.0), abs=1e-6)
    line.now_ns += 50 * MS
    line.attitude(yaw=0.5)
    line.now_ns += 50 * MS
    euler(1.0)
    assert line.telemetry().attitude_quat_wxyz == pytest.approx(quaternion_from_euler(0, 0, 0.5), abs=1e-6)


def test_velocity_counts_only_while_the_estimator_knows_it(line: Line) -> None:
    def told() -> tuple[float, float, float] | None:
        line.now_ns += 500 * MS
        line.attitude()
        line.above_home(80)
        line.say(mav.MAVLink_local_position_ned_message(line.boot_ms(), 1, 2, -80, 3, 4, 0.5))
        return line.telemetry().velocity_ned_mps

    assert told() == (3, 4, 0.5)
    line.ekf(mav.EKF_ATTITUDE | mav.EKF_CONST_POS_MODE)
    assert told() is None
    assert line.vehicle.local is not None
    assert line.vehicle.local.position_ned_m == (1, 2, -80)


@pytest.mark.parametrize(
    ("flags", "compass", "known"),
    [
        (AIDED, True, True),
        (AIDED, False, True),
        (mav.EKF_ATTITUDE, True, True),
        (mav.EKF_ATTITUDE, False, False),
        (AIDED | mav.EKF_UNINITIALIZED, True, False),
        (0, True, False),
    ],
)
def test_a_heading_is_known_by_the_estimator_and_a_compass_or_its_velocity(
    line: Line, flags: int, compass: bool, known: bool
) -> None:
    mag = mav.MAV_SYS_STATUS_SENSOR_3D_MAG
    line.say(mav.MAVLink_sys_status_message(mag, mag, mag * compass, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    line.ekf(flags)
    line.attitude()
    line.above_home(80)
    assert line.telemetry().heading_known is known


def test_an_estimator_that_has_fallen_silent_vouches_for_nothing(line: Line) -> None:
    line.run(6, lambda: (line.attitude(), line.above_home(80))[0])
    assert not line.telemetry().heading_known


def test_height_comes_from_the_best_source_corrected_for_tilt(line: Line) -> None:
    def speak(range_cm: int = 3000) -> None:
        line.attitude(roll=math.radians(20))
        line.above_home(50)
        line.range(range_cm)

    speak()
    assert line.telemetry().height_above_ground_m == 50  # the range finder has yet to prove steady
    line.run(1.5, speak)
    assert line.vehicle.height_source is HeightSource.RANGEFINDER
    assert line.telemetry().height_above_ground_m == pytest.approx(30 * math.cos(math.radians(20)), abs=1e-3)
    assert line.vehicle.relative_height_m == 50
    line.run(0.5, lambda: speak(5000))  # at the end of its range
    assert line.vehicle.height_source is HeightSource.RANGEFINDER
    line.run(1.0, lambda: speak(5000))
    assert line.vehicle.height_source is HeightSource.ABOVE_HOME
    assert line.telemetry().height_above_ground_m == 50


@pytest.mark.parametrize(("cm", "orientation", "quality"), [(3000, 0, 0), (3000, 25, 1), (10, 25, 0), (5000, 25, 0)])
def test_a_range_that_is_not_one_of_the_ground_is_not_heard(
    line: Line, cm: int, orientation: int, quality: int
) -> None:
    line.attitude()
    line.range(cm, orientation, quality)
    assert line.vehicle.height_m is None


@pytest.mark.parametrize(("clearance", "height"), [(42.0, 42.0), (1000.0, 61.0), (math.nan, 61.0)])
def test_px4_altitude_gives_clearance_or_else_height_above_home(line: Line, clearance: float, height: float) -> None:
    message = mav.MAVLink_altitude_message((line.boot_ms()) * 1000, 0, 0, 0, 61.0, 0, clearance)
    line.say(message)
    assert line.vehicle.height_m == height


def test_gps_is_read_in_metres_and_unknown_fields_are_said_to_be(line: Line) -> None:
    usec = line.boot_ms() * 1000
    line.say(mav.MAVLink_gps_raw_int_message(usec, 3, 470000000, 80000000, 4321, 80, 90, 500, 9000, 12, h_acc=1500))
    gps = line.vehicle.gps
    assert gps is not None
    assert gps.velocity_ned_mps == pytest.approx((0, 5, 0), abs=1e-9)
    assert (gps.error_m, gps.altitude_m, gps.satellites, gps.fix_type) == (1.5, 4.321, 12, 3)
    assert abs(gps.at_ns - (line.now_ns - line.delay_ns)) < 2 * MS
    line.say(mav.MAVLink_gps_raw_int_message(0, 1, 0, 0, 0, 65535, 65535, 65535, 65535, 255))
    gps = line.vehicle.gps
    assert gps is not None
    assert (gps.velocity_ned_mps, gps.satellites, gps.at_ns) == (None, 0, line.now_ns)
    assert math.isnan(gps.error_m)


def test_both_estimators_read_alike(line: Line) -> None:
    line.ekf(AIDED | mav.EKF_GPS_GLITCHING)
    ardupilot = line.vehicle.estimator
    line.say(
        mav.MAVLink_estimator_status_message(1, AIDED | mav.ESTIMATOR_GPS_GLITCH, 0.1, 0.2, 0.3, 0.4, 0.5, 0, 2.5, 3)
    )
    px4 = line.vehicle.estimator
    assert ardupilot is not None
    assert px4 is not None
    for reading in (ardupilot, px4):
        assert reading.pos_horiz_ratio == pytest.approx(0.2)
        assert reading.gps_glitch
        assert reading.attitude_known
    assert px4.position_sigma_m == 2.5


@pytest.mark.parametrize(("flags", "yaw"), [(0, 1.5), (32, 1.5), (64, 0.5), (16, 0.5), (16 | 32, 1.5)])
def test_a_gimbals_yaw_counts_from_what_its_flags_say(flags: int, yaw: float) -> None:
    line = settled_line(on_gimbal=True)
    line.attitude(yaw=1.0)
    line.above_home(80)
    quat = list(quaternion_from_euler(0.0, -0.7, 0.5))
    line.say(mav.MAVLink_gimbal_device_attitude_status_message(1, 1, 5, flags, quat, 0, 0, 0, 0), component=154)
    got = line.telemetry().carrier_quat_wxyz
    assert euler_from_rotation(rotation_from_quaternion(got)) == pytest.approx((0.0, -0.7, yaw), abs=1e-6)


@pytest.mark.parametrize("kind", ["scaled", "highres"])
def test_specific_force_is_in_metres_per_second_squared(line: Line, kind: str) -> None:
    if kind == "scaled":
        line.say(mav.MAVLink_scaled_imu_message(line.boot_ms(), 0, 0, -1000, 0, 0, 0, 0, 0, 0))
    else:
        line.say(mav.MAVLink_highres_imu_message(0, 0, 0, -9.80665, *[0] * 11))
    assert line.vehicle.imu is not None
    assert line.vehicle.imu.specific_force_frd_mps2 == pytest.approx((0, 0, -9.80665), abs=1e-5)


def test_other_components_are_not_the_vehicle(line: Line) -> None:
    line.say(mav.MAVLink_heartbeat_message(2, 12, 128, 0, 4, 3), component=191)
    line.say(mav.MAVLink_gps_global_origin_message(1, 2, 3), component=191)
    assert line.vehicle.autopilot is Autopilot.ARDUPILOT
    assert line.vehicle.origin is None


def test_an_origin_of_zeros_is_none(line: Line) -> None:
    line.say(mav.MAVLink_gps_global_origin_message(0, 0, 0))
    assert line.vehicle.origin is None
    line.say(mav.MAVLink_gps_global_origin_message(470000000, 80000000, 400_000))
    assert line.vehicle.origin is not None
    assert line.vehicle.origin.altitude_m == 400


def test_heights_say_what_they_are_above_and_from_which_home(line: Line) -> None:
    def home(lat: int) -> None:
        line.say(mav.MAVLink_home_position_message(lat, 80000000, 400_000, 0, 0, 0, [1, 0, 0, 0], 0, 0, 0))

    def told(metres: float) -> tuple[HeightReference, tuple[float, float] | None]:
        line.now_ns += 500 * MS
        line.attitude()
        line.above_home(metres)
        return line.telemetry().height_reference, line.telemetry().home_deg

    assert told(0.2) == (HeightReference.HOME, None)
    home(470000000)
    assert told(0.1) == (HeightReference.HOME, (47.0, 8.0))
    home(470000500)  # armed elsewhere: the newest wins
    assert told(0.1) == (HeightReference.HOME, (47.00005, 8.0))
    assert told(80) == (HeightReference.HOME, (47.00005, 8.0))
    home(470009000)  # in flight
    assert told(80) == (HeightReference.HOME, None)
    line.run(2.5, lambda: (line.attitude(), line.range(3000))[0])
    assert line.telemetry().height_reference is HeightReference.GROUND
    assert line.telemetry().home_deg is None
