"""ArduPilot's source sets, EK3_SRC1 to EK3_SRC3: what the estimator takes position, speed, height and heading from.

What the vehicle refuses to arm with is of its source (NavEKF_Source::pre_arm_check); figures are of simulated flights.
"""

from __future__ import annotations

from onboard.mavlink.doctor.rules import Case, Rule, Severity, equals, one_of

GPS, EXTERNAL = 3, 6
SETS = (1, 2, 3)
GPS_TYPE = ("GPS1_TYPE", "GPS_TYPE")
_NONE, _BARO, _RANGEFINDER = 0, 1, 2
_OPTICAL_FLOW, _WHEELS = 5, 7
_COMPASS, _DUAL_GPS, _GPS_OR_COMPASS, _GSF = 1, 2, 3, 8  # of a yaw source


def has_gps(case: Case) -> bool:
    return bool(case.get(*GPS_TYPE))


def source_rules(number: int, position: int) -> tuple[Rule, ...]:
    """Of one source set, where it is the one that Pilotage feeds; `position` is what its horizontal position is."""

    def ours(case: Case) -> bool:
        return (case.source_set if position == EXTERNAL else 1) == number

    def vertical_speed_blocks(case: Case) -> bool:
        return ours(case) and not has_gps(case)

    name = f"EK3_SRC{number}_"
    return (
        Rule((f"{name}POSXY",), equals(position), position, _POSITION_WHY[position], applies=ours),
        Rule(
            (f"{name}VELXY",),
            one_of(_NONE, _OPTICAL_FLOW, _WHEELS) if position == EXTERNAL else equals(_NONE),
            _NONE,
            "the velocity sent derives from the vehicle's own attitude: fused, the flight diverged within 20 s",
            applies=ours,
        ),
        Rule(
            (f"{name}POSZ",),
            one_of(_BARO, _RANGEFINDER, GPS),
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
            one_of(_NONE, GPS),
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
    EXTERNAL: "6 is ExternalNav: with anything else the estimator never looks at Pilotage's position",
    GPS: "3 is GPS, which GPS_INPUT stands for: with anything else it is never looked at",
}


def left_over_gps_rules(number: int) -> tuple[Rule, ...]:
    """Every set is checked before arming, also one that is never switched to."""

    def without_gps(case: Case) -> bool:
        return not has_gps(case) and case.source_set != number

    return tuple(
        Rule(
            (f"EK3_SRC{number}_{what}",),
            lambda value, case: value != GPS,
            instead,
            f"GPS1_TYPE is 0, and a source set that names GPS keeps the vehicle from arming, also set {number}",
            applies=without_gps,
            needed=False,
        )
        for what, instead in (("POSXY", _NONE), ("VELXY", _NONE), ("POSZ", _BARO), ("VELZ", _NONE))
    )


def any_external_velocity(case: Case) -> bool:
    return any(case.get(f"EK3_SRC{number}_VELXY") == EXTERNAL for number in SETS)


def set_that_holds_us(case: Case) -> int | None:
    """A later set that is made for Pilotage while our own settings say that none is switched to."""
    if case.link.switch_source_set or case.get("EK3_SRC1_POSXY") == EXTERNAL:
        return None
    return next((number for number in SETS[1:] if case.get(f"EK3_SRC{number}_POSXY") == EXTERNAL), None)
