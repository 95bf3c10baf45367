"""A vehicle at the other end of a line, by messages of a test's own and a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.frames import quaternion_from_euler
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


def settled_line(**kwargs: Any) -> Line:
    """A vehicle that is synced and has said what it is and that its estimator is well."""
    line = Line(**kwargs)
    line.heartbeat()
    line.run(3)
    line.heartbeat()
    line.ekf()
    assert line.vehicle.sync.synced
    return line
