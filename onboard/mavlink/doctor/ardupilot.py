"""ArduPilot's parameters: ODOMETRY and VISION_POSITION_ESTIMATE as external navigation, GPS_INPUT as a GPS.

Figures are of simulated flights on ArduCopter 4.7.0-dev; what the pre-arm checks refuse is of its source (AP_Arming).
The source sets are in `sources`.
"""

from __future__ import annotations

from onboard.mavlink.doctor.rules import Case, Finding, Rule, Severity, between, equals
from onboard.mavlink.doctor.sources import (
    EXTERNAL,
    GPS,
    GPS_TYPE,
    SETS,
    any_external_velocity,
    left_over_gps_rules,
    set_that_holds_us,
    source_rules,
)
from onboard.mavlink.tell.latency import VEHICLE_LIMIT_MS
from onboard.mavlink.tell.profile import ARDUPILOT_GPS_INPUT, Profile
from onboard.mavlink.vehicle.inertia import rates_lag_ns

_MAVLINK_1, _MAVLINK_2 = 1, 2
_GPS_IS_MAVLINK = 14
_VISION_CHECK = 1 << 18
_ALL_CHECKS = 0xFFFFE  # bits 1 to 19; bit 0 stands for all of them
_DELAY_SLACK_MS = 5.0
_SERVO_MOUNT = 1
_GYRO_FILTER = "INS_GYRO_FILTER"
_GYRO_SLACK_NS = 1_000_000  # of the rates' age: 18.4 to 21.9 Hz are as good as 20
_NO_FILTER_HZ = 10_000.0  # the highest that link.gyro_filter_hz takes: 0.02 ms
_SERIALS = (1, 2, 3, 4, 5)
_GPS_DELAY = ("GPS1_DELAY_MS", "GPS_DELAY_MS")


def _latency(value: float, case: Case) -> float:
    return min(round(case.link.latency_ms), VEHICLE_LIMIT_MS)


def _is_latency(value: float, case: Case) -> bool:
    return abs(value - _latency(value, case)) <= _DELAY_SLACK_MS


def _without_vision(value: float, case: Case) -> float:
    checks = _ALL_CHECKS if int(value) & 1 or not value else int(value)
    return float(checks & ~_VISION_CHECK)


_ESTIMATOR = (
    Rule(("EK3_ENABLE",), equals(1), 1, "the third estimator is the one that takes external positions", reboot=True),
    Rule(("AHRS_EKF_TYPE",), equals(3), 3, "the vehicle must fly by EKF3", reboot=True),
)
_SAFETY = (
    Rule(
        ("COMPASS_ENABLE",), equals(1), 1, "the compass is the only heading that does not need GPS", reboot=True
    ),
    Rule(
        ("COMPASS_USE",),
        lambda value, case: any(case.get(name) for name in ("COMPASS_USE", "COMPASS_USE2", "COMPASS_USE3")),
        1,
        "the compass is the only heading that does not need GPS",
    ),
    Rule(
        ("FS_EKF_ACTION",),
        lambda value, case: value != 0,
        1,
        "0 only reports: nothing is done when the position is lost",
        Severity.SHOULD,
        needed=False,
    ),
    Rule(
        ("FS_EKF_THRESH",),
        lambda value, case: value > 0,
        0.8,
        "0 switches the estimator's failsafe off",
        Severity.SHOULD,
        needed=False,
    ),
    Rule(
        ("RNGFND1_TYPE",),
        lambda value, case: value != 0,
        None,
        "a view's scale hangs on the height above ground, which the barometer knows only over flat land",
        Severity.NOTE,
        "the type of a rangefinder, if one is there",
        needed=False,
    ),
    Rule(
        ("MNT1_TYPE",),
        lambda value, case: value != _SERVO_MOUNT,
        None,
        "a servo mount tells the angles of its servos as if they were the camera's: no camera of ours may hang on it",
        Severity.NOTE,
        "a gimbal with an IMU of its own, or 7, if our camera hangs on it",
        needed=False,
    ),
)  # fmt: skip
_VISION = (
    Rule(("VISO_TYPE",), equals(1), 1, "1 is MAVLink: otherwise the messages are thrown away", reboot=True),
    Rule(
        ("VISO_DELAY_MS",),
        _is_latency,
        _latency,
        "every message tells of link.latency_ms ago, and stamps tell the vehicle only how that varies",
        reboot=True,
    ),
    Rule(
        ("VISO_POS_M_NSE",),
        between(0.5, 5.0),
        1.0,
        "a floor under the error told: too low lets one bold message pull the vehicle, too high hides good ones",
        Severity.SHOULD,
    ),
    Rule(("VISO_SCALE",), equals(1), 1, "every position would be multiplied by it", needed=False),
    Rule(
        ("VISO_QUAL_MIN",),
        between(-1, 50),
        0,
        "quality falls while motion alone carries the estimate: messages below this are thrown away",
        Severity.SHOULD,
        needed=False,
    ),
    *(rule for number in SETS for rule in source_rules(number, EXTERNAL)),
    *(rule for number in SETS for rule in left_over_gps_rules(number)),
    Rule(
        ("EK3_SRC_OPTIONS",),
        lambda value, case: not int(value) & 1 or not any_external_velocity(case),
        lambda value, case: float(int(value) & ~1),
        "bit 0 fuses the velocities of all source sets, also of one that is not in use",
        needed=False,
    ),
    Rule(
        ("EK3_SRC_OPTIONS",),
        lambda value, case: not int(value) & 8,
        lambda value, case: float(int(value) & ~8),
        "bit 3 gives each core its own set: nothing can be switched then",
        Severity.SHOULD,
        needed=False,
    ),
    Rule(
        GPS_TYPE,
        equals(0),
        None,
        "no source set is meant for a GPS that is there: leave set 1 to it and let us switch, or switch the GPS off",
        Severity.SHOULD,
        "0, or link.switch_source_set 2 or 3",
        applies=lambda case: not case.link.switch_source_set,
        reboot=True,
    ),
    Rule(
        GPS_TYPE,
        lambda value, case: value != 0,
        None,
        "link.switch_source_set switches away from a GPS that is not there",
        should_be="a GPS, or link.switch_source_set 0",
        applies=lambda case: bool(case.link.switch_source_set),
    ),
    Rule(
        ("EK3_SRC1_POSXY",),
        lambda value, case: value != EXTERNAL,
        GPS,
        "set 1 is used from the start: link.switch_source_set then has nothing to switch from",
        Severity.SHOULD,
        applies=lambda case: case.link.switch_source_set > 1,
    ),
    Rule(
        ("ARMING_CHECK",),
        lambda value, case: int(value) & (1 | _VISION_CHECK) == 0,
        _without_vision,
        "the VISION check refuses to arm while no fix comes, and on the ground none does: all checks but that one",
        needed=False,
    ),
    Rule(
        ("ARMING_CHECK",),
        lambda value, case: value != 0,
        _without_vision,
        "0 checks nothing before arming: all but VISION",
        Severity.SHOULD,
        needed=False,
    ),
    Rule(
        ("ARMING_SKIPCHK",),
        lambda value, case: bool(int(value) & _VISION_CHECK),
        lambda value, case: float(int(value) | _VISION_CHECK),
        "the VISION check refuses to arm while no fix comes, and on the ground none does: skip that one",
        needed=False,
    ),
)
_GPS_INPUT = (
    Rule(GPS_TYPE, equals(_GPS_IS_MAVLINK), _GPS_IS_MAVLINK, "14 is MAVLink: the receiver is us", reboot=True),
    Rule(
        _GPS_DELAY,
        _is_latency,
        _latency,
        "every message tells of link.latency_ms ago; 0 stands for a guess of the firmware's",
        reboot=True,
    ),
    *source_rules(1, GPS),
)


def _serial_rules() -> tuple[Rule, ...]:
    return tuple(
        Rule(
            (f"SERIAL{number}_PROTOCOL",),
            lambda value, case: value != _MAVLINK_1,
            _MAVLINK_2,
            "MAVLink 1 has no signing and no messages above 255: ours and the vehicle's own would be lost",
            Severity.SHOULD,
            reboot=True,
            applies=lambda case: case.serial,
            needed=False,
        )
        for number in _SERIALS
    )


def table(profile: Profile) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    own = _GPS_INPUT if profile is ARDUPILOT_GPS_INPUT else _VISION
    return _ESTIMATOR + own + _SAFETY + _serial_rules(), ("COMPASS_USE2", "COMPASS_USE3", _GYRO_FILTER)


def settings(profile: Profile, case: Case) -> list[Finding]:
    """What is wrong on our own side, seen from this firmware."""
    found = []
    latency_ms = case.link.latency_ms
    if latency_ms > VEHICLE_LIMIT_MS:
        why = "ArduPilot cannot be told of a longer delay: a smaller image, a lower rate or a faster computer"
        should_be = f"at most {VEHICLE_LIMIT_MS:g}"
        found.append(Finding(Severity.MUST, "link.latency_ms", latency_ms, should_be, why))
    if case.link.rate_hz < 4:
        why = "below 4 Hz ArduPilot calls the source unhealthy"
        found.append(Finding(Severity.MUST, "link.rate_hz", case.link.rate_hz, "10", why))
    other = set_that_holds_us(case)
    if profile is not ARDUPILOT_GPS_INPUT and other is not None:
        why = f"EK3_SRC{other}_POSXY is 6: if you take off with GPS, only this is missing, and set 1 is right as it is"
        found.append(Finding(Severity.SHOULD, "link.switch_source_set", case.link.switch_source_set, str(other), why))
    return found + _gyro_filter(case)


def _gyro_filter(case: Case) -> list[Finding]:
    """Whether the rates are as old as we take them for. The filter is tuned for the vehicle: our setting follows it."""
    told_hz, ours_hz = case.get(_GYRO_FILTER), case.link.gyro_filter_hz
    if told_hz is None:
        return []
    filter_hz = told_hz if told_hz > 0 else _NO_FILTER_HZ  # 0 switches it off
    lag_ns, taken_for_ns = rates_lag_ns(filter_hz), rates_lag_ns(ours_hz)
    if abs(lag_ns - taken_for_ns) <= _GYRO_SLACK_NS:
        return []
    ages = f"{lag_ns / 1e6:.1f} ms old, and taken for {taken_for_ns / 1e6:.1f} ms"
    why = f"{_GYRO_FILTER} is {told_hz:g}: its rates are {ages}: what the IMU felt in a turn is summed wrongly"
    return [Finding(Severity.SHOULD, "link.gyro_filter_hz", ours_hz, f"{filter_hz:g}", why)]
