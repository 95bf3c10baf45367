"""What a vehicle must be asked for is asked until it comes, and again when it has restarted."""

from __future__ import annotations

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav
from toy_line import MS, Line, S, settled_line

from onboard.mavlink.vehicle import streams
from onboard.mavlink.vehicle.autopilot import Autopilot


@pytest.fixture
def line() -> Line:
    return settled_line()


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


def test_home_is_asked_for_again_when_the_vehicle_is_armed_for_that_moves_it(line: Line) -> None:
    line.say(mav.MAVLink_home_position_message(470000000, 80000000, 0, 0, 0, 0, [1, 0, 0, 0], 0, 0, 0))
    line.asked.clear()
    line.run(5, line.heartbeat)
    assert 242 not in line.asked_once()
    line.run(2, lambda: line.heartbeat(armed=True))
    assert 242 in line.asked_once()


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
