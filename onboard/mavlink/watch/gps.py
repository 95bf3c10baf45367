"""Is GPS there, and does it tell the truth? And, where it is configured, the switch to another source.

| verdict  | when                                                                                                 |
|----------|------------------------------------------------------------------------------------------------------|
| ABSENT   | no position fix was ever heard                                                                       |
| GOOD     | a 3-D fix, without any of the signs below                                                            |
| LOST     | there was one; now the fix is less than 3-D, or GPS_RAW_INT has been silent for 2 s                  |
| JUMPED   | within the last 30 s the position moved by more than speed, turns and claimed errors allow          |
| DIVERGES | for 5 s GPS and the map have been apart by more than `gps_disagreement_m` and 3 sigma of both errors |

JUMPED and DIVERGES are what spoofing looks like, and also what a bad receiver among high walls looks like. Which of the
two it is cannot be seen from here, and the words say no more than what was seen.

**The switch.** With `link.switch_source_set` above 0 a vehicle of ArduPilot is told once, by
MAV_CMD_SET_EKF_SOURCE_SET, to go by that set while GPS is LOST, JUMPED or DIVERGES and our own estimate is healthy. It
must answer; it is asked at most 4 times. Nothing ever switches back: when GPS is to be trusted again is the
pilot's to say (RCx_OPTION 90). After a restart of the vehicle, which begins with its first set, it is told again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.tell import commands
from onboard.mavlink.watch.announce import Lasting, Severity

SILENT_S = 2.0
STEADY_S = 5.0
HOLD_S = 30.0  # how long a jump is remembered
_FIX_3D = mav.GPS_FIX_TYPE_3D_FIX
_ACCELERATION_MPS2 = 10.0  # what a turn or a gust may do between two readings
_UNKNOWN_SPEED_MPS = 60.0  # where the receiver tells no velocity
_UNKNOWN_ERROR_M = 10.0  # where it claims no accuracy
_LEAST_JUMP_M = 10.0
_SIGMAS = 3.0


class GpsVerdict(str, Enum):
    ABSENT = "absent"
    GOOD = "good"
    LOST = "lost"
    JUMPED = "jumped"
    DIVERGES = "diverges"

    @property
    def bad(self) -> bool:
        """Whether a vehicle that goes by GPS is in danger."""
        return self in (GpsVerdict.LOST, GpsVerdict.JUMPED, GpsVerdict.DIVERGES)


@dataclass(frozen=True, slots=True)
class GpsSample:
    """One reading of the receiver in the map frame. `position_enu_m` (2,), `velocity_enu_mps` (2,) or None.

    `error_m` is the claimed 1 sigma, NaN where the receiver claims none.
    """

    at_ns: int
    fix_type: int
    position_enu_m: np.ndarray
    velocity_enu_mps: np.ndarray | None
    error_m: float


class GpsWatch:
    """Fed with every reading, and with our own position of the same instant where there is one."""

    def __init__(self, disagreement_m: float) -> None:
        self._disagreement_m = disagreement_m
        self._last: GpsSample | None = None
        self._heard_at_ns = 0
        self._fix_type = 0
        self._jumped_at_ns: int | None = None
        self._apart = Lasting()
        self.jump_m = math.nan
        self.distance_m: float | None = None  # between GPS and the map, as last compared

    def heard(self, sample: GpsSample, now_ns: int) -> None:
        """A reading, in order of time; one that is not newer than the last is left out."""
        if self._last is not None and 0 <= self._last.at_ns - sample.at_ns < 1_000_000_000:
            return  # repeated or overtaken; a larger step back is another clock
        self._heard_at_ns, self._fix_type = now_ns, sample.fix_type
        if sample.fix_type < _FIX_3D:
            self._apart.see(False, now_ns)
            return
        if self._last is not None and sample.at_ns > self._last.at_ns:
            jump_m = _unexplained_m(self._last, sample)
            if jump_m > 0:
                self._jumped_at_ns, self.jump_m = now_ns, jump_m
        self._last = sample

    def compared(self, distance_m: float, our_sigma_m: float, now_ns: int) -> None:
        """The distance between the last reading and our own position of that instant."""
        if self._last is None or self._fix_type < _FIX_3D:
            return
        sigma = math.hypot(our_sigma_m, _error_m(self._last))
        self.distance_m = distance_m
        self._apart.see(distance_m > max(self._disagreement_m, _SIGMAS * sigma), now_ns)

    def not_compared(self, now_ns: int) -> None:
        """We have no position of our own: what was seen of divergence is too old to go on with."""
        self._apart.see(False, now_ns)
        self.distance_m = None

    def verdict(self, now_ns: int) -> GpsVerdict:
        if self._last is None:
            return GpsVerdict.ABSENT
        if self._fix_type < _FIX_3D or now_ns - self._heard_at_ns > SILENT_S * 1e9:
            return GpsVerdict.LOST
        if self._apart.for_s(now_ns) >= STEADY_S:
            return GpsVerdict.DIVERGES
        if self._jumped_at_ns is not None and now_ns - self._jumped_at_ns <= HOLD_S * 1e9:
            return GpsVerdict.JUMPED
        return GpsVerdict.GOOD

    def words(self, now_ns: int) -> tuple[str, Severity]:
        """The text for the pilot (empty for ABSENT: a vehicle without GPS need not be told so) and its severity."""
        verdict = self.verdict(now_ns)
        if verdict is GpsVerdict.ABSENT:
            return "", Severity.INFO
        if verdict is GpsVerdict.DIVERGES:
            return "GPS and map disagree", Severity.CRITICAL
        if verdict is GpsVerdict.JUMPED:
            return f"GPS jumped by {min(self.jump_m, 999_999):.0f} m", Severity.CRITICAL
        if verdict is GpsVerdict.LOST:
            return "GPS lost", Severity.WARNING
        return "GPS present", Severity.INFO


def _error_m(sample: GpsSample) -> float:
    return sample.error_m if math.isfinite(sample.error_m) else _UNKNOWN_ERROR_M


def _unexplained_m(before: GpsSample, after: GpsSample) -> float:
    """By how much the receiver moved beyond what its own velocities, a turn and its errors allow; 0 for not at all."""
    dt = (after.at_ns - before.at_ns) * 1e-9
    moved = after.position_enu_m - before.position_enu_m
    speeds = [one.velocity_enu_mps for one in (before, after) if one.velocity_enu_mps is not None]
    room = _SIGMAS * math.hypot(_error_m(before), _error_m(after)) + 0.5 * _ACCELERATION_MPS2 * dt**2
    if len(speeds) == 2:
        moved = moved - (speeds[0] + speeds[1]) / 2 * dt
    else:
        room += _UNKNOWN_SPEED_MPS * dt
    off = float(np.hypot(*moved))
    return off if off > max(_LEAST_JUMP_M, room) else 0.0


class Switching(str, Enum):
    """How far the switch of the source set has come."""

    IDLE = "idle"
    ASKED = "asked"
    DONE = "done"
    FAILED = "failed"


class SourceSwitch:
    """Says once to go by another source set, and listens for the answer."""

    TRIES = 4
    RETRY_NS = 1_000_000_000

    def __init__(self, source_set: int) -> None:
        self.source_set = source_set
        self.state = Switching.IDLE
        self._tries = 0
        self._asked_at_ns = 0

    def due(self, wanted: bool, now_ns: int, target_system: int = 1) -> mav.MAVLink_command_long_message | None:
        """The command to send now. `wanted`: GPS is bad and our own estimate healthy; once asked it stays asked."""
        if self.source_set <= 0 or self.state in (Switching.DONE, Switching.FAILED):
            return None
        if self.state is Switching.IDLE and not wanted:
            return None
        if self.state is Switching.ASKED and now_ns - self._asked_at_ns < self.RETRY_NS:
            return None
        if self._tries >= self.TRIES:
            self.state = Switching.FAILED
            return None
        self.state = Switching.ASKED
        self._tries, self._asked_at_ns = self._tries + 1, now_ns
        command = commands.set_ekf_source_set(self.source_set, target_system)
        command.confirmation = self._tries - 1  # MAVLink's count of repetitions
        return command

    def heard(self, message: mav.MAVLink_command_ack_message) -> None:
        """A COMMAND_ACK. Refusals are final, "not now" and "in progress" are asked again."""
        if self.state is not Switching.ASKED or message.command != mav.MAV_CMD_SET_EKF_SOURCE_SET:
            return
        if message.result == mav.MAV_RESULT_ACCEPTED:
            self.state = Switching.DONE
        elif message.result not in (mav.MAV_RESULT_TEMPORARILY_REJECTED, mav.MAV_RESULT_IN_PROGRESS):
            self.state = Switching.FAILED

    def words(self) -> tuple[str, Severity]:
        """The text for the pilot and its severity; empty while nothing was done."""
        if self.state is Switching.DONE:
            return f"switched to EKF source set {self.source_set}", Severity.NOTICE
        if self.state is Switching.FAILED:
            return f"EKF source set {self.source_set} was not taken", Severity.CRITICAL
        return "", Severity.INFO
