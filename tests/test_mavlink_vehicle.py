"""What the vehicle says becomes telemetry in our clock; what it must be asked for is asked until it comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import euler_from_rotation, quaternion_from_euler, rotation_from_quaternion
from onboard.mavlink.vehicle import streams
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.vehicle.height import HeightSource
from onboard.mavlink.vehicle.identity import version_of
from onboard.mavlink.vehicle.state import Vehicle
from onboard.records import Telemetry

MS, S = 1_000_000, 1_000_000_000
START_NS = 1_760_000_000 * S
UP_NS = 1000 * S  # how long the vehicle has been up at the start
AIDED = mav.EKF_ATTITUDE | mav.EKF_VELOCITY_HORIZ | mav.EKF_POS_HORIZ_ABS


class Line:
    """A vehicle, and its messages over a line that takes `delay_ns`."""

    def __init__(self, delay_ns: int = 8 * MS, up_ns: int = UP_NS, **kwargs: Any) -> None:
        self.vehicle = Vehicle(**kwargs)
        self.now_ns, self.delay_ns, self.boot_ns = START_NS, delay_ns, START_NS - up_ns
        self.asked: list[mav.MAVLink_message] = []

    def boot_ms(self) -> int:
        return (self.now_ns - self.delay_ns - self.boot_ns) // MS % 2**32

    def say(self, message: mav.MAVLink_message, component: int = 1) -> None:
        """It arrives now, through the wire's own encoding."""
        packer = mav.MAVLink(None, srcSystem=1, srcComponent=component)
        heard = mav.MAVLink(None).parse_char(message.pack(packer))
        assert heard is not None
        self.vehicle.heard(heard, self.now_ns)

    def heartbeat(self, autopilot: int = 3, kind: int = 2, armed: bool = False) -> None:
        self.say(mav.MAVLink_heartbeat_message(kind, autopilot, 128 * armed, 4, 4, 3))

    def ekf(self, flags: int = AIDED) -> None:
        self.say(mav.MAVLink_ekf_status_report_message(flags, 0.1, 0.2, 0.3, 0.4, 0.5))

    def attitude(self, roll: float = 0.0, yaw: float = 0.0) -> None:
        quat = quaternion_from_euler(roll, 0.0, yaw)
        self.say(mav.MAVLink_attitude_quaternion_message(self.boot_ms(), *quat, 0, 0, 0))

    def above_home(self, metres: float, lat: int = 470000000) -> None:
        self.say(
            mav.MAVLink_global_position_int_message(
                self.boot_ms(), lat, 80000000, 500_000, round(metres * 1000), 100, 200, 0, 65535
            )
        )

    def range(self, cm: int, orientation: int = 25, quality: int = 0) -> None:
        self.say(
            mav.MAVLink_distance_sensor_message(
                self.boot_ms(), 20, 5000, cm, 0, 0, orientation, 0, signal_quality=quality
            )
        )

    def run(self, seconds: float, do: Callable[[], None] | None = None, step_ns: int = 50 * MS) -> None:
        """Time goes on, requests are collected and TIMESYNC answered."""
        end_ns = self.now_ns + round(seconds * S)
        while self.now_ns < end_ns:
            self.now_ns += step_ns
            for message in self.vehicle.requests(self.now_ns):
                if message.get_type() != "TIMESYNC":
                    self.asked.append(message)
                    continue
                vehicle_ns = self.now_ns + self.delay_ns - self.boot_ns
                answered = mav.MAVLink_timesync_message(vehicle_ns, message.ts1)
                self.now_ns += 2 * self.delay_ns
                self.say(answered)
            if do is not None:
                do()

    def telemetry(self) -> Telemetry:
        got = self.vehicle.telemetry.at(self.now_ns)
        assert isinstance(got, Telemetry), got
        return got

    def asked_streams(self) -> list[int]:
        return [int(m.param1) for m in self.asked if m.command == mav.MAV_CMD_SET_MESSAGE_INTERVAL]

    def asked_once(self) -> list[int]:
        return [int(m.param1) for m in self.asked if m.command == mav.MAV_CMD_REQUEST_MESSAGE]


@pytest.fixture
def line() -> Line:
    """A vehicle that is synced and has said what it is and that its estimator is well."""
    line = Line()
    line.heartbeat()
    line.run(3)
    line.heartbeat()
    line.ekf()
    assert line.vehicle.sync.synced
    return line


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
    assert line.vehicle.height_agl_m is None


@pytest.mark.parametrize(("clearance", "height"), [(42.0, 42.0), (1000.0, 61.0), (math.nan, 61.0)])
def test_px4_altitude_gives_clearance_or_else_height_above_home(line: Line, clearance: float, height: float) -> None:
    message = mav.MAVLink_altitude_message((line.boot_ms()) * 1000, 0, 0, 0, 61.0, 0, clearance)
    line.say(message)
    assert line.vehicle.height_agl_m == height


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
def test_a_gimbals_yaw_counts_from_what_its_flags_say(line: Line, flags: int, yaw: float) -> None:
    quat = list(quaternion_from_euler(0.0, -0.7, 0.5))
    line.say(mav.MAVLink_gimbal_device_attitude_status_message(1, 1, 5, flags, quat, 0, 0, 0, 0), component=154)
    gimbal = line.vehicle.gimbal
    assert gimbal is not None
    angles = euler_from_rotation(rotation_from_quaternion(gimbal.ned_quat_wxyz(1.0)))
    assert angles == pytest.approx((0.0, -0.7, yaw), abs=1e-6)


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


def test_streams_are_asked_for_one_by_one_and_not_again_while_they_come() -> None:
    line = Line()
    line.run(1)
    assert line.asked == []  # nobody is there
    line.heartbeat()

    def acknowledge() -> None:
        line.heartbeat()
        line.say(mav.MAVLink_command_ack_message(mav.MAV_CMD_SET_MESSAGE_INTERVAL, 0))
        for _ in range(4):
            line.attitude()

    line.run(10, acknowledge)
    asked = line.asked_streams()
    assert asked.count(mav.MAVLINK_MSG_ID_ATTITUDE_QUATERNION) == 1
    assert asked.count(mav.MAVLINK_MSG_ID_LOCAL_POSITION_NED) in (3, 4, 5)  # after 1, 2, 4 s
    assert mav.MAVLINK_MSG_ID_ATTITUDE not in asked
    assert mav.MAVLINK_MSG_ID_ESTIMATOR_STATUS not in asked


def test_a_refused_stream_is_remembered_and_its_substitute_asked_for() -> None:
    line = Line()

    def refuse() -> None:
        line.heartbeat()
        line.say(mav.MAVLink_command_ack_message(mav.MAV_CMD_SET_MESSAGE_INTERVAL, mav.MAV_RESULT_DENIED))

    line.heartbeat()
    line.run(60, refuse)
    asked = line.asked_streams()
    assert asked.count(mav.MAVLINK_MSG_ID_ATTITUDE_QUATERNION) == 2
    assert asked.count(mav.MAVLINK_MSG_ID_ATTITUDE) == 2
    assert "ATTITUDE_QUATERNION" in line.vehicle.streams.refused


def test_origin_home_and_version_are_asked_for_until_they_come() -> None:
    line = Line()
    line.heartbeat()
    line.run(20, line.heartbeat)
    once = line.asked_once()
    assert {49, 148, 242} == set(once)
    assert 5 <= once.count(49) <= 8  # later each time
    line.say(mav.MAVLink_gps_global_origin_message(470000000, 80000000, 0))
    line.asked.clear()
    line.run(20, line.heartbeat)
    assert 49 not in line.asked_once()
    assert 148 in line.asked_once()


def test_a_restart_is_known_by_the_boot_clock_and_all_is_asked_for_again(line: Line) -> None:
    line.say(mav.MAVLink_gps_global_origin_message(470000000, 80000000, 0))
    line.attitude()
    line.boot_ns = line.now_ns
    line.asked.clear()
    for _ in range(4):
        line.now_ns += 20 * MS
        line.attitude()
    assert line.vehicle.restarted == 1
    assert line.vehicle.origin is None
    assert not line.vehicle.sync.synced
    line.run(3, line.heartbeat)
    assert line.vehicle.restarted == 1
    assert line.vehicle.sync.synced
    assert {49, 148, 242} <= set(line.asked_once())
    assert mav.MAVLINK_MSG_ID_ATTITUDE_QUATERNION in line.asked_streams()


def test_one_late_message_is_no_restart(line: Line) -> None:
    line.attitude()
    line.say(mav.MAVLink_attitude_quaternion_message(line.boot_ms() - 1500, 1, 0, 0, 0, 0, 0, 0))
    line.attitude()
    assert line.vehicle.restarted == 0


def test_who_returns_after_a_silence_is_asked_again(line: Line) -> None:
    line.say(mav.MAVLink_gps_global_origin_message(470000000, 80000000, 0))
    line.now_ns += 10 * S
    line.heartbeat()
    assert line.vehicle.origin is None


@pytest.mark.parametrize("budget", [900.0, 1500.0, 3000.0, 6000.0])
@pytest.mark.parametrize("autopilot", [Autopilot.ARDUPILOT, Autopilot.PX4])
def test_a_thin_link_is_not_asked_for_more_than_it_carries(budget: float, autopilot: Autopilot) -> None:
    rates = streams.plan(autopilot, budget)
    assert "ATTITUDE_QUATERNION" not in rates or rates["ATTITUDE_QUATERNION"] >= 10
    assert streams.bytes_per_s(rates) <= budget * 1.001
    assert streams.bytes_per_s(rates) > 0.5 * min(budget, streams.bytes_per_s(streams.plan(autopilot, None)))


def test_a_thin_link_keeps_attitude_and_height_before_all_else() -> None:
    assert list(streams.plan(Autopilot.ARDUPILOT, 1100.0))[:2] == ["ATTITUDE_QUATERNION", "GLOBAL_POSITION_INT"]
