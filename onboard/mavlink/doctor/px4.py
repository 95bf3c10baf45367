"""PX4's parameters: GLOBAL_POSITION_SENSOR as an auxiliary global position, ODOMETRY as external vision.

Of PX4's parameter tables and source (EKF2's params_*.yaml, aux_global_position). Nothing here was flown.

Both messages carry the instant that they are valid at, in a clock that PX4 follows by TIMESYNC, and its delay
parameters count on top of that: so they are 0, unlike ArduPilot's.
"""

from __future__ import annotations

from onboard.mavlink.doctor.rules import Case, Finding, Rule, Severity, between, equals
from onboard.mavlink.tell.messages import SENSOR_ID
from onboard.mavlink.tell.profile import PX4_ODOMETRY, Profile

_POSITION, _VERTICAL, _VELOCITY, _YAW = 1, 2, 4, 8  # bits of EKF2_EV_CTRL; the first two of EKF2_AGPn_CTRL as well
_BARO, _GPS, _VISION = 0, 1, 3  # of EKF2_HGT_REF
_NO_COMPASS = 5
_ONBOARD = 2  # MAV_n_MODE
_INSTANCES = (0, 1, 2)
_DELAY_MARGIN_MS = 50.0


def _no_gps(case: Case) -> bool:
    return case.get("SYS_HAS_GPS") == 0


def _horizon(value: float, case: Case) -> float:
    return 10.0 * round((case.link.latency_ms + _DELAY_MARGIN_MS) / 10.0 + 0.499)


_COMMON = (
    Rule(("EKF2_EN",), equals(1), 1, "EKF2 is the estimator that takes these messages", reboot=True, needed=False),
    Rule(
        ("EKF2_DELAY_MAX",),
        lambda value, case: value >= case.link.latency_ms + _DELAY_MARGIN_MS / 2,
        _horizon,
        "what is older than EKF2's buffers is thrown away, and ours is link.latency_ms old",
        reboot=True,
        needed=False,
    ),
    Rule(
        ("EKF2_HGT_REF",),
        lambda value, case: value != _VISION,
        _BARO,
        "the height sent is the vehicle's own, returned to it: it must measure height itself",
        reboot=True,
    ),
    Rule(
        ("EKF2_HGT_REF",),
        lambda value, case: value != _GPS,
        _BARO,
        "there is no GPS (SYS_HAS_GPS 0) to take height from",
        applies=_no_gps,
        reboot=True,
    ),
    Rule(
        ("EKF2_HGT_REF",),
        lambda value, case: value != _GPS,
        _BARO,
        "a height that hangs on GPS jumps when GPS is lost",
        Severity.SHOULD,
        reboot=True,
    ),
    Rule(
        ("EKF2_MAG_TYPE",),
        lambda value, case: value != _NO_COMPASS,
        0,
        "nothing is fused before the heading is known, and without GPS the compass is what gives it",
    ),
    Rule(
        ("COM_ARM_WO_GPS",),
        lambda value, case: value != 0,
        1,
        "0 refuses to arm without GPS, and there is none (SYS_HAS_GPS 0)",
        applies=_no_gps,
        needed=False,
    ),
)
_GLOBAL = (
    Rule(
        ("EKF2_AGP0_ID",),
        equals(SENSOR_ID),
        SENSOR_ID,
        "the slot listens to the sensor of this id, which is ours; 0 switches it off",
        reboot=True,
        applies=lambda case: not _is_old(case),
    ),
    Rule(
        ("EKF2_AGP0_CTRL", "EKF2_AGP_CTRL"),
        lambda value, case: bool(int(value) & _POSITION),
        lambda value, case: float((int(value) | _POSITION) & ~_VERTICAL),
        "bit 0 fuses the position: without it the messages are looked at and left",
    ),
    Rule(
        ("EKF2_AGP0_CTRL", "EKF2_AGP_CTRL"),
        lambda value, case: not int(value) & _VERTICAL,
        lambda value, case: float(int(value) & ~_VERTICAL),
        "the height sent is the vehicle's own, returned to it",
        Severity.SHOULD,
    ),
    Rule(
        ("EKF2_AGP0_DELAY", "EKF2_AGP_DELAY"),
        equals(0),
        0,
        "each message says how old it is: a delay here would be counted twice",
        reboot=True,
    ),
    Rule(
        ("EKF2_AGP0_NOISE", "EKF2_AGP_NOISE"),
        between(0.3, 10.0),
        1.0,
        "a floor under the error told: too low lets one bold message pull the vehicle, too high hides good ones",
        Severity.SHOULD,
        needed=False,
    ),
)
_ODOMETRY = (
    Rule(
        ("EKF2_EV_CTRL",),
        lambda value, case: int(value) & (_POSITION | _VERTICAL | _YAW) == _POSITION,
        _POSITION,
        "bit 0 is the position, the only thing that the map measures: no height (bit 1), no heading (bit 3)",
    ),
    Rule(
        ("EKF2_EV_CTRL",),
        lambda value, case: not int(value) & _VELOCITY,
        _POSITION,
        "the velocity sent derives from the vehicle's own attitude: fused on ArduPilot, the flight diverged",
        Severity.SHOULD,
    ),
    Rule(
        ("EKF2_EV_DELAY",),
        equals(0),
        0,
        "each message carries the instant that it is valid at: a delay here would be counted twice",
        reboot=True,
    ),
    Rule(("EKF2_EV_NOISE_MD",), equals(0), 0, "1 puts the parameters in place of the errors told", needed=False),
    Rule(
        ("EKF2_EV_QMIN",),
        between(0, 50),
        0,
        "quality falls while motion alone carries the estimate: messages below this are thrown away",
        Severity.SHOULD,
        needed=False,
    ),
    Rule(
        ("EKF2_EVP_NOISE",),
        between(0.3, 5.0),
        1.0,
        "a floor under the error told: too low lets one bold message pull the vehicle, too high hides good ones",
        Severity.SHOULD,
    ),
    Rule(
        ("EKF2_GPS_CTRL",),
        lambda value, case: not int(value) & _POSITION,
        0,
        "a map position must not be told as external vision while GPS is fused: the two frames differ",
        applies=lambda case: not _no_gps(case),
    ),
)


def _is_old(case: Case) -> bool:
    """A firmware with one auxiliary position, from before the slots."""
    return "EKF2_AGP0_CTRL" not in case.values and "EKF2_AGP_CTRL" in case.values


def table(profile: Profile) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    extra = ["SYS_HAS_GPS"] + [f"MAV_{number}_{what}" for number in _INSTANCES for what in ("CONFIG", "MODE")]
    return (_ODOMETRY if profile is PX4_ODOMETRY else _GLOBAL) + _COMMON, tuple(extra)


def settings(profile: Profile, case: Case) -> list[Finding]:
    """What no single parameter shows."""
    found = []
    if profile is not PX4_ODOMETRY and _is_old(case):
        why = "it has one auxiliary position only, and most such versions do not read GLOBAL_POSITION_SENSOR by MAVLink"
        found.append(Finding(Severity.SHOULD, "firmware", None, "a PX4 with EKF2_AGP0_CTRL", why))
    if case.serial and not any(_serves_us(case, number) for number in _INSTANCES):
        why = "no instance that is switched on (MAV_n_CONFIG) runs as Onboard: streams for a companion come slowly"
        found.append(Finding(Severity.SHOULD, "MAV_n_MODE", None, f"{_ONBOARD} (Onboard) on this line", why))
    return found


def _serves_us(case: Case, number: int) -> bool:
    return bool(case.get(f"MAV_{number}_CONFIG")) and case.get(f"MAV_{number}_MODE") == _ONBOARD
