"""The ground's side of the trial: the simulator's first port. It sets parameters, gives orders and hears the truth.

None of it is Pilotage's: Pilotage has a port of its own, on which neither truth nor orders travel.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from clock import SimulatedClock
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.errors import LinkError
from onboard.frames import MapFrame
from onboard.mavlink.wire.transport import Transport, open_transport, parse_address

GUIDED, LAND = 4, 9  # flight modes of ArduCopter
_POSITION_ONLY = 0b110111111000
_STREAMS_HZ = {
    mav.MAVLINK_MSG_ID_SYSTEM_TIME: 50,
    mav.MAVLINK_MSG_ID_SIM_STATE: 50,
    mav.MAVLINK_MSG_ID_GLOBAL_POSITION_INT: 20,
    mav.MAVLINK_MSG_ID_EKF_STATUS_REPORT: 4,
}


@dataclass(frozen=True, slots=True)
class Truth:
    """Where the simulated vehicle is. `boot_ms` by its own clock; `position_enu_m` (3,), height above sea level."""

    boot_ms: int
    position_enu_m: np.ndarray
    quat_wxyz: tuple[float, float, float, float]
    velocity_enu_mps: np.ndarray


@dataclass(frozen=True, slots=True)
class Believed:
    """Where the vehicle's estimator says it is: (2,) east, north in the map frame, and height above home."""

    boot_ms: int
    position_enu_m: np.ndarray
    height_m: float


class Ground:
    """An open ground link, by whose stamps `clock` goes. `truth` and `believed` grow while it is polled."""

    def __init__(self, address: str, frame: MapFrame, clock: SimulatedClock) -> None:
        self._transport = _connect(address)
        self._frame, self._clock = frame, clock
        self._mav = mav.MAVLink(None, srcSystem=255, srcComponent=190)
        self._mav.robust_parsing = True
        self._last_heartbeat_s = 0.0
        self._boot_ms: int | None = None
        self.truth: list[Truth] = []
        self.believed: list[Believed] = []
        self.texts: list[tuple[int, str]] = []
        self.parameters: dict[str, float] = {}
        self.flags = 0  # EKF_STATUS_REPORT
        self.armed = False
        self.mode = -1
        self.heard_vehicle = False

    def poll(self) -> None:
        """Take in what has come, waiting at most 5 ms, and stay known to the vehicle."""
        now_s = time.monotonic()
        if now_s - self._last_heartbeat_s > 1.0:  # by the wall: our own clock waits for the stamps asked for here
            self._last_heartbeat_s = now_s
            self.send(mav.MAVLink_heartbeat_message(mav.MAV_TYPE_GCS, mav.MAV_AUTOPILOT_INVALID, 0, 0, 0, 3))
            for message_id, rate_hz in _STREAMS_HZ.items():
                self.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, message_id, 1e6 / rate_hz)
        while packet := self._transport.read(0.005):
            now_ns = self._clock()
            for message in self._mav.parse_buffer(packet) or ():
                self._take(message, now_ns)
            if len(packet) < 4096:
                break

    def send(self, message: mav.MAVLink_message) -> None:
        self._transport.write(message.pack(self._mav))
        self._mav.seq = (self._mav.seq + 1) % 256

    def command(self, command: int, *values: float) -> None:
        """COMMAND_LONG; what is not given is 0."""
        self.send(mav.MAVLink_command_long_message(1, 1, command, 0, *(*values, *[0.0] * (7 - len(values)))))

    def set_parameter(self, name: str, value: float) -> None:
        self.send(mav.MAVLink_param_set_message(1, 1, name.encode(), value, mav.MAV_PARAM_TYPE_REAL32))

    def ask_parameter(self, name: str) -> None:
        self.send(mav.MAVLink_param_request_read_message(1, 1, name.encode(), -1))

    def go_to(self, position_enu_m: np.ndarray, height_m: float) -> None:
        """A place to fly to in GUIDED: (2,) in the map frame, metres above home."""
        latitude, longitude = self._frame.geodetic_from_enu(position_enu_m)
        frame = mav.MAV_FRAME_GLOBAL_RELATIVE_ALT_INT
        where = (round(latitude * 1e7), round(longitude * 1e7), height_m)
        self.send(
            mav.MAVLink_set_position_target_global_int_message(0, 1, 1, frame, _POSITION_ONLY, *where, *[0.0] * 8)
        )

    def tell_range(self, height_above_ground_m: float) -> None:
        """The laser's reading: DISTANCE_SENSOR, downwards."""
        reading_cm = round(100 * min(max(height_above_ground_m, 0.0), 600.0))
        self.send(
            mav.MAVLink_distance_sensor_message(
                self._boot_ms or 0, 50, 30000, reading_cm, 0, 1, mav.MAV_SENSOR_ROTATION_PITCH_270, 0
            )
        )

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def _take(self, message: mav.MAVLink_message, now_ns: int) -> None:
        kind = message.get_type()
        if kind == "SYSTEM_TIME":
            self._boot_ms = message.time_boot_ms
            self._clock.heard(message.time_boot_ms)
        elif (
            kind == "SIM_STATE" and self._boot_ms is not None
        ):  # it has no stamp; the one before it is of the same pass
            self._take_truth(message, self._boot_ms)
        elif kind == "GLOBAL_POSITION_INT":
            position = self._frame.enu_from_geodetic(message.lat / 1e7, message.lon / 1e7)
            self.believed.append(Believed(message.time_boot_ms, position, message.relative_alt / 1000))
        elif kind == "HEARTBEAT" and message.autopilot != mav.MAV_AUTOPILOT_INVALID:
            self.armed = bool(message.base_mode & mav.MAV_MODE_FLAG_SAFETY_ARMED)
            self.mode, self.heard_vehicle = message.custom_mode, True
        elif kind == "EKF_STATUS_REPORT":
            self.flags = message.flags
        elif kind == "PARAM_VALUE":
            self.parameters[message.param_id] = message.param_value
        elif kind == "STATUSTEXT":
            self.texts.append((now_ns, message.text))

    def _take_truth(self, message: mav.MAVLink_message, boot_ms: int) -> None:
        if self.truth and boot_ms <= self.truth[-1].boot_ms:
            return
        position = self._frame.enu_from_geodetic(message.lat_int / 1e7, message.lon_int / 1e7)
        quat = (message.q1, message.q2, message.q3, message.q4)
        if not math.isclose(math.hypot(*quat), 1.0, abs_tol=0.01):
            return
        velocity = np.array([message.ve, message.vn, -message.vd])
        self.truth.append(Truth(boot_ms, np.array([*position, message.alt]), quat, velocity))


def _connect(address: str, patience_s: float = 20.0) -> Transport:
    """A simulator that has just been started opens its port a moment later."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return open_transport(parse_address(address))
        except LinkError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.3)
