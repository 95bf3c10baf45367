"""Which messages the vehicle shall stream, how often, and the asking until they come.

SET_MESSAGE_INTERVAL is answered by a COMMAND_ACK that does not name the message, so one is asked for at a time. A
stream that is missing or slow is asked for again, later each time; one that is refused twice and never came
is not there. On a thin link the rates shrink together, down to what each message is still of use at; then the least
important ones are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.tell.commands import AUTOPILOT, COMPONENT
from onboard.mavlink.vehicle.autopilot import Autopilot

_FRAME_BYTES = 12 + 13  # MAVLink 2's header and checksum, and a signature
_ANSWER_NS = 300_000_000  # waited for a COMMAND_ACK
_RATE_WINDOW_NS = 5_000_000_000
_SLOW = 0.6  # of what was asked for
_SOME = 2.5  # messages must be due before their rate is judged
_FIRST_WAIT_NS, _LONGEST_WAIT_NS = 1_000_000_000, 30_000_000_000
_REFUSED = 2
_ALL = frozenset(Autopilot)
_ARDUPILOT = frozenset((Autopilot.ARDUPILOT,))
_NOT_ARDUPILOT = _ALL - _ARDUPILOT


@dataclass(frozen=True, slots=True)
class Stream:
    """One message: the rate wanted, the least that is of use, and whose firmware has it.

    `of_gimbal`: asked for only where the camera hangs on one.
    """

    name: str
    rate_hz: float
    least_hz: float
    firmwares: frozenset[Autopilot] = _ALL
    instead_of: str = ""  # asked for only where that one is refused
    of_gimbal: bool = False

    @property
    def message_id(self) -> int:
        return int(getattr(mav, f"MAVLINK_MSG_ID_{self.name}"))

    @property
    def bytes(self) -> int:
        """On the wire, at most."""
        return int(mav.mavlink_map[self.message_id].unpacker.size) + _FRAME_BYTES


# By importance: the last ones are the first to go.
WANTED = (
    Stream("ATTITUDE_QUATERNION", 50, 10),
    Stream("ATTITUDE", 50, 10, instead_of="ATTITUDE_QUATERNION"),
    Stream("GIMBAL_DEVICE_ATTITUDE_STATUS", 25, 10, of_gimbal=True),
    Stream("GLOBAL_POSITION_INT", 10, 4),
    Stream("SCALED_IMU", 50, 25),
    Stream("LOCAL_POSITION_NED", 10, 4),
    Stream("EKF_STATUS_REPORT", 4, 1, _ARDUPILOT),
    Stream("ESTIMATOR_STATUS", 4, 1, _NOT_ARDUPILOT),
    Stream("DISTANCE_SENSOR", 10, 4),
    Stream("ALTITUDE", 10, 4, _NOT_ARDUPILOT),
    Stream("GPS_RAW_INT", 5, 1),
    Stream("SYS_STATUS", 1, 0.5),
)


@lru_cache(maxsize=64)
def plan(
    autopilot: Autopilot,
    budget_bytes_per_s: float | None,
    refused: frozenset[str] = frozenset(),
    on_gimbal: bool = False,
) -> Mapping[str, float]:
    """Name and Hz of the streams to ask for, most important first. `budget_bytes_per_s` None: as much as is wanted.

    A link too thin for attitude at its least rate gets nothing. The bound holds for what is asked for here, each
    message counted at its full length and signed.
    """
    streams = [
        one
        for one in WANTED
        if autopilot in one.firmwares
        and one.name not in refused
        and (not one.instead_of or one.instead_of in refused)
        and (on_gimbal or not one.of_gimbal)
    ]
    if budget_bytes_per_s is None:
        return {one.name: one.rate_hz for one in streams}
    while streams and sum(one.bytes * one.least_hz for one in streams) > budget_bytes_per_s:
        streams.pop()
    low, high = 0.0, 1.0  # the common factor that just fits
    for _ in range(30):
        share = (low + high) / 2
        fits = sum(one.bytes * _rate(one, share) for one in streams) <= budget_bytes_per_s
        low, high = (share, high) if fits else (low, share)
    return {one.name: _rate(one, low) for one in streams}


def bytes_per_s(rates_hz: Mapping[str, float]) -> float:
    """What such streams take of the link."""
    lengths = {one.name: one.bytes for one in WANTED}
    return sum(lengths[name] * rate for name, rate in rates_hz.items())


def _rate(stream: Stream, share: float) -> float:
    return max(stream.least_hz, stream.rate_hz * share)


@dataclass(slots=True)
class _Asked:
    """How often and when a message was asked for."""

    times: int = 0
    at_ns: int = 0
    refusals: int = 0

    def due(self, rate_hz: float, now_ns: int) -> bool:
        """Whether it is time to look again; never before some messages of that rate should have come."""
        if not self.times:
            return True
        wait_ns = min(_FIRST_WAIT_NS << min(self.times - 1, 10), _LONGEST_WAIT_NS)
        return now_ns - self.at_ns >= max(wait_ns, _SOME * 1e9 / rate_hz)


class Streams:
    """The streams of one vehicle; fed with all its messages. `on_gimbal`: the camera hangs on a gimbal."""

    def __init__(self, budget_bytes_per_s: float | None = None, on_gimbal: bool = False) -> None:
        self._budget, self._on_gimbal = budget_bytes_per_s, on_gimbal
        self._arrivals_ns: dict[str, deque[int]] = {}
        self.restart()

    def restart(self) -> None:
        """The vehicle has begun anew: it has forgotten what it was asked for."""
        self._asked: dict[str, _Asked] = {}
        self._open: str | None = None  # asked for, not answered yet
        self._arrivals_ns.clear()

    @property
    def refused(self) -> frozenset[str]:
        """Messages that the vehicle does not have."""
        return frozenset(n for n, a in self._asked.items() if a.refusals >= _REFUSED and n not in self._arrivals_ns)

    def wanted_hz(self, autopilot: Autopilot) -> Mapping[str, float]:
        """What the vehicle is asked for."""
        return plan(autopilot, self._budget, self.refused, self._on_gimbal)

    def heard(self, message: mav.MAVLink_message, now_ns: int) -> None:
        kind = message.get_type()
        self._arrivals_ns.setdefault(kind, deque(maxlen=1000)).append(now_ns)
        if kind == "COMMAND_ACK" and message.command == mav.MAV_CMD_SET_MESSAGE_INTERVAL and self._open:
            if message.result not in (mav.MAV_RESULT_ACCEPTED, mav.MAV_RESULT_TEMPORARILY_REJECTED):
                self._asked[self._open].refusals += 1
            self._open = None

    def rates_hz(self, now_ns: int) -> dict[str, float]:
        """Of every message that came in the last 5 s."""
        rates = {}
        for name, times in self._arrivals_ns.items():
            while times and now_ns - times[0] > _RATE_WINDOW_NS:
                times.popleft()
            if times:
                rates[name] = len(times) / (_RATE_WINDOW_NS / 1e9)
        return rates

    def request(self, autopilot: Autopilot, target_system: int, now_ns: int) -> mav.MAVLink_message | None:
        """The next SET_MESSAGE_INTERVAL, when one is due."""
        if self._open and now_ns - self._asked[self._open].at_ns < _ANSWER_NS:
            return None
        wanted = self.wanted_hz(autopilot)
        waiting = [n for n in wanted if self._asked.setdefault(n, _Asked()).due(wanted[n], now_ns)]
        if not waiting:
            return None
        for name in waiting:
            asked = self._asked[name]
            if self._comes(name, wanted[name], asked, now_ns):
                asked.times, asked.at_ns = 1, now_ns  # it comes; looked at again in a second
                continue
            asked.times, asked.at_ns, self._open = asked.times + 1, now_ns, name
            return set_message_interval(name, wanted[name], target_system)
        return None

    def _comes(self, name: str, rate_hz: float, asked: _Asked, now_ns: int) -> bool:
        """Whether a message has come about as often as it should since it was asked for; one may be on its way."""
        since_ns = max(asked.at_ns, now_ns - _RATE_WINDOW_NS)
        came = sum(at_ns > since_ns for at_ns in self._arrivals_ns.get(name, ()))
        return came + 1 >= _SLOW * rate_hz * (now_ns - since_ns) / 1e9


def set_message_interval(name: str, rate_hz: float, target_system: int) -> mav.MAVLink_command_long_message:
    """The command that a message of a name be streamed."""
    number = getattr(mav, f"MAVLINK_MSG_ID_{name}")
    return _command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, number, round(1e6 / rate_hz), target_system)


def request_message(name: str, target_system: int) -> mav.MAVLink_command_long_message:
    """The command that a message of a name be sent once."""
    return _command(mav.MAV_CMD_REQUEST_MESSAGE, getattr(mav, f"MAVLINK_MSG_ID_{name}"), 0, target_system)


def is_for_us(message: mav.MAVLink_message) -> bool:
    """Whether a COMMAND_ACK answers this companion; firmwares of before the field leave it 0."""
    return message.target_component in (0, COMPONENT)


def _command(command: int, param1: float, param2: float, target_system: int) -> mav.MAVLink_command_long_message:
    return mav.MAVLink_command_long_message(target_system, AUTOPILOT, command, 0, param1, param2, 0, 0, 0, 0, 0)
