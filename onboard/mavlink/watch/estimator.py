"""Does the vehicle's estimator use our fixes? Judged by what it says of itself, and by where it believes to be.

| verdict  | when                                                                                              |
|----------|---------------------------------------------------------------------------------------------------|
| UNKNOWN  | it has not spoken for 3 s, nothing was sent to it yet, or none of the others has lasted 5 s        |
| USED     | it holds an absolute position, complains of nothing, and is where we say it is                      |
| BLIND    | for 5 s it has held no absolute position nor expects to hold one, and we send none                  |
| IGNORED  | we have been sending for 5 s, and it still holds no absolute position                               |
| REFUSED  | its own test of the horizontal position has failed (ratio above 1) for 5 s                          |
| DIVERGED | its position has been off ours by more than 15 m and 4 sigma for 5 s, whatever its test says        |

USED is said of what can be seen. Where GPS is on as well and agrees with the map, nobody outside can tell which of
the two the estimator follows.

The flags of EKF_STATUS_REPORT (ArduPilot) and of ESTIMATOR_STATUS (PX4) are the same up to CONST_POS_MODE. ArduPilot
sends the square root of its test ratio in `pos_horiz_variance`, PX4 the ratio: both refuse above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink.vehicle.autopilot import Autopilot
from onboard.mavlink.watch.announce import Lasting, Severity

SILENT_S = 3.0  # an estimator that has not spoken for so long is not known
PATIENCE_S = 5.0  # before anything bad is said
SENDING_GAP_S = 1.0  # a longer pause begins the sending anew
APART_M, APART_SIGMA = 15.0, 4.0
_ABSOLUTE = mav.EKF_POS_HORIZ_ABS
_READY = mav.EKF_PRED_POS_HORIZ_ABS


class EstimatorVerdict(str, Enum):
    UNKNOWN = "unknown"
    USED = "used"
    IGNORED = "ignored"
    REFUSED = "refused"
    DIVERGED = "diverged"
    BLIND = "blind"


_SENTENCES = {
    EstimatorVerdict.UNKNOWN: "the estimator has not said whether it uses the fixes",
    EstimatorVerdict.USED: "the estimator holds a position, and it agrees with ours",
    EstimatorVerdict.IGNORED: "fixes are sent, but the estimator holds no position",
    EstimatorVerdict.REFUSED: "the estimator's own test has refused the fixes for 5 s",
    EstimatorVerdict.DIVERGED: "the vehicle believes to be far from where the map says",
    EstimatorVerdict.BLIND: "the estimator holds no horizontal position, and no fix was sent to it",
}
_SEVERITIES = {
    EstimatorVerdict.UNKNOWN: Severity.INFO,
    EstimatorVerdict.USED: Severity.INFO,
    EstimatorVerdict.IGNORED: Severity.ERROR,
    EstimatorVerdict.REFUSED: Severity.WARNING,
    EstimatorVerdict.DIVERGED: Severity.CRITICAL,
    EstimatorVerdict.BLIND: Severity.WARNING,
}
# What to look at, by the profile that carries the fixes, when they are ignored and when they are refused.
_SWITCH_ON = {
    "ardupilot-odometry": "EK3_SRC1_POSXY 6, VISO_TYPE 1",
    "ardupilot-vision": "EK3_SRC1_POSXY 6, VISO_TYPE 1",
    "ardupilot-gps-input": "EK3_SRC1_POSXY 3, GPS1_TYPE 14",
    "px4-global-position": "EKF2_AGP0_CTRL 1, _ID 1",
    "px4-odometry": "EKF2_EV_CTRL 1",
}
_TRUST = {
    "ardupilot-odometry": "VISO_DELAY_MS, VISO_POS_M_NSE",
    "ardupilot-vision": "VISO_DELAY_MS, VISO_POS_M_NSE",
    "ardupilot-gps-input": "GPS1_DELAY_MS",
    "px4-global-position": "EKF2_AGP0_DELAY",
    "px4-odometry": "EKF2_EV_DELAY",
}


@dataclass(frozen=True, slots=True)
class EstimatorOpinion:
    """A verdict with its sentence, what to do about it (empty: nothing), and the words for the pilot."""

    verdict: EstimatorVerdict
    sentence: str
    remedy: str
    text: str
    severity: Severity


class EstimatorWatch:
    """Fed with what is sent and heard, by our clock; a vehicle that restarts gets a new one."""

    def __init__(self) -> None:
        self._flags: int | None = None
        self._read_at_ns = 0
        self._sent_at_ns: int | None = None
        self._sending, self._placeless, self._refusing, self._apart = (Lasting() for _ in range(4))
        self._apart_m, self._compared_at_ns = 0.0, 0

    def sent(self, now_ns: int) -> None:
        """An estimate left for the vehicle."""
        self._check_sending(now_ns)
        self._sending.see(True, now_ns)
        self._sent_at_ns = now_ns

    def heard(self, flags: int, pos_horiz_ratio: float, now_ns: int) -> None:
        """An EKF_STATUS_REPORT or an ESTIMATOR_STATUS. The ratio is above 1 where the position is refused."""
        self._flags, self._read_at_ns = flags, now_ns
        self._refusing.see(pos_horiz_ratio > 1.0, now_ns)
        self._placeless.see(not (_fixed(flags) or flags & _READY), now_ns)

    def compared(self, distance_m: float, sigma_m: float, now_ns: int) -> None:
        """How far the vehicle's own position is from ours of the same instant; `sigma_m`: of both together."""
        if now_ns - self._compared_at_ns > SILENT_S * 1e9:
            self._apart.see(False, now_ns)
        self._apart_m, self._compared_at_ns = distance_m, now_ns
        self._apart.see(distance_m > max(APART_M, APART_SIGMA * sigma_m), now_ns)

    def verdict(self, now_ns: int) -> EstimatorVerdict:
        self._check_sending(now_ns)
        if self._flags is None or now_ns - self._read_at_ns > SILENT_S * 1e9:
            return EstimatorVerdict.UNKNOWN
        if not _fixed(self._flags):
            if self._sending.for_s(now_ns) >= PATIENCE_S:
                return EstimatorVerdict.IGNORED
            blind = self._placeless.for_s(now_ns) >= PATIENCE_S and not self._sending.is_so
            return EstimatorVerdict.BLIND if blind else EstimatorVerdict.UNKNOWN
        if self._sent_at_ns is None:
            return EstimatorVerdict.UNKNOWN
        if self._refusing.for_s(now_ns) >= PATIENCE_S:
            return EstimatorVerdict.REFUSED
        fresh = now_ns - self._compared_at_ns <= SILENT_S * 1e9
        if fresh and self._apart.for_s(now_ns) >= PATIENCE_S:
            return EstimatorVerdict.DIVERGED
        return EstimatorVerdict.USED

    def opinion(self, now_ns: int, autopilot: Autopilot, profile: str) -> EstimatorOpinion:
        """The verdict in words for one firmware and the profile (by name) that carries the fixes."""
        verdict = self.verdict(now_ns)
        remedy, text = "", ""
        if verdict is EstimatorVerdict.IGNORED:
            switch = _SWITCH_ON.get(profile, "its position source")
            remedy, text = f"set {switch} ({autopilot.value})", f"fix ignored: {switch}"
        elif verdict is EstimatorVerdict.REFUSED:
            remedy = f"look at {_TRUST.get(profile, 'the delay and the noise')}, and at the compass"
            text = "estimator refuses the fixes"
        elif verdict is EstimatorVerdict.DIVERGED:
            remedy = "fly by hand; do not trust either position until they agree"
            text = f"vehicle is {min(self._apart_m, 99999):.0f} m off the map fix"
        elif verdict is EstimatorVerdict.BLIND:
            remedy = "fly where the map shows something, or by another source"
            text = "estimator has no position, no fix is sent"
        elif verdict is EstimatorVerdict.USED:
            text = "estimator agrees with the fixes"
        return EstimatorOpinion(verdict, _SENTENCES[verdict], remedy, text, _SEVERITIES[verdict])

    def _check_sending(self, now_ns: int) -> None:
        """A pause ends the sending."""
        if self._sent_at_ns is not None and now_ns - self._sent_at_ns > SENDING_GAP_S * 1e9:
            self._sending.see(False, now_ns)


def _fixed(flags: int) -> bool:
    return bool(flags & _ABSOLUTE) and not flags & mav.EKF_CONST_POS_MODE
