"""ArduPilot's parameters: ODOMETRY and VISION_POSITION_ESTIMATE as external navigation, GPS_INPUT as a GPS.

Figures are of simulated flights on ArduCopter 4.7.0-dev; what the pre-arm checks refuse is of its source
(NavEKF_Source::pre_arm_check, AP_Arming).
"""

from __future__ import annotations

from onboard.mavlink.doctor.rules import Case, Finding, Rule, Severity, between, equals, one_of
from onboard.mavlink.latency import VEHICLE_LIMIT_MS
from onboard.mavlink.profile import ARDUPILOT_GPS_INPUT, Profile

_NONE, _BARO, _RANGEFINDER, _GPS, _EXTERNAL = 0, 1, 2, 3, 6
_COMPASS, _DUAL_GPS, _GPS_OR_COMPASS, _GSF = 1, 2, 3, 8  # of a yaw source
_OPTICAL_FLOW, _WHEELS = 5, 7
_MAVLINK_1, _MAVLINK_2 = 1, 2
_GPS_IS_MAVLINK = 14
_VISION_CHECK = 1 << 18
_ALL_CHECKS = 0xFFFFE  # bits 1 to 19; bit 0 stands for all of them
_DELAY_SLACK_MS = 5.0
_SETS = (1, 2, 3)
_SERIALS = (1, 2, 3, 4, 5)
_GPS_TYPE = ("GPS1_TYPE", "GPS_TYPE")
_GPS_DELAY = ("GPS1_DELAY_MS", "GPS_DELAY_MS")


def _latency(value: float, case: Case) -> float:
    return min(round(case.link.latency_ms), VEHICLE_LIMIT_MS)


def _is_latency(value: float, case: Case) -> bool:
    return abs(value - _latency(value, case)) <= _DELAY_SLACK_MS


def _has_gps(case: Case) -> bool:
    return bool(case.get(*_GPS_TYPE))


def _source_rules(number: int, position: int) -> tuple[Rule, ...]:
    """Of one source set, where it is the one that Pilotage feeds; `position` is what its horizontal position is."""

    def ours(case: Case) -> bool:
        return (case.source_set if position == _EXTERNAL else 1) == number

    def vertical_speed_blocks(case: Case) -> bool:
        return ours(case) and not _has_gps(case)

    name = f"EK3_SRC{number}_"
    return (
        Rule((f"{name}POSXY",), equals(position), position, _POSITION_WHY[position], applies=ours),
        Rule(
            (f"{name}VELXY",),
            one_of(_NONE, _OPTICAL_FLOW, _WHEELS) if position == _EXTERNAL else equals(_NONE),
            _NONE,
            "the velocity sent comes of the vehicle's own attitude: fused, the flight diverged within 20 s",
            applies=ours,
        ),
        Rule(
            (f"{name}POSZ",),
            one_of(_BARO, _RANGEFINDER, _GPS),
            _BARO,
            "the height sent is the vehicle's own, returned to it: it must measure height itself",
            applies=ours,
        ),
        Rule(
            (f"{name}POSZ",),
            equals(_BARO),
            _BARO,
            "GPS goes away, and a rangefinder follows the ground: the barometer stays",
            Severity.SHOULD,
            applies=ours,
        ),
        Rule(
            (f"{name}VELZ",),
            one_of(_NONE, _GPS),
            _NONE,
            "no vertical speed is measured: what is sent is a placeholder",
            applies=ours,
        ),
        Rule(
            (f"{name}VELZ",),
            equals(_NONE),
            _NONE,
            "without a GPS a source that is GPS keeps the vehicle from arming",
            applies=vertical_speed_blocks,
        ),
        Rule(
            (f"{name}VELZ",), equals(_NONE), _NONE, "when GPS lies, so does its speed", Severity.SHOULD, applies=ours
        ),
        Rule(
            (f"{name}YAW",),
            one_of(_COMPASS, _DUAL_GPS, _GPS_OR_COMPASS, _GSF),
            _COMPASS,
            "no heading is measured by the map: with vision as its source the error reached 167 m",
            applies=ours,
        ),
        Rule(
            (f"{name}YAW",), equals(_COMPASS), _COMPASS, "a heading from GPS is lost with GPS", Severity.SHOULD,
            applies=ours,
        ),
    )  # fmt: skip


_POSITION_WHY = {
    _EXTERNAL: "6 is ExternalNav: with anything else the estimator never looks at Pilotage's position",
    _GPS: "3 is GPS, which GPS_INPUT stands for: with anything else it is never looked at",
}


def _left_over_gps_rules(number: int) -> tuple[Rule, ...]:
    """Every set is checked before arming, also one that is never switched to."""

    def without_gps(case: Case) -> bool:
        return not _has_gps(case) and case.source_set != number

    return tuple(
        Rule(
            (f"EK3_SRC{number}_{what}",),
            lambda value, case: value != _GPS,
            instead,
            f"GPS1_TYPE is 0, and a source set that names GPS keeps the vehicle from arming, also set {number}",
            applies=without_gps,
            needed=False,
        )
        for what, instead in (("POSXY", _NONE), ("VELXY", _NONE), ("POSZ", _BARO), ("VELZ", _NONE))
    )


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
    *(rule for number in _SETS for rule in _source_rules(number, _EXTERNAL)),
    *(rule for number in _SETS for rule in _left_over_gps_rules(number)),
    Rule(
        ("EK3_SRC_OPTIONS",),
        lambda value, case: not int(value) & 1 or not _any_external_velocity(case),
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
        _GPS_TYPE,
        equals(0),
        None,
        "no source set is meant for a GPS that is there: leave set 1 to it and let us switch, or switch the GPS off",
        Severity.SHOULD,
        "0, or link.switch_source_set 2 or 3",
        applies=lambda case: not case.link.switch_source_set,
        reboot=True,
    ),
    Rule(
        _GPS_TYPE,
        lambda value, case: value != 0,
        None,
        "link.switch_source_set switches away from a GPS that is not there",
        should_be="a GPS, or link.switch_source_set 0",
        applies=lambda case: bool(case.link.switch_source_set),
    ),
    Rule(
        ("EK3_SRC1_POSXY",),
        lambda value, case: value != _EXTERNAL,
        _GPS,
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
    Rule(_GPS_TYPE, equals(_GPS_IS_MAVLINK), _GPS_IS_MAVLINK, "14 is MAVLink: the receiver is us", reboot=True),
    Rule(
        _GPS_DELAY,
        _is_latency,
        _latency,
        "every message tells of link.latency_ms ago; 0 stands for a guess of the firmware's",
        reboot=True,
    ),
    *_source_rules(1, _GPS),
)


def _any_external_velocity(case: Case) -> bool:
    return any(case.get(f"EK3_SRC{number}_VELXY") == _EXTERNAL for number in _SETS)


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
    return _ESTIMATOR + own + _SAFETY + _serial_rules(), ("COMPASS_USE2", "COMPASS_USE3")


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
    other = _set_that_holds_us(case)
    if profile is not ARDUPILOT_GPS_INPUT and other is not None:
        why = f"EK3_SRC{other}_POSXY is 6: if you take off with GPS, only this is missing, and set 1 is right as it is"
        found.append(Finding(Severity.SHOULD, "link.switch_source_set", case.link.switch_source_set, str(other), why))
    return found


def _set_that_holds_us(case: Case) -> int | None:
    """A later set that is made for Pilotage while our own settings say that none is switched to."""
    if case.link.switch_source_set or case.get("EK3_SRC1_POSXY") == _EXTERNAL:
        return None
    return next((number for number in _SETS[1:] if case.get(f"EK3_SRC{number}_POSXY") == _EXTERNAL), None)
