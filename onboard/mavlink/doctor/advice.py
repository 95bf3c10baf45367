"""What must be so for a profile: the tables of `ardupilot` and `px4`, and what they find of a vehicle."""

from __future__ import annotations

from collections.abc import Iterable

from onboard.mavlink.doctor import ardupilot, px4
from onboard.mavlink.doctor.rules import Case, Finding, Rule, Severity
from onboard.mavlink.tell.profile import Profile
from onboard.mavlink.vehicle.autopilot import Autopilot


def names_for(profile: Profile) -> list[str]:
    """Every parameter that the profile's rules look at."""
    rules, extra = _table(profile)
    return list(dict.fromkeys([name for rule in rules for name in rule.names] + list(extra)))


def examine(profile: Profile, case: Case) -> list[Finding]:
    """What is wrong with the parameters, worst first. One finding a parameter: the worst, of equals the first."""
    rules, _ = _table(profile)
    found = [finding for rule in rules if (finding := rule.look(case)) is not None]
    room = ardupilot if profile.autopilot is Autopilot.ARDUPILOT else px4
    found += room.settings(profile, case)
    return by_severity(_first_of_each(by_severity(found)))


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, otherwise in order."""
    order = list(Severity)
    return sorted(findings, key=lambda one: order.index(one.severity))


def _first_of_each(findings: Iterable[Finding]) -> list[Finding]:
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.parameter, finding)
    return list(first.values())


def _table(profile: Profile) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """The rules of a profile, and the names of what they look at beside their own."""
    return (ardupilot if profile.autopilot is Autopilot.ARDUPILOT else px4).table(profile)
