"""A vehicle's autopilot as it looks from the other end of a MAVLink link: scripted, in the test's time.

It has a boot clock of its own (with skew), answers TIMESYNC and asks back, streams what SET_MESSAGE_INTERVAL asked for,
flies a circle, and has an estimator that follows the fixes that it hears: enough of one to show flags, not to judge
an estimator. `hear` takes bytes, `speak` gives the packets that are due; neither waits. What a companion must never
do (arm, change modes, write parameters) is kept in `violations`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pymavlink.dialects.v20 import ardupilotmega as mav
from scripted_parameters import ParameterStore

ARDUPILOT, PX4 = mav.MAV_AUTOPILOT_ARDUPILOTMEGA, mav.MAV_AUTOPILOT_PX4
M_PER_DEGREE = 111_318.845  # of ArduPilot's sphere
AIDED_NS = 7_000_000_000  # how long the estimator lives on its last fix
_FORBIDDEN = {mav.MAV_CMD_COMPONENT_ARM_DISARM, mav.MAV_CMD_DO_SET_MODE, mav.MAV_CMD_PREFLIGHT_STORAGE}
_FIXES = ("ODOMETRY", "VISION_POSITION_ESTIMATE", "GPS_INPUT", "GLOBAL_POSITION_SENSOR")


@dataclass
class Circle:
    """Where the vehicle truly is: north, east metres from the place it started at, level, at one height."""

    radius_m: float = 200.0
    speed_mps: float = 8.0
    height_m: float = 100.0

    def at(self, t_s: float) -> tuple[float, float, float, float]:
        """(north, east, v_north, v_east) after so many seconds."""
        turn = self.speed_mps / self.radius_m * t_s
        north, east = self.radius_m * math.sin(turn), self.radius_m * (1 - math.cos(turn))
        return north, east, self.speed_mps * math.cos(turn), self.speed_mps * math.sin(turn)


@dataclass
class Gps:
    """The receiver: what it makes of the truth."""

    fix_type: int = 0
    offset_north_m: float = 0.0
    offset_east_m: float = 0.0
    error_m: float = 1.0


@dataclass(frozen=True)
class HeardFix:
    """A fix as it arrived: our time of arrival, the vehicle's own, and the message."""

    heard_at_ns: int
    boot_ns: int
    message: mav.MAVLink_message


@dataclass
class ScriptedVehicle:
    """`started_at_ns` is when it is switched on (our time); its clock runs `skew_ppm` fast."""

    started_at_ns: int
    autopilot: int = ARDUPILOT
    system: int = 1
    skew_ppm: float = 200.0
    start_degrees: tuple[float, float] = (47.0, 8.0)
    start_altitude_m: float = 400.0
    origin: tuple[int, int, int] | None = None  # 1e-7 degrees, mm
    track: Circle = field(default_factory=Circle)
    gps: Gps = field(default_factory=Gps)
    uses_fixes: bool = True
    test_ratio: float = 0.2
    fastest_hz: float = 50.0  # whatever is asked for
    source_set_answer: int | None = mav.MAV_RESULT_ACCEPTED  # None: it never answers
    armed: bool = True
    dumb: bool = False  # sends nothing at all
    parameters: ParameterStore | None = None  # with them a write is no violation

    def __post_init__(self) -> None:
        self.boot_at_ns = self.started_at_ns
        self.fixes: list[HeardFix] = []
        self.texts: list[tuple[int, str]] = []
        self.source_sets: list[int] = []
        self.violations: list[str] = []
        self.heard: Counter[str] = Counter()
        self.heartbeats_ns: list[int] = []
        self._begin()
        self._handlers: dict[str, Callable[[mav.MAVLink_message, int], None]] = {
            "TIMESYNC": self._timesync,
            "COMMAND_LONG": self._command,
            "COMMAND_INT": self._command,
            "SET_GPS_GLOBAL_ORIGIN": self._set_origin,
            "HEARTBEAT": lambda message, now_ns: self.heartbeats_ns.append(now_ns),
            "STATUSTEXT": lambda message, now_ns: self.texts.append((now_ns, message.text)),
            "PARAM_SET": lambda message, now_ns: self.violations.append("PARAM_SET"),
            "SET_MODE": lambda message, now_ns: self.violations.append("SET_MODE"),
        } | dict.fromkeys(_FIXES, self._fix)
        if self.parameters is not None:
            self._handlers |= dict.fromkeys(("PARAM_REQUEST_READ", "PARAM_SET"), self._parameter)
        self._makers: dict[int, Callable[[int], mav.MAVLink_message]] = {
            mav.MAVLINK_MSG_ID_HEARTBEAT: self._heartbeat,
            mav.MAVLINK_MSG_ID_ATTITUDE: self._attitude,
            mav.MAVLINK_MSG_ID_ATTITUDE_QUATERNION: self._attitude_quaternion,
            mav.MAVLINK_MSG_ID_LOCAL_POSITION_NED: self._local_position,
            mav.MAVLINK_MSG_ID_GLOBAL_POSITION_INT: self._global_position,
            mav.MAVLINK_MSG_ID_GPS_RAW_INT: self._gps_raw,
            mav.MAVLINK_MSG_ID_AUTOPILOT_VERSION: self._version,
            mav.MAVLINK_MSG_ID_GPS_GLOBAL_ORIGIN: self._global_origin,
            mav.MAVLINK_MSG_ID_HOME_POSITION: self._home_position,
        }
        if self.autopilot == ARDUPILOT:
            self._makers[mav.MAVLINK_MSG_ID_EKF_STATUS_REPORT] = self._ekf_status
        else:
            self._makers[mav.MAVLINK_MSG_ID_ESTIMATOR_STATUS] = self._estimator_status

    # -- the face

    def boot_ns(self, now_ns: int) -> int:
        """The vehicle's clock at an instant of ours."""
        return round((now_ns - self.boot_at_ns) * (1 + self.skew_ppm * 1e-6))

    def ours_ns(self, boot_ns: int) -> int:
        """The instant of ours at which the vehicle's clock shows, or showed, a time."""
        return self.boot_at_ns + round(boot_ns / (1 + self.skew_ppm * 1e-6))

    def restart(self, back_at_ns: int) -> None:
        """Power cycle: deaf and dumb until `back_at_ns`, when a new boot clock begins; what was set is forgotten."""
        self.boot_at_ns, self.origin = back_at_ns, None
        self._begin()

    def hear(self, data: bytes, now_ns: int) -> None:
        if now_ns < self.boot_at_ns:
            return
        for message in self._parser.parse_buffer(data) or ():
            kind = message.get_type()
            if kind == "BAD_DATA" or getattr(message, "target_system", self.system) not in (0, self.system):
                continue
            self.heard[kind] += 1
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(message, now_ns)

    def speak(self, now_ns: int) -> list[bytes]:
        """The packets that are due."""
        if now_ns < self.boot_at_ns or self.dumb:
            self._answers.clear()
            return []
        if now_ns >= self._ask_at_ns:
            self._ask_at_ns = now_ns + 1_000_000_000
            self._answers.append(mav.MAVLink_timesync_message(0, self.boot_ns(now_ns)))
        for number, interval_ns in self._intervals.items():
            if now_ns >= self._due_ns.get(number, 0):
                self._due_ns[number] = max(self._due_ns.get(number, now_ns) + interval_ns, now_ns)
                self._make(number, now_ns)
        packets = [self._pack(message) for message in self._answers]
        self._answers.clear()
        return packets

    def flags(self, now_ns: int) -> int:
        """Of EKF_STATUS_REPORT and ESTIMATOR_STATUS alike."""
        always = mav.EKF_ATTITUDE | mav.EKF_VELOCITY_VERT | mav.EKF_POS_VERT_ABS
        if self._aided(now_ns):
            return always | mav.EKF_VELOCITY_HORIZ | mav.EKF_POS_HORIZ_ABS | mav.EKF_PRED_POS_HORIZ_ABS
        return always | mav.EKF_CONST_POS_MODE

    # -- what it does

    def _begin(self) -> None:
        self._packer = mav.MAVLink(None, srcSystem=self.system, srcComponent=mav.MAV_COMP_ID_AUTOPILOT1)
        self._parser = mav.MAVLink(None)
        self._parser.robust_parsing = True
        self._answers: list[mav.MAVLink_message] = []
        self._intervals: dict[int, int] = {mav.MAVLINK_MSG_ID_HEARTBEAT: 1_000_000_000}
        self._due_ns: dict[int, int] = {}
        self._ask_at_ns = 0
        self._fixed_at_ns: int | None = None
        self._offset_m = (0.0, 0.0)  # of the estimator from the truth

    def _aided(self, now_ns: int) -> bool:
        fixed = self._fixed_at_ns is not None and now_ns - self._fixed_at_ns < AIDED_NS
        return fixed or self.gps.fix_type >= mav.GPS_FIX_TYPE_3D_FIX

    def _pack(self, message: mav.MAVLink_message) -> bytes:
        packet = message.pack(self._packer)
        self._packer.seq = (self._packer.seq + 1) % 256
        return bytes(packet)

    def _make(self, number: int, now_ns: int) -> bool:
        message = self._makers[number](now_ns) if number in self._makers else None
        if message is not None:
            self._answers.append(message)
        return message is not None

    def _timesync(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if message.tc1 == 0:
            self._answers.append(mav.MAVLink_timesync_message(self.boot_ns(now_ns), message.ts1))

    def _command(self, message: mav.MAVLink_message, now_ns: int) -> None:
        command, result = message.command, mav.MAV_RESULT_ACCEPTED
        if command in _FORBIDDEN:
            self.violations.append(f"command {command}")
        elif command == mav.MAV_CMD_SET_MESSAGE_INTERVAL:
            number = int(message.param1)
            if number not in self._makers:
                result = mav.MAV_RESULT_FAILED  # as ArduPilot answers for a message that it does not have
            elif message.param2 > 0:
                self._intervals[number] = max(round(message.param2 * 1000), round(1e9 / self.fastest_hz))
        elif command == mav.MAV_CMD_REQUEST_MESSAGE:
            result = mav.MAV_RESULT_ACCEPTED if self._make(int(message.param1), now_ns) else mav.MAV_RESULT_FAILED
        elif command == mav.MAV_CMD_SET_EKF_SOURCE_SET:
            self.source_sets.append(int(message.param1))
            if self.source_set_answer is None:
                return
            result = self.source_set_answer
        else:
            result = mav.MAV_RESULT_UNSUPPORTED
        self._answers.append(mav.MAVLink_command_ack_message(command, result))

    def _parameter(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if self.parameters is not None:
            self._answers += self.parameters.heard(message)

    def _set_origin(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if self.origin is None:  # ArduPilot's estimator takes it once
            self.origin = (message.latitude, message.longitude, message.altitude)
        self._make(mav.MAVLINK_MSG_ID_GPS_GLOBAL_ORIGIN, now_ns)

    def _fix(self, message: mav.MAVLink_message, now_ns: int) -> None:
        self.fixes.append(HeardFix(now_ns, self.boot_ns(now_ns), message))
        if not self.uses_fixes or message.get_type() not in ("ODOMETRY", "VISION_POSITION_ESTIMATE"):
            return
        stamp_usec = message.time_usec if message.get_type() == "ODOMETRY" else message.usec
        north, east, _, _ = self._truth(self.ours_ns(stamp_usec * 1000))
        origin_north, origin_east = self._origin_from_start()
        self._offset_m = (message.x + origin_north - north, message.y + origin_east - east)
        self._fixed_at_ns = now_ns

    # -- where it is

    def _truth(self, now_ns: int) -> tuple[float, float, float, float]:
        return self.track.at((now_ns - self.started_at_ns) * 1e-9)

    def truth_degrees(self, now_ns: int) -> tuple[float, float]:
        """Latitude and longitude of where it truly is."""
        north, east, _, _ = self._truth(now_ns)
        return self._degrees(north, east)

    def _degrees(self, north_m: float, east_m: float) -> tuple[float, float]:
        latitude, longitude = self.start_degrees
        middle = latitude + north_m / M_PER_DEGREE / 2
        return latitude + north_m / M_PER_DEGREE, longitude + east_m / M_PER_DEGREE / math.cos(math.radians(middle))

    def _origin_from_start(self) -> tuple[float, float]:
        """(north, east) metres from the place it started at to its origin."""
        if self.origin is None:
            return 0.0, 0.0
        latitude, longitude = self.origin[0] / 1e7, self.origin[1] / 1e7
        middle = math.radians((latitude + self.start_degrees[0]) / 2)
        east = (longitude - self.start_degrees[1]) * M_PER_DEGREE * math.cos(middle)
        return (latitude - self.start_degrees[0]) * M_PER_DEGREE, east

    # -- what it says

    def _heartbeat(self, now_ns: int) -> mav.MAVLink_message:
        mode = mav.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED | (mav.MAV_MODE_FLAG_SAFETY_ARMED if self.armed else 0)
        return mav.MAVLink_heartbeat_message(mav.MAV_TYPE_QUADROTOR, self.autopilot, mode, 4, mav.MAV_STATE_ACTIVE, 3)

    def _quaternion(self, now_ns: int) -> tuple[float, float, float, float]:
        _, _, v_north, v_east = self._truth(now_ns)
        yaw = math.atan2(v_east, v_north)
        return math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)

    def _attitude(self, now_ns: int) -> mav.MAVLink_message:
        _, _, v_north, v_east = self._truth(now_ns)
        return mav.MAVLink_attitude_message(self._ms(now_ns), 0, 0, math.atan2(v_east, v_north), 0, 0, 0)

    def _attitude_quaternion(self, now_ns: int) -> mav.MAVLink_message:
        return mav.MAVLink_attitude_quaternion_message(self._ms(now_ns), *self._quaternion(now_ns), 0, 0, 0)

    def _local_position(self, now_ns: int) -> mav.MAVLink_message | None:
        if self.origin is None or not self._aided(now_ns):
            return None
        north, east, v_north, v_east = self._truth(now_ns)
        origin_north, origin_east = self._origin_from_start()
        down = self.origin[2] / 1000 - self.start_altitude_m - self.track.height_m
        x, y = north + self._offset_m[0] - origin_north, east + self._offset_m[1] - origin_east
        return mav.MAVLink_local_position_ned_message(self._ms(now_ns), x, y, down, v_north, v_east, 0)

    def _global_position(self, now_ns: int) -> mav.MAVLink_message:
        north, east, v_north, v_east = self._truth(now_ns)
        latitude, longitude = self._degrees(north + self._offset_m[0], east + self._offset_m[1])
        known = self._aided(now_ns)
        return mav.MAVLink_global_position_int_message(
            self._ms(now_ns),
            round(latitude * 1e7) if known else 0,
            round(longitude * 1e7) if known else 0,
            round((self.start_altitude_m + self.track.height_m) * 1000),
            round(self.track.height_m * 1000),
            round(v_north * 100),
            round(v_east * 100),
            0,
            65535,
        )

    def _gps_raw(self, now_ns: int) -> mav.MAVLink_message:
        gps = self.gps
        north, east, v_north, v_east = self._truth(now_ns)
        latitude, longitude = self._degrees(north + gps.offset_north_m, east + gps.offset_east_m)
        course = math.degrees(math.atan2(v_east, v_north)) % 360
        return mav.MAVLink_gps_raw_int_message(
            time_usec=self.boot_ns(now_ns) // 1000,
            fix_type=gps.fix_type,
            lat=round(latitude * 1e7),
            lon=round(longitude * 1e7),
            alt=round((self.start_altitude_m + self.track.height_m) * 1000),
            eph=80,
            epv=120,
            vel=round(math.hypot(v_north, v_east) * 100),
            cog=round(course * 100) % 36000,
            satellites_visible=14 if gps.fix_type >= 3 else 0,
            h_acc=round(gps.error_m * 1000),
        )

    def _ekf_status(self, now_ns: int) -> mav.MAVLink_message:
        return mav.MAVLink_ekf_status_report_message(self.flags(now_ns), 0.1, self.test_ratio, 0.1, 0.1, 0.0)

    def _estimator_status(self, now_ns: int) -> mav.MAVLink_message:
        usec = self.boot_ns(now_ns) // 1000
        return mav.MAVLink_estimator_status_message(
            usec, self.flags(now_ns), 0.1, self.test_ratio, 0.1, 0.1, 0.0, 0.0, 1.0, 1.0
        )

    def _version(self, now_ns: int) -> mav.MAVLink_message:
        capabilities = mav.MAV_PROTOCOL_CAPABILITY_MAVLINK2
        custom = list(b"1a2b3c4d")
        return mav.MAVLink_autopilot_version_message(
            capabilities, (4 << 24) | (7 << 16) | 255, 0, 0, 0, custom, [0] * 8, [0] * 8, 0, 0, 0
        )

    def _global_origin(self, now_ns: int) -> mav.MAVLink_message | None:
        if self.origin is None:
            return None
        return mav.MAVLink_gps_global_origin_message(*self.origin, self.boot_ns(now_ns) // 1000)

    def _home_position(self, now_ns: int) -> mav.MAVLink_message:
        latitude, longitude = self.start_degrees
        return mav.MAVLink_home_position_message(
            round(latitude * 1e7),
            round(longitude * 1e7),
            round(self.start_altitude_m * 1000),
            0,
            0,
            0,
            [1, 0, 0, 0],
            0,
            0,
            0,
        )

    def _ms(self, now_ns: int) -> int:
        return self.boot_ns(now_ns) // 1_000_000 % 2**32
