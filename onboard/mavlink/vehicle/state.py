"""The vehicle at the other end: what it says it is, where it believes to be, and what has to be asked of it.

Pure: fed with the messages that were accepted, told the time. Only its autopilot (component 1) is believed, beside
gimbals, which speak for themselves.
"""

from __future__ import annotations

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.tell.commands import AUTOPILOT
from onboard.mavlink.tell.place import Home
from onboard.mavlink.vehicle import identity
from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.vehicle.hearing import Hearing
from onboard.mavlink.vehicle.height import HeightSource
from onboard.mavlink.vehicle.readings import (
    EstimatorReading,
    GimbalReading,
    GlobalPosition,
    GpsReading,
    ImuReading,
    LocalPosition,
)
from onboard.mavlink.vehicle.streams import Streams, is_for_us, request_message
from onboard.mavlink.vehicle.timesync import TimeSync
from onboard.telemetry import TelemetryBuffer

__all__ = [
    "Autopilot",
    "EstimatorReading",
    "GimbalReading",
    "GlobalPosition",
    "GpsReading",
    "HeightSource",
    "ImuReading",
    "LocalPosition",
    "Vehicle",
]

ALIVE_NS = 3_000_000_000  # three heartbeats
_AWAY_NS = 5_000_000_000  # a longer silence: who returns may have begun anew
_BACK_MS = 1000  # a boot clock that goes back by more is another boot
_BACK_CONFIRMED = 3  # messages in a row
_WRAP_MS = 2**32
_ASK_FIRST_NS, _ASK_LONGEST_NS = 500_000_000, 10_000_000_000
_ASK_AGAIN_NS = 60_000_000_000  # for what may have changed since it was told


class Vehicle:
    """One vehicle. `max_telemetry_age_ns` is the buffer's; `budget_bytes_per_s` bounds what it is asked to stream.
    `rates_lag_ns` is how old the gyroscopes' rates are that it tells; `on_gimbal`: the camera hangs on a gimbal.

    `restarted` counts the restarts seen: what it had told before is then unknown, and asked for again.
    """

    origin: Home | None  # of its local frame; None where it has none
    home: Home | None
    version: str  # "4.7.0-dev (265753db)"; empty where not told
    capabilities: int  # MAV_PROTOCOL_CAPABILITY bits
    _boot_ms: int | None
    _back: int
    _told_ns: dict[str, int | None]
    _asked: dict[str, tuple[int, int]]  # how often in vain, and when

    def __init__(
        self,
        max_telemetry_age_ns: int = 250_000_000,
        *,
        budget_bytes_per_s: float | None = None,
        rates_lag_ns: int = 0,
        on_gimbal: bool = False,
    ) -> None:
        self.sync = TimeSync()
        self.streams = Streams(budget_bytes_per_s, on_gimbal)
        self.hearing = Hearing(self.sync, TelemetryBuffer(max_telemetry_age_ns, on_gimbal), rates_lag_ns)
        self.target_system = 1
        self.autopilot = Autopilot.UNKNOWN
        self.vehicle_type = mav.MAV_TYPE_GENERIC
        self.armed = False
        self.mode = 0
        self._beat_ns: int | None = None
        self._restarted = 0
        self._forget()

    # -- what is known

    @property
    def restarted(self) -> int:
        return self.sync.restarted

    @property
    def telemetry(self) -> TelemetryBuffer:
        """Attitude, height and velocity by our clock."""
        return self.hearing.telemetry

    @property
    def firmware(self) -> str:
        """ "ArduCopter 4.7.0-dev (265753db)"; the version once it was told, nothing before the first heartbeat."""
        if self.autopilot is Autopilot.UNKNOWN:
            return ""
        return f"{identity.firmware_name(self.autopilot, self.vehicle_type)} {self.version}".rstrip()

    @property
    def kind(self) -> str:
        """ "quadrotor", "fixed wing" and so on."""
        return identity.kind_of(self.vehicle_type)

    @property
    def mode_name(self) -> str:
        return identity.mode_name(self.autopilot, self.vehicle_type, self.mode)

    @property
    def local(self) -> LocalPosition | None:
        return self.hearing.local

    @property
    def globe(self) -> GlobalPosition | None:
        return self.hearing.globe

    @property
    def relative_height_m(self) -> float | None:
        """Above home, as last told."""
        return self.hearing.globe.relative_height_m if self.hearing.globe else None

    @property
    def height_m(self) -> float | None:
        """As last told by `height_source`, which says above what."""
        return self.hearing.height_m

    @property
    def height_source(self) -> HeightSource | None:
        return self.hearing.height_source

    @property
    def gps(self) -> GpsReading | None:
        return self.hearing.gps

    @property
    def estimator(self) -> EstimatorReading | None:
        return self.hearing.estimator

    @property
    def gimbal(self) -> GimbalReading | None:
        return self.hearing.gimbal

    @property
    def imu(self) -> ImuReading | None:
        return self.hearing.imu

    def alive(self, now_ns: int) -> bool:
        """Whether its heart has beaten lately."""
        return self._beat_ns is not None and now_ns - self._beat_ns <= ALIVE_NS

    def rates_hz(self, now_ns: int) -> dict[str, float]:
        """Of each message, over the last 5 s."""
        return self.streams.rates_hz(now_ns)

    # -- what comes

    def heard(self, message: mav.MAVLink_message, now_ns: int) -> None:
        """Take one accepted message in."""
        kind = message.get_type()
        if kind == "GIMBAL_DEVICE_ATTITUDE_STATUS":
            self.hearing.heard_gimbal(message, now_ns)
            if message.get_srcComponent() != AUTOPILOT:
                return
        if message.get_srcComponent() != AUTOPILOT:
            return
        if kind == "HEARTBEAT":
            self._heartbeat(message, now_ns)
        elif kind == "TIMESYNC":
            self.sync.heard(message, now_ns)
        elif kind == "AUTOPILOT_VERSION":
            self.capabilities = message.capabilities
            self.version = identity.version_of(message, self.autopilot)
        elif kind == "GPS_GLOBAL_ORIGIN":
            self.origin = _place(message) or self.origin
        elif kind == "HOME_POSITION":
            self.home = _place(message) or self.home
        if kind in self._told_ns:
            self._told_ns[kind] = now_ns
        if "time_boot_ms" in message.fieldnames:
            self._boot_clock(message.time_boot_ms)
        if self.sync.restarted != self._restarted:
            self._restarted = self.sync.restarted
            self._forget()
        if kind != "COMMAND_ACK" or is_for_us(message):
            self.streams.heard(message, now_ns)
        self.hearing.heard(message, now_ns)

    def _heartbeat(self, message: mav.MAVLink_message, now_ns: int) -> None:
        if message.autopilot == mav.MAV_AUTOPILOT_INVALID:
            return
        if self._beat_ns is not None and now_ns - self._beat_ns > _AWAY_NS:
            self._forget()
        self._beat_ns = now_ns
        self.target_system = message.get_srcSystem()
        self.autopilot, self.vehicle_type = identity.autopilot_of(message.autopilot), message.type
        armed = bool(message.base_mode & mav.MAV_MODE_FLAG_SAFETY_ARMED)
        if armed and not self.armed:  # ArduPilot moves home to where it is armed
            self._told_ns["HOME_POSITION"] = None
            self._asked.pop("HOME_POSITION", None)
        self.armed = armed
        self.mode = message.custom_mode

    def _boot_clock(self, boot_ms: int) -> None:
        """Stamps that go back by more than lateness, several in a row, are a new boot's."""
        if self._boot_ms is not None:
            ahead_ms = (boot_ms - self._boot_ms + _WRAP_MS // 2) % _WRAP_MS - _WRAP_MS // 2
            if ahead_ms < -_BACK_MS:
                self._back += 1
                if self._back >= _BACK_CONFIRMED:
                    self.sync.vehicle_restarted()
                return
            if ahead_ms < 0:
                return
        self._boot_ms, self._back = boot_ms, 0

    def _forget(self) -> None:
        """As if it had never told anything; its kind and its firmware's name are known by each heartbeat."""
        self.version = ""
        self.capabilities = 0
        self.origin = None
        self.home = None
        self._boot_ms = None
        self._back = 0
        self._told_ns = dict.fromkeys(("AUTOPILOT_VERSION", "GPS_GLOBAL_ORIGIN", "HOME_POSITION"))
        self._asked = {}
        self.streams.restart()
        self.hearing.forget()

    # -- what is asked for

    def requests(self, now_ns: int) -> list[mav.MAVLink_message]:
        """What is due to be sent to it: TIMESYNC; and for a vehicle that is alive, one stream and what it is once."""
        sync = self.sync.request(now_ns)
        requests: list[mav.MAVLink_message] = [] if sync is None else [sync]
        if not self.alive(now_ns):
            return requests
        stream = self.streams.request(self.autopilot, self.target_system, now_ns)
        if stream is not None:
            requests.append(stream)
        for name, told_ns in self._told_ns.items():
            times, at_ns = self._asked.get(name, (0, 0))
            if told_ns is not None and told_ns >= at_ns:
                times, wait_ns = 0, _ASK_AGAIN_NS
            else:
                wait_ns = min(_ASK_FIRST_NS << max(0, min(times, 8) - 1), _ASK_LONGEST_NS)
            last_ns = max(at_ns, told_ns or 0)
            if last_ns == 0 or now_ns - last_ns >= wait_ns:
                self._asked[name] = (times + 1, now_ns)
                requests.append(request_message(name, self.target_system))
        return requests


def _place(message: mav.MAVLink_message) -> Home | None:
    """Of GPS_GLOBAL_ORIGIN and HOME_POSITION; all zeros stand for "none"."""
    if not (message.latitude or message.longitude or message.altitude):
        return None
    return Home(message.latitude, message.longitude, message.altitude)
